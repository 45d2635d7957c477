"""One request to fal and its whole reply, with the key or through a relay, and never following a redirect."""

import email.utils
import logging
import os
import re
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from ...errors import FalError, InvalidRequestError
from ..key import FalKey, find_key
from ..redaction import redact, without_key
from .policy import NetworkPolicy
from .reply import Reply, TransportFailure, UnreadableReplyError, read_limited
from .retry import is_certificate_failure, proves_nothing_was_sent

Trace = Callable[[str, dict[str, Any]], Awaitable[None]]
FILTERED = ("httpx", "httpcore.http11", "httpcore.connection", "httpcore.proxy")
"""Logs of the libraries: of each request, and at DEBUG of each step with the headers."""
HOST_NAME = re.compile(r"[\w.-]+(:\d+)?", re.ASCII)
USER_AGENT = "comfyui-cosmos-predict25/0.2.0 (python)"


class UnloggedURL(httpx.URL):
    """A URL that is itself a credential. It is redacted because httpx logs every URL, and ComfyUI shows the log."""

    def __str__(self) -> str:
        return redact(super().__str__())

    __repr__ = __str__


class LogFilter(logging.Filter):
    """Keeps out of the log the hundreds of looks at a job, but for DEBUG, and the key where a server repeats it."""

    def __init__(self, key: FalKey | None) -> None:
        super().__init__()
        self._key = key

    def filter(self, record: logging.LogRecord) -> bool:
        args: tuple[object, ...] = record.args if isinstance(record.args, tuple) else ()
        if len(args) > 1 and args[0] == "GET" and isinstance(args[1], UnloggedURL):
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        if self._key and self._key.is_in(text := record.getMessage()):
            record.msg, record.args = without_key(text, self._key), ()
        return True


class Transport:
    """A connection to fal, to be used in `async with`.

    Raises `MissingKeyError` when it is made without a key. With a relay no key is read. `private`: see `Reply`.
    """

    def __init__(self, key: str | None, policy: NetworkPolicy, private: Mapping[str, str]) -> None:
        self.policy = policy
        self.key = key_for(policy, key)
        self._private = private
        self._fals_time: tuple[float, float] | None = None
        self._certificates = certificates()
        self._log_filter = LogFilter(self.key)

    async def __aenter__(self) -> "Transport":
        self._http = connect("application/json", self._certificates)
        for name in FILTERED:
            logging.getLogger(name).addFilter(self._log_filter)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        for name in FILTERED:
            logging.getLogger(name).removeFilter(self._log_filter)

    @property
    def clock_offset(self) -> float | None:
        """Return the seconds that fal's clock is ahead of this computer's, None while no reply has told its date."""
        if not self._fals_time:
            return None
        date, moment = self._fals_time
        return date + time.monotonic() - moment - time.time()

    async def send(
        self, method: str, url: str, *, timeout: float, deadline: float, max_bytes: int | None = None, **what: Any
    ) -> Reply | TransportFailure:
        """Send a request with the key and return its reply.

        `timeout`: seconds for each read. `deadline`: in all, as bytes that drip in never run into the former.

        `what`: the headers and the content, as for `build`.
        """
        return await self._exchange(self._http, self.build(method, url, **what), timeout, deadline, max_bytes)

    async def send_alone(
        self, request: httpx.Request, *, timeout: float, deadline: float, trace: Trace
    ) -> Reply | TransportFailure:
        """Send a request on a connection of its own, which no one can have closed before.

        `trace`: told of each step of the connection, see httpx' request extensions.
        """
        request.extensions["trace"] = trace
        async with connect("application/json", self._certificates) as http:
            return await self._exchange(http, request, timeout, deadline, None)

    async def put_without_key(
        self, url: httpx.URL, headers: dict[str, str], content: AsyncIterator[bytes]
    ) -> Reply | TransportFailure:
        """Send a file to an address of fal's CDN, which no log names."""
        policy = self.policy
        async with connect("*/*", self._certificates) as http:
            request = http.build_request("PUT", url, headers=headers, content=content)
            request.url = UnloggedURL(url)
            return await self._exchange(
                http, request, policy.result_timeout, policy.media_deadline, None, tells_time=False
            )

    def build(
        self, method: str, url: str, headers: dict[str, str] | None = None, content: bytes | None = None
    ) -> httpx.Request:
        """Return a request with the key. Raises `InvalidRequestError` for one that cannot be sent."""
        credentials = {"Authorization": self.key.header} if self.key else {"x-fal-target-url": url}
        address, all_headers = self.policy.relay_url or url, {**(headers or {}), **credentials}
        try:
            request = self._http.build_request(method, address, headers=all_headers, content=content)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            reason = type(error).__name__
        else:
            request.url = UnloggedURL(request.url)  # there may be a webhook in it, or what a relay is to know
            return request
        raise InvalidRequestError(f"The request to fal cannot be made ({reason}): its URL is too long or invalid.")

    async def _exchange(
        self,
        http: httpx.AsyncClient,
        request: httpx.Request,
        timeout: float,
        deadline: float,
        max_bytes: int | None,
        tells_time: bool = True,
    ) -> Reply | TransportFailure:
        """Return the reply to a request. Errors of httpx end here: their frames hold the headers.

        `tells_time`: whether the reply's clock is fal's; the CDN may go by another one than the queue.
        """
        request.extensions["timeout"] = self.policy.timeout(timeout).as_dict()
        try:
            with anyio.fail_after(deadline):  # before Python 3.12, asyncio.wait_for may swallow a cancellation
                response = await http.send(request, stream=True)
                try:
                    if tells_time:
                        self._look_at_the_clock(response)
                    return await read_limited(response, max_bytes or self.policy.max_reply, self.key, self._private)
                finally:
                    await response.aclose()
        except UnreadableReplyError as error:
            return TransportFailure("UNREADABLE", str(error))
        except httpx.InvalidURL:  # httpx reads where a redirect leads, even if it is not to be followed
            return TransportFailure("UNREADABLE", "it redirects to something that is not a URL")
        except TimeoutError:
            return TransportFailure("LOST", "ReadTimeout")
        except (httpx.TransportError, ssl.SSLError) as error:  # httpx translates those of the handshake only
            if is_certificate_failure(error):
                return TransportFailure("BAD_CERTIFICATE", "its certificate is not valid")
            return TransportFailure("NOT_SENT" if proves_nothing_was_sent(error) else "LOST", reason_of(error))

    def _look_at_the_clock(self, response: httpx.Response) -> None:
        try:
            date = email.utils.parsedate_to_datetime(response.headers.get("date", ""))
            self._fals_time = date.timestamp(), time.monotonic()
        except (TypeError, ValueError, OverflowError):
            return


def key_for(policy: NetworkPolicy, explicit: str | None = None) -> FalKey | None:
    """Return the key, None where a relay adds it. Raises `MissingKeyError`."""
    return None if policy.relay_url else find_key(explicit)


def certificates() -> ssl.SSLContext:
    """Return the certificates to trust, which take a tenth of a second to read. Raises `FalError`.

    Those of SSL_CERT_FILE or SSL_CERT_DIR alone, or else certifi's, the system's, where companies put theirs, and those
    of REQUESTS_CA_BUNDLE.
    """
    with network_settings():
        context = httpx.create_ssl_context()
        if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
            context.load_default_certs()
            if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
                context.load_verify_locations(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})
        return context


def connect(accept: str, certificates: ssl.SSLContext) -> httpx.AsyncClient:
    """Return a client without the key. Raises `FalError` when the environment's proxy cannot be used."""
    with network_settings():
        return httpx.AsyncClient(
            headers={"User-Agent": USER_AGENT, "Accept": accept, "Accept-Encoding": "identity"},
            verify=certificates,
            mounts=proxies(certificates),
            trust_env=False,
            follow_redirects=False,
            http1=True,
            http2=False,
        )


def proxies(certificates: ssl.SSLContext) -> dict[str, httpx.AsyncHTTPTransport | None]:
    """Return httpx's mounts for the environment's proxy and for the hosts that NO_PROXY names.

    Entries that are no name of a host, such as `[::1]` or `fe80::/10`, which httpx cannot read, are left out.
    """
    address = proxy_address()
    direct = [name.strip().lstrip("*") for name in urllib.request.getproxies().get("no", "").split(",")]
    if not address or "*" in urllib.request.getproxies().get("no", "").split(","):
        return {}
    proxy = httpx.AsyncHTTPTransport(verify=certificates, proxy=httpx.Proxy(address), trust_env=False)
    return {"https://": proxy, **{f"all://*{name}": None for name in direct if HOST_NAME.fullmatch(name)}}


@contextmanager
def network_settings() -> Iterator[None]:
    """Raise `FalError` for settings that cannot be used, without their text: a proxy's password may be in it."""
    reason = ""
    try:
        yield
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        reason = type(error).__name__
    if reason == "ImportError":
        raise FalError(
            'The proxy of this computer is a SOCKS proxy, which needs a package: run `pip install "httpx[socks]"` with '
            "ComfyUI's Python, or set HTTPS_PROXY to a proxy with http://.",
            stage="connect",
        )
    if reason:
        raise FalError(
            f"The network settings of this computer cannot be used ({reason}): look at the environment variables "
            "HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and REQUESTS_CA_BUNDLE.",
            stage="connect",
        )


def reason_of(error: Exception) -> str:
    """Return the kind of an error, as texts of httpx may hold URLs; for a proxy, its name and its answer."""
    said = re.match(r"\d{3}\b", str(error))
    if not isinstance(error, httpx.ProxyError) or not said:
        return type(error).__name__
    wants = ": it wants a user and a password in HTTPS_PROXY" if said[0] == "407" else ""
    return f"the proxy {proxy_name()} answers HTTP {said[0]}{wants}"


def proxy_name() -> str:
    """Return host:port of the environment's proxy."""
    return httpx.URL(proxy_address()).netloc.decode()


def proxy_address() -> str:
    """Return the environment's proxy, which may be set without http:// before it, or nothing."""
    found = urllib.request.getproxies()
    address = found.get("https") or found.get("all") or ""
    return address if "://" in address or not address else f"http://{address}"
