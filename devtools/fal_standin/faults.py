"""What can go wrong with a reply.

`accept` says whether the service behind the reply does its work all the same: creates the job, cancels it, and so on.
A fault that alters the service's own reply accepts by default, one that takes its place does not.
"""

import email.utils
import json
import math
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .wire import LAST_CHUNK, Response, Wire, framed

FOREVER = 2**31
"""For `times`."""
BLOCK = 65536
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The reply as it should be; the others differ."""

    accept: bool = False

    async def send(self, response: Response, wire: Wire) -> None:
        """`response`: the service's reply, or its 503 when it was not to accept."""
        await wire.send(response)


@dataclass(frozen=True, kw_only=True)
class Altered(Fault):
    """The service's own reply, changed."""

    accept: bool = True

    async def send(self, response: Response, wire: Wire) -> None:
        body = b"".join([piece async for piece in response.pieces()])
        await wire.send(self.change(replace(response, body=body), body))

    def change(self, response: Response, body: bytes) -> Response:
        return response


@dataclass(frozen=True)
class Reply(Fault):
    """Any reply instead. `body`: bytes go as they are, anything else as JSON."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = b""

    async def send(self, response: Response, wire: Wire) -> None:
        if isinstance(self.body, bytes):
            await wire.send(Response(self.status, self.headers, self.body))
        else:
            await wire.send(Response(self.status, {**JSON, **self.headers}, json.dumps(self.body).encode()))


@dataclass(frozen=True)
class RetryAt(Fault):
    """A 429 whose `Retry-After` is a date, `seconds` after the reply is sent and rounded down to a second."""

    seconds: float

    async def send(self, response: Response, wire: Wire) -> None:
        date = email.utils.formatdate(time.time() + self.seconds, usegmt=True)
        await Reply(429, {"retry-after": date}, {"detail": "Too many requests"}).send(response, wire)


def ingress(status: int = 503, *, accept: bool = False) -> Reply:
    """The page of a proxy before the service."""
    title = f"{status} Service Temporarily Unavailable"
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>nginx</body></html>"
    return Reply(status, HTML, page.encode(), accept=accept)


@dataclass(frozen=True)
class Redirect(Fault):
    """`{host}` and `{target}` in the location stand for the request's own."""

    status: int
    location: str

    async def send(self, response: Response, wire: Wire) -> None:
        location = self.location.replace("{host}", wire.exchange.host).replace("{target}", wire.exchange.target)
        await wire.send(Response(self.status, {"location": location}))


@dataclass(frozen=True)
class Reset(Fault):
    """The connection ends before any byte of a reply: by RST, or by a close in order.

    `read_request` False: the next new connection to the stage's origin ends as soon as TLS is up, before a byte of the
    request is read. `half`: when half of the request's body has come.
    """

    read_request: bool = True
    rst: bool = True
    half: bool = False

    async def send(self, response: Response, wire: Wire) -> None:
        if self.rst:
            wire.reset()
        else:
            wire.close()


@dataclass(frozen=True)
class Hang(Fault):
    """No byte of a reply for `seconds` (None: until the stand-in's `release`), then the reply."""

    seconds: float | None = None

    async def send(self, response: Response, wire: Wire) -> None:
        await wire.hang(self.seconds)
        await wire.send(response)


@dataclass(frozen=True)
class Truncate(Altered):
    """Only the first `keep` bytes of the body; the length was announced, or the end of the chunks is missing."""

    keep: int
    chunked: bool = False

    async def send(self, response: Response, wire: Wire) -> None:
        framing = "chunked" if self.chunked else response.framing
        await send_first(self.keep, response, wire, framing)
        wire.close()


@dataclass(frozen=True)
class Stall(Altered):
    """The first `keep` bytes of the body, and then none for `seconds` (None: until `release`)."""

    keep: int
    seconds: float | None = None

    async def send(self, response: Response, wire: Wire) -> None:
        await send_first(self.keep, response, wire, response.framing)
        await wire.hang(self.seconds)
        wire.close()


async def send_first(keep: int, response: Response, wire: Wire, framing: str) -> None:
    await wire.start(response, framing)
    async for piece in response.pieces():
        await wire.write(framed(piece[:keep], framing))
        keep -= len(piece)
        if keep <= 0:
            return


@dataclass(frozen=True)
class Drip(Altered):
    """`size` bytes at a time, from the status line on, or with `head` False from the body on."""

    seconds: float
    head: bool = True
    size: int = 1

    async def send(self, response: Response, wire: Wire) -> None:
        body = b"".join([piece async for piece in response.pieces()])
        head = replace(response, body=body).head("length")
        wire.exchange.status = response.status
        fast, slow = (b"", head + body) if self.head else (head, body)
        await wire.write(fast)
        last = (len(slow) - 1) // self.size * self.size
        for start in range(0, last, self.size):
            await wire.write(slow[start : start + self.size])
            await wire.hang(self.seconds)
        await wire.finish(slow[last:])


@dataclass(frozen=True)
class Chop(Altered):
    """A chunked body in chunks of `size` bytes."""

    size: int

    async def send(self, response: Response, wire: Wire) -> None:
        await wire.start(response, "chunked")
        async for piece in response.pieces():
            for start in range(0, len(piece), self.size):
                await wire.write(framed(piece[start : start + self.size], "chunked"))
        await wire.finish(LAST_CHUNK)


@dataclass(frozen=True)
class NoLength(Altered):
    """A body without `Content-Length`: in chunks, or up to the end of the connection."""

    chunked: bool = False

    async def send(self, response: Response, wire: Wire) -> None:
        await wire.send(response, "chunked" if self.chunked else "close")


@dataclass(frozen=True)
class BigHeaders(Altered):
    """`size` more bytes of headers."""

    size: int

    def change(self, response: Response, body: bytes) -> Response:
        starts = range(0, self.size, 4000)
        padding = {f"x-padding-{start}": "p" * min(4000, self.size - start) for start in starts}
        return replace(response, headers={**response.headers, **padding})


@dataclass(frozen=True)
class Relabel(Altered):
    """Another status, or other headers, on the body as it is."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def change(self, response: Response, body: bytes) -> Response:
        return Response(self.status or response.status, {**response.headers, **self.headers}, body)


@dataclass(frozen=True)
class Body(Altered):
    """`transform` makes the body."""

    transform: Callable[[bytes], bytes]

    def change(self, response: Response, body: bytes) -> Response:
        return replace(response, body=self.transform(body))


@dataclass(frozen=True)
class Json(Altered):
    """`transform` gets the parsed body, and returns another or changes it in place and returns None."""

    transform: Callable[[Any], Any]

    def change(self, response: Response, body: bytes) -> Response:
        value = json.loads(body)
        changed = self.transform(value)
        return replace(response, body=json.dumps(value if changed is None else changed).encode())


def with_fields(**fields: Any) -> Json:
    """The reply with these members."""
    return Json(lambda reply: {**reply, **fields})


def without_fields(*names: str) -> Json:
    """The reply without these members."""
    return Json(lambda reply: {name: value for name, value in reply.items() if name not in names})


@dataclass(frozen=True)
class EndlessBody(Fault):
    """A 200 whose body goes on for `size` bytes; `length` announces any number of them.

    `first`: how the body begins; `headers`: as those of a file, so that it is the body that must be noticed.
    """

    size: float = math.inf
    length: int | None = None
    first: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "video/mp4"})

    async def send(self, response: Response, wire: Wire) -> None:
        if self.length is None:
            await wire.send(Response(200, self.headers, self.blocks()))
            return
        await wire.start(Response(200, {**self.headers, "content-length": str(self.length)}, self.blocks()), "length")
        async for block in self.blocks():
            await wire.write(block)
        wire.close()

    async def blocks(self) -> AsyncIterator[bytes]:
        yield self.first
        sent = len(self.first)
        while sent < self.size:
            block = b"x" * int(min(BLOCK, self.size - sent))
            sent += len(block)
            yield block


@dataclass(frozen=True)
class GzipBomb(Fault):
    """A small `Content-Encoding: gzip` body that becomes `size` zeros."""

    size: int = 64 * 2**20
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "video/mp4"})

    async def send(self, response: Response, wire: Wire) -> None:
        packer = zlib.compressobj(1, wbits=31)
        zeros = bytes(2**20)
        packed = b"".join(packer.compress(zeros) for _ in range(self.size >> 20)) + packer.flush()
        await wire.send(Response(200, {**self.headers, "content-encoding": "gzip"}, packed))
