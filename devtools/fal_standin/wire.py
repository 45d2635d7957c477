"""HTTP/1.1 byte for byte: what a request was, and how a reply is sent or broken off."""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LIMIT = 2**20
"""Bytes of a request's head at most."""


@dataclass
class Exchange:
    """One request, and what became of it.

    `origin`: "api", "media" or "evil", the listener that it came to. `target`: path and query as they were sent.
    `status`: the status sent, None if none was. `outcome`: "open" while it is being answered, then "replied", "reset",
    "closed" (by the stand-in, before the reply was complete) or "abandoned" (by the client).
    """

    origin: str
    method: str
    target: str
    raw_headers: tuple[tuple[str, str], ...]
    time: float = field(default_factory=time.time)
    stage: str = ""
    body: bytes = b""
    status: int | None = None
    outcome: str = "open"

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; the values of a name sent twice are joined by ", "."""
        joined: dict[str, str] = {}
        for name, value in self.raw_headers:
            joined[name.lower()] = f"{joined[name.lower()]}, {value}" if name.lower() in joined else value
        return joined

    @property
    def host(self) -> str:
        return self.headers.get("host", "").lower()

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def argument(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """A reply. A body that is not bytes yet goes out in chunks as it comes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""

    @property
    def framing(self) -> str:
        return "length" if isinstance(self.body, bytes) else "chunked"

    def head(self, framing: str) -> bytes:
        """`framing`: "length", "chunked", or "close" for a body that ends with the connection."""
        phrase = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Unknown"
        fields = {name.lower(): value for name, value in self.headers.items()}
        if framing == "length" and isinstance(self.body, bytes):
            fields.setdefault("content-length", str(len(self.body)))
        elif framing == "chunked":
            fields["transfer-encoding"] = "chunked"
        elif framing == "close":
            fields["connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def pieces(self) -> AsyncIterator[bytes]:
        if isinstance(self.body, bytes):
            yield self.body
            return
        async for piece in self.body:
            yield piece


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode())


def framed(piece: bytes, framing: str) -> bytes:
    if framing != "chunked":
        return piece
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


LAST_CHUNK = b"0\r\n\r\n"


class Wire:
    """The server's end of a connection, for the reply to `exchange`, which it keeps up to date."""

    def __init__(self, exchange: Exchange, writer: asyncio.StreamWriter, released: asyncio.Event) -> None:
        self.exchange = exchange
        self._writer = writer
        self._released = released

    @property
    def ended(self) -> bool:
        return self._writer.transport.is_closing()

    async def send(self, response: Response, framing: str | None = None) -> None:
        framing = framing or response.framing
        last = LAST_CHUNK if framing == "chunked" else b""
        if isinstance(response.body, bytes):
            self.exchange.status = response.status
            await self.finish(response.head(framing) + framed(response.body, framing) + last)
        else:
            await self.start(response, framing)
            async for piece in response.body:
                await self.write(framed(piece, framing))
            await self.finish(last)
        if framing == "close":
            self.close()

    async def start(self, response: Response, framing: str) -> None:
        self.exchange.status = response.status
        await self.write(response.head(framing))

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)  # `drain` need not wait, and then nobody would hear that the client left.
        if self.ended:
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    async def finish(self, data: bytes = b"") -> None:
        """The last bytes of a complete reply."""
        self.exchange.outcome = "replied"
        await self.write(data)

    async def hang(self, seconds: float | None = None) -> None:
        """Waits until `seconds` are over or the stand-in's `release` is called."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    def close(self) -> None:
        if self.exchange.outcome == "open":
            self.exchange.outcome = "closed"
        self._writer.close()

    def reset(self) -> None:
        self.exchange.outcome = "reset"
        reset(self._writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a TCP RST."""
    raw = writer.get_extra_info("socket")
    if raw and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_head(reader: asyncio.StreamReader, origin: str) -> Exchange | None:
    """A request up to its body, None if the client has no more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    return Exchange(origin, method, target, headers)


async def read_body(reader: asyncio.StreamReader, exchange: Exchange, half: bool = False) -> None:
    """Raises when the client breaks off; `exchange.body` then has what came. `half`: of a known length, only that."""
    pieces: list[bytes] = []
    try:
        if exchange.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            await reader.readuntil(b"\r\n")
            return
        missing = int(exchange.headers.get("content-length", 0)) // (2 if half else 1)
        while missing:
            pieces.append(await reader.read(missing))
            if not pieces[-1]:
                raise ConnectionResetError
            missing -= len(pieces[-1])
    finally:
        exchange.body = b"".join(pieces)
