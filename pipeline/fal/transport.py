"""One request to fal and its whole reply, with the key or through a relay, and never following a redirect."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx

from ..errors import FalError
from .key import FalKey, find_key
from .policy import NetworkPolicy
from .reply import Garbled, Reply, read_limited

USER_AGENT = "comfyui-cosmos-predict25/0.1.0 (python)"


class Transport:
    """Raises `KeyMissing` when it is made without a key. With a relay no key is read."""

    def __init__(self, key: str | None, policy: NetworkPolicy) -> None:
        self.policy = policy
        self.key: FalKey | None = None if policy.relay_url else find_key(key)
        self._certificates = certificates()
        logging.getLogger("httpx").addFilter(hide_requests_to_fal)

    def connect(self, keep_alive: bool = True) -> httpx.AsyncClient:
        """A new client. Without `keep_alive`, each request has a connection of its own. Raises `FalError`."""
        limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0)
        return connect("application/json", limits, self._certificates)

    async def send(
        self,
        http: httpx.AsyncClient,
        method: str,
        url: str,
        *,
        timeout: float,
        deadline: float,
        max_bytes: int | None = None,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """`timeout`: seconds for each read. `deadline`: seconds in all; bytes that drip in never run into the former.

        Raises `httpx.TransportError`, and `Garbled` for a reply that cannot be read.
        """
        stream = http.stream(
            method,
            self.policy.relay_url or url,
            headers={**(headers or {}), **self._credentials(url)},
            content=content,
            timeout=self.policy.timeout(timeout),
        )
        try:
            with anyio.fail_after(deadline):  # before Python 3.12, asyncio.wait_for may swallow a cancellation
                async with stream as response:
                    return await read_limited(response, max_bytes or self.policy.max_reply)
        except httpx.InvalidURL:  # httpx reads where a redirect leads, even if it is not to be followed
            raise Garbled("it redirects to what is no URL") from None
        except TimeoutError:
            raise httpx.ReadTimeout(f"no complete reply within {deadline:g} s") from None

    def _credentials(self, url: str) -> dict[str, str]:
        return {"Authorization": self.key.header} if self.key else {"x-fal-target-url": url}


def certificates() -> ssl.SSLContext:
    """Whom to trust, which takes a tenth of a second to read. Raises `FalError`."""
    with told_of_the_environment():
        return httpx.create_ssl_context()


def connect(accept: str, limits: httpx.Limits, certificates: ssl.SSLContext) -> httpx.AsyncClient:
    """Without the key. Raises `FalError` when the environment's proxy cannot be used."""
    with told_of_the_environment():
        return httpx.AsyncClient(
            headers={"User-Agent": USER_AGENT, "Accept": accept, "Accept-Encoding": "identity"},
            limits=limits,
            verify=certificates,
            follow_redirects=False,
            http1=True,
            http2=False,
        )


@contextmanager
def told_of_the_environment() -> Iterator[None]:
    """Not with the text of the error, which may hold a proxy's password."""
    try:
        yield
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise FalError(
            f"The network settings of this computer cannot be used ({type(error).__name__}): look at the environment "
            "variables HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE.",
            stage="connect",
        ) from None


def hide_requests_to_fal(record: logging.LogRecord) -> bool:
    """A filter for httpx' logger, which would write a line with the URL for every look at a job."""
    arguments: Any = record.args or ()
    return not any(isinstance(argument, httpx.URL) and is_of_fal(argument) for argument in arguments)


def is_of_fal(url: httpx.URL) -> bool:
    return url.host.endswith(("fal.run", "fal.ai", "fal.media"))


def reason_of(error: httpx.TransportError | Garbled) -> str:
    """The kind of error alone: texts of httpx may hold URLs."""
    return str(error) if isinstance(error, Garbled) else type(error).__name__
