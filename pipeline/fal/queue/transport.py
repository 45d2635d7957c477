"""One request to fal and its whole reply, with the key or through a relay, and never following a redirect."""

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from ...errors import FalError
from ..key import FalKey, find_key
from .policy import NetworkPolicy
from .reply import Reply, UnreadableReplyError, read_limited

FAL = ("fal.run", "fal.ai", "fal.media")
Trace = Callable[[str, dict[str, Any]], Awaitable[None]]
USER_AGENT = "comfyui-cosmos-predict25/0.1.0 (python)"


class Transport:
    """Raises `MissingKeyError` when it is made without a key. With a relay no key is read."""

    def __init__(self, key: str | None, policy: NetworkPolicy) -> None:
        self.policy = policy
        self.key = key_for(policy, key)
        self._certificates = certificates()
        relay = (httpx.URL(policy.relay_url).host,) if policy.relay_url else ()
        logging.getLogger("httpx").addFilter(NoUrlsOfFal((*FAL, *relay)))

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
        trace: Trace | None = None,
    ) -> Reply:
        """`timeout`: seconds for each read. `deadline`: seconds in all; bytes that drip in never run into the former.
        `trace`: told of each step of the connection, see httpx' request extensions.

        Raises `httpx.TransportError`, and `UnreadableReplyError` for a reply that cannot be read.
        """
        stream = http.stream(
            method,
            self.policy.relay_url or url,
            headers={**(headers or {}), **self._credentials(url)},
            content=content,
            timeout=self.policy.timeout(timeout),
            extensions={"trace": trace} if trace else None,
        )
        try:
            with anyio.fail_after(deadline):  # before Python 3.12, asyncio.wait_for may swallow a cancellation
                async with stream as response:
                    return await read_limited(response, max_bytes or self.policy.max_reply)
        except ssl.SSLError as error:  # httpx translates those of the handshake only
            raise httpx.ReadError(type(error).__name__) from None
        except httpx.InvalidURL:  # httpx reads where a redirect leads, even if it is not to be followed
            raise UnreadableReplyError("it redirects to what is no URL") from None
        except TimeoutError:
            raise httpx.ReadTimeout(f"no complete reply within {deadline:g} s") from None

    def _credentials(self, url: str) -> dict[str, str]:
        return {"Authorization": self.key.header} if self.key else {"x-fal-target-url": url}


def key_for(policy: NetworkPolicy, explicit: str | None = None) -> FalKey | None:
    """None where a relay adds the key. Raises `MissingKeyError`."""
    return None if policy.relay_url else find_key(explicit)


def certificates() -> ssl.SSLContext:
    """Whom to trust, which takes a tenth of a second to read. Raises `FalError`."""
    with naming_network_settings():
        return httpx.create_ssl_context()


def connect(accept: str, limits: httpx.Limits, certificates: ssl.SSLContext) -> httpx.AsyncClient:
    """Without the key. Raises `FalError` when the environment's proxy cannot be used."""
    with naming_network_settings():
        return httpx.AsyncClient(
            headers={"User-Agent": USER_AGENT, "Accept": accept, "Accept-Encoding": "identity"},
            limits=limits,
            verify=certificates,
            follow_redirects=False,
            http1=True,
            http2=False,
        )


@contextmanager
def naming_network_settings() -> Iterator[None]:
    """Not with the text of the error, which may hold a proxy's password."""
    try:
        yield
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise FalError(
            f"The network settings of this computer cannot be used ({type(error).__name__}): look at the environment "
            "variables HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE.",
            stage="connect",
        ) from None


@dataclass(frozen=True)
class NoUrlsOfFal(logging.Filter):
    """For httpx' logger, which would write a line with the URL for every look at a job. Equal ones are added once."""

    hosts: tuple[str, ...]

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: Any = record.args or ()
        return not any(isinstance(item, httpx.URL) and item.host.endswith(self.hosts) for item in arguments)


def reason_of(error: httpx.TransportError | UnreadableReplyError) -> str:
    """The kind of error alone: texts of httpx may hold URLs."""
    return str(error) if isinstance(error, UnreadableReplyError) else type(error).__name__
