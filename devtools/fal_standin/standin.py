"""The stand-in itself: its listeners, the proxy before them, and what tests do with it."""

import asyncio
import email.utils
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import trustme

from . import platform_api
from .clock import Clock
from .faults import Fault, Hang, Reset
from .jobs import Job, Outcome, Queue
from .media import Storage, Videos, file_response, new_path
from .platform_api import Platform
from .switches import Switches
from .wire import LIMIT, Exchange, Response, Wire, json_response, read_body, read_head, reset

QUEUE_HOSTS = ("queue.fal.run", "queue.falrun.com")
BLOCKING_HOSTS = ("fal.run", "falrun.com")
API_HOSTS = (*QUEUE_HOSTS, *BLOCKING_HOSTS, "rest.fal.ai", "api.fal.ai")
STAGES_OF = {
    "api": ("submit", "status", "stream", "result", "cancel", "pricing", "estimate", "listing", "storage"),
    "media": ("media", "upload"),
    "evil": ("evil",),
}
IP_NAMES = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "192.168.0.1", "169.254.169.254", "localhost")
UNAVAILABLE = json_response({"detail": "Service unavailable"}, 503)
EVIL_PAGE = Response(200, {"content-type": "text/html"}, b"<html><body>Nothing here is yours.</body></html>")
STATE = "state.json"
T = TypeVar("T")


@dataclass
class Planned:
    fault: Fault
    times: int
    after: int


class FalStandIn(Switches):
    """fal's queue, storage, CDN and platform API on loopback, for processes that have `environ`.

    with FalStandIn(tmp_path) as fal:
        fal.fault("submit", Reset(accept=True))
        run_client({**os.environ, **fal.environ})
        assert fal.accepted == 1 and not fal.violations

    A client goes through a CONNECT proxy and so keeps the real host names: `api` serves queue.fal.run, rest.fal.ai and
    api.fal.ai, `media` serves *.fal.media, and `evil` whatever else is asked for. With `direct_environ` fal-client goes
    to `api` without the proxy.
    """

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        self.folder = folder
        self.clock = clock or Clock()
        self.key = f"{uuid.uuid4()}:{token_hex(16)}"
        self.ports: dict[str, int] = {}
        """Of "proxy", "api", "media" and "evil"."""
        self._lock = threading.RLock()
        self._journal: list[Exchange] = []
        self._connects: list[str] = []
        self._violations: list[str] = []
        self._faults: dict[str, deque[Planned]] = {}
        self._storage = Storage(self, self.clock)
        self._videos = Videos(self, self._storage)
        self._queue = Queue(self, self.clock, self._videos, self._storage)
        self._platform = Platform(self, self._queue)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fal-standin", daemon=True)
        self._released = asyncio.Event()
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._authority = trustme.CA()
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    def __enter__(self) -> "FalStandIn":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._authority.cert_pem.write_to_path(str(self._ca_file))
        if (self.folder / STATE).exists():
            self._load()
        self._thread.start()
        self._run(self._open("proxy", "api", "media", "evil"))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close(*self._servers))
        self._run(self._wait_for_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._videos.close()
        self._save()

    @property
    def environ(self) -> dict[str, str]:
        """For a client that goes through the proxy. Plain http comes to the proxy too, which refuses it."""
        proxy = f"http://127.0.0.1:{self.ports['proxy']}"
        names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        return {**self._common_environ, **dict.fromkeys(names, proxy)}

    @property
    def direct_environ(self) -> dict[str, str]:
        """For fal-client without the proxy; it has no variables for uploads."""
        host = f"127.0.0.1:{self.ports['api']}"
        return {**self._common_environ, "FAL_QUEUE_RUN_HOST": host, "FAL_RUN_HOST": host}

    @property
    def _common_environ(self) -> dict[str, str]:
        loopback = "127.0.0.1,localhost"
        return {"SSL_CERT_FILE": str(self._ca_file), "FAL_KEY": self.key, "NO_PROXY": loopback, "no_proxy": loopback}

    @property
    def _ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def journal(self) -> list[Exchange]:
        """Every request so far, as it stands."""
        with self._lock:
            return [replace(exchange) for exchange in self._journal]

    def requests(self, stage: str) -> list[Exchange]:
        """Those of the journal of one stage."""
        return [exchange for exchange in self.journal if exchange.stage == stage]

    @property
    def connects(self) -> list[str]:
        """Every host:port that the proxy was asked for."""
        return list(self._connects)

    @property
    def violations(self) -> list[str]:
        """What no client may do: go astray, show the key elsewhere than to the API, call the blocking API.

        A failure of the stand-in itself is here too.
        """
        return list(self._violations)

    @property
    def jobs(self) -> dict[str, Job]:
        """The accepted jobs in order, by request id."""
        with self._lock:
            self._queue.settle()
            return dict(self._queue.jobs)

    @property
    def accepted(self) -> int:
        """What is paid for."""
        return len(self._queue.jobs)

    @property
    def prices(self) -> dict[str, float]:
        """USD per video by endpoint; a test may change it."""
        return self._platform.prices

    @property
    def uploads(self) -> dict[str, tuple[str, bytes]]:
        """Content type and content by path on the CDN."""
        return self._storage.files

    def fault(self, stage: str, fault: Fault, times: int = 1, after: int = 0) -> None:
        """The next `times` requests of `stage`, once `after` of them have passed, meet `fault`.

        Several for a stage follow one another. Stages: "connect" (the proxy's reply), "tls" (between it and the
        handshake; in these two a `Hang` only delays), "submit", "status", "stream", "result", "cancel", "media",
        "upload", "storage", "pricing", "estimate" and "listing".
        """
        if stage not in ("connect", "tls", *(known for stages in STAGES_OF.values() for known in stages)):
            raise ValueError(f"There is no stage {stage!r}.")
        with self._lock:
            self._faults.setdefault(stage, deque()).append(Planned(fault, times, after))

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        """Lets go on what hangs."""
        self._run(self._release())

    def fail_next(self, outcome: Outcome | Callable[[dict[str, Any]], Outcome], times: int = 1) -> None:
        """The next accepted jobs end so; a function gets their input."""
        with self._lock:
            self._queue.outcomes.extend([outcome] * times)

    def complete(self, request_id: str) -> None:
        with self._lock:
            job, now = self.jobs[request_id], self.clock.now()
            job.started = now if job.started is None else job.started
            job.ended = now if job.ended is None else job.ended

    def requeue(self, request_id: str) -> None:
        """As after a runner was lost: a running job is back in the queue."""
        with self._lock:
            job = self.jobs[request_id]
            job.started, job.ended, job.ready = None, None, self.clock.now() + self.queue_seconds

    def renew_media(self, request_id: str) -> None:
        """The job's video gets another URL; the old one is not found any more."""
        with self._lock:
            job = self.jobs[request_id]
            job.media_path = new_path(job.media_path.rpartition("_")[2])

    def close_port(self) -> None:
        """Connections to the proxy and to the API are refused from now on, and all that are there end."""
        self._run(self._close("proxy", "api"))

    def open_port(self) -> None:
        """On the same ports as before."""
        self._run(self._open("proxy", "api"))

    def restart(self, forget: bool = False) -> None:
        """All connections end, and the server is back on its ports with the jobs of its state file, or with none."""
        self._run(self._close(*self._servers))
        with self._lock:
            if forget:
                self._queue.jobs.clear()
            self._save()
            self._load()
        self._run(self._open("proxy", "api", "media", "evil"))

    def wait_for(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Raises `TimeoutError`, which says what the jobs are at and what was asked last."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("\n".join([f"It did not come within {seconds} s.", *self._happened()]))
            time.sleep(0.01)

    def _happened(self) -> list[str]:
        jobs = (f"seed {job.seed}: {job.state}{', cancelled' * job.cancelled}" for job in self.jobs.values())
        asked = (f"{each.method} {each.target}: {each.status}, {each.outcome}" for each in self.journal)
        return [*list(jobs)[-10:], *list(asked)[-20:]]

    def _save(self) -> None:
        (self.folder / STATE).write_text(self._queue.dump())

    def _load(self) -> None:
        self._queue.load((self.folder / STATE).read_text())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)

    async def _open(self, *names: str) -> None:
        for name in names:
            tls = None if name == "proxy" else self._context(None)
            server = await asyncio.start_server(
                self._handler(name), "127.0.0.1", self.ports.get(name, 0), ssl=tls, limit=LIMIT, backlog=256
            )
            self.ports[name] = server.sockets[0].getsockname()[1]
            self._servers[name] = server

    async def _close(self, *names: str) -> None:
        for name in names:
            self._servers[name].close()
        for writer in list(self._connections):
            reset(writer)
        await self._release()

    async def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _wait_for_tasks(self) -> None:
        """Their connections have ended, and so they do."""
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=300)

    def _context(self, name: str | None) -> ssl.SSLContext:
        """For a host name, or for those who name none."""
        if name not in self._contexts:
            certificate = self._authority.issue_cert(*((name,) if name else IP_NAMES))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            context.set_alpn_protocols(["http/1.1"])
            context.sni_callback = self._choose_certificate
            self._contexts[name] = context
        return self._contexts[name]

    def _choose_certificate(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._context(name)

    def _handler(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections.add(writer)
            try:
                if name == "proxy":
                    await self._tunnel(reader, writer)
                else:
                    await self._serve(name, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                pass  # The client left; the journal says so.
            finally:
                self._connections.discard(writer)
                writer.close()

        return handle

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await read_head(reader, "evil")
        if not asked:
            return
        if asked.method != "CONNECT":
            self._journal.append(asked)
            self._violations.append(f"plain http: {asked.method} {asked.target}")
            await Wire(asked, writer, self._released).send(Response(403))
            return
        self._connects.append(asked.target)
        if not await self._goes_on("connect", asked, writer):
            return
        origin = origin_of(asked.target)
        if origin == "evil":
            self._violations.append(f"CONNECT {asked.target}")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        if not await self._goes_on("tls", asked, writer):
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.ports[origin], limit=LIMIT)
        self._connections.add(inner_writer)
        try:
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        finally:
            self._connections.discard(inner_writer)

    async def _goes_on(self, stage: str, asked: Exchange, writer: asyncio.StreamWriter) -> bool:
        """Whether the making of a connection goes on: a `Hang` delays it, any other fault ends it."""
        fault = self._take(stage)
        if not fault:
            return True
        wire = Wire(asked, writer, self._released)
        if isinstance(fault, Hang):
            await wire.hang(fault.seconds)
            return True
        await fault.send(UNAVAILABLE, wire)
        return False

    async def _serve(self, origin: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault := self._take_unread(origin):
            unread = Exchange(origin, "", "", ())
            self._journal.append(unread)
            await fault.send(UNAVAILABLE, Wire(unread, writer, self._released))
            return
        while exchange := await read_head(reader, origin):
            wire = Wire(exchange, writer, self._released)
            await self._exchange(exchange, reader, wire)
            if wire.ended or exchange.headers.get("connection", "").lower() == "close":
                return

    async def _exchange(self, exchange: Exchange, reader: asyncio.StreamReader, wire: Wire) -> None:
        exchange.stage = self._stage(exchange)
        with self._lock:
            self._journal.append(exchange)
        try:
            fault = self._take(exchange.stage) or Fault(accept=True)
            await read_body(reader, exchange, half=isinstance(fault, Reset) and fault.half)
            self._watch(exchange)
            if exchange.stage == "status":
                self.clock.poll()
            await fault.send(self._dated(self._answer(exchange)) if fault.accept else UNAVAILABLE, wire)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            exchange.outcome = "abandoned"
            raise
        except Exception as error:
            self._violations.append(f"the stand-in itself failed: {error!r}")
            raise

    def _take(self, stage: str) -> Fault | None:
        with self._lock:
            planned = self._faults.get(stage)
            if not planned:
                return None
            first = planned[0]
            if first.after:
                first.after -= 1
                return None
            first.times -= 1
            if not first.times:
                planned.popleft()
            return first.fault

    def _take_unread(self, origin: str) -> Fault | None:
        """The fault that acts before a request is read, if one is due."""
        for stage in STAGES_OF[origin]:
            planned = self._faults.get(stage)
            if planned and isinstance(planned[0].fault, Reset) and not planned[0].fault.read_request:
                return self._take(stage)
        return None

    def _stage(self, exchange: Exchange) -> str:
        if exchange.origin == "evil":
            return "evil"
        if exchange.origin == "media":
            return "media" if exchange.method in ("GET", "HEAD") else "upload"
        if stage := platform_api.STAGES.get((exchange.method, exchange.path)):
            return stage
        return "storage" if exchange.path.startswith("/storage/") else self._queue.stage(exchange)

    def _watch(self, exchange: Exchange) -> None:
        where = f"{exchange.method} {exchange.host}{exchange.target}"
        seen = repr((exchange.target, exchange.raw_headers)).encode() + exchange.body
        if exchange.origin == "evil":
            self._violations.append(where)
        if exchange.origin != "api" and any(part.encode() in seen for part in self.key.split(":")):
            self._violations.append(f"the key in {where}")
        if exchange.stage == "media" and "authorization" in exchange.headers:
            self._violations.append(f"Authorization in {where}")
        if exchange.host in BLOCKING_HOSTS:
            self._violations.append(f"the blocking API: {where}")

    def _answer(self, exchange: Exchange) -> Response:
        if exchange.origin == "evil":
            return EVIL_PAGE
        with self._lock:
            if exchange.origin == "media":
                return self._media(exchange)
            if refused := self._refusal(exchange):
                return refused
            if exchange.host in BLOCKING_HOSTS:
                return json_response({"detail": "Not Found"}, 404)
            if exchange.path.startswith("/v1/"):
                return self._platform.answer(exchange)
            if exchange.stage == "storage":
                return self._storage.api(exchange)
            return self._queue.answer(exchange)

    def _dated(self, response: Response) -> Response:
        if not self.dates:
            return response
        date = email.utils.formatdate(time.time() + self.ahead_seconds, usegmt=True)
        return replace(response, headers={**response.headers, "date": date})

    def _refusal(self, exchange: Exchange) -> Response | None:
        """The 401 of a request without the key."""
        value = exchange.headers.get("authorization", "")
        if value == f"Key {self.key}":
            return None
        if not value:
            message = "Authentication is required to access this application"
        elif not value.startswith("Key ") or ":" not in value:
            message = "Invalid Authorization header: it must be 'Key <key id>:<key secret>'"
        else:
            message = "No user found for Key ID and Secret"
        if exchange.path.startswith("/v1/"):
            return platform_api.failure(401, "authorization_error", message)
        return json_response({"detail": message}, 401)

    def _media(self, exchange: Exchange) -> Response:
        if exchange.stage == "upload":
            return self._storage.cdn(exchange)
        if exchange.path in self._storage.files:
            return file_response(exchange, *self._storage.files[exchange.path], ranges=self.ranges)
        if job := self._queue.by_media_path(exchange.path):
            return file_response(exchange, *self._videos.content(job.input, job.seed), ranges=self.ranges)
        return json_response({"detail": "Not Found"}, 404)


def origin_of(target: str) -> str:
    """The listener for a CONNECT to host:port."""
    host, _, port = target.rpartition(":")
    host = host.lower().rstrip(".")
    if port != "443":
        return "evil"
    if host in API_HOSTS:
        return "api"
    return "media" if host == "fal.media" or host.endswith(".fal.media") else "evil"


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of a tunnel; a reset on one side is one on the other."""
    try:
        while data := await reader.read(2**18):
            writer.write(data)
            await writer.drain()
        writer.close()
    except ConnectionError:
        reset(writer)
