"""The queue: jobs, and the replies to submit, status, stream, result and cancel."""

import asyncio
import base64
import json
import math
import re
import secrets
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from .clock import Clock
from .inputs import ENDPOINTS, errors_in
from .media import Storage, Videos, address_in
from .switches import DAY, Switches
from .wire import Exchange, Response, json_response

STREAM_INTERVAL = 0.05
FEW_BYTES = 10_000
"""Of a result that is kept for an hour although payloads are not stored."""


@dataclass(frozen=True)
class Outcome:
    """How a run ends: the reply to the result request, and `error` and `error_type` in the status.

    `body` None: a video.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    error_type: str | None = None


VIDEO = Outcome()
FIELD_ERROR = Outcome(
    422,
    {
        "detail": [
            {
                "loc": ["body", "num_frames"],
                "msg": "Input should be less than or equal to 93",
                "type": "less_than_equal",
                "ctx": {"le": 93},
                "input": 200,
                "url": "https://docs.fal.ai/errors#less_than_equal",
            }
        ]
    },
    {"x-fal-billable-units": "0"},
    "Input should be less than or equal to 93",
    "less_than_equal",
)
TEXT_ERROR = Outcome(422, {"detail": "The prompt could not be used."}, error="The prompt could not be used.")
SERVER_ERROR = Outcome(
    500,
    {"detail": [{"loc": ["body"], "msg": "Internal server error", "type": "internal_server_error", "input": {}}]},
    {"x-fal-retryable": "true"},
    "Internal server error",
    "internal_server_error",
)
GENERATION_TIMEOUT = Outcome(
    504,
    {"detail": [{"loc": ["body"], "msg": "Generation timed out", "type": "generation_timeout", "input": {}}]},
    {"x-fal-retryable": "false"},
    "Generation timed out",
    "generation_timeout",
)
START_TIMEOUT = Outcome(
    504,
    {"detail": "Request timed out", "error_type": "request_timeout"},
    {"x-fal-request-timeout-type": "user", "x-fal-error-type": "request_timeout"},
    "Request timed out",
    "request_timeout",
)
CANCELLED = Outcome(
    499,
    {"detail": "Request was cancelled", "error_type": "client_cancelled"},
    {"x-fal-error-type": "client_cancelled"},
    "Request was cancelled",
    "client_cancelled",
)


def content_policy(body: dict[str, Any]) -> Outcome:
    """A refusal that says the prompt again."""
    message = "The content could not be processed because it contained material flagged by a content checker."
    item = {
        "loc": ["body", "prompt"],
        "msg": message,
        "type": "content_policy_violation",
        "url": "https://docs.fal.ai/errors#content_policy_violation",
        "input": body.get("prompt"),
    }
    return Outcome(422, {"detail": [item]}, {"x-fal-retryable": "false"}, message, "content_policy_violation")


def not_downloaded(body: dict[str, Any]) -> Outcome:
    """Of an input that has expired, or is nowhere. It says the address again."""
    name = "image_url" if "image_url" in body else "video_url"
    message = f"Failed to download the file {body[name]}. Please check if the URL is accessible and try again."
    item = {"loc": ["body", name], "msg": message, "type": "file_download_error", "input": body[name]}
    return Outcome(422, {"detail": [item]}, {"x-fal-billable-units": "0"}, message, "file_download_error")


def invalid(items: list[dict[str, Any]]) -> Outcome:
    first = items[0]
    return Outcome(422, {"detail": items}, {"x-fal-billable-units": "0"}, first["msg"], first["type"])


@dataclass
class Job:
    """An accepted request. `sent_at` is of the world's clock, the other times are of the stand-in's."""

    request_id: str
    endpoint: str
    input: dict[str, Any]
    headers: dict[str, str]
    webhook: str | None
    sent_at: float
    created: float
    ready: float
    run_seconds: float
    seed: int
    outcome: Outcome
    media_path: str
    started: float | None = None
    ended: float | None = None
    cancelled: bool = False

    @property
    def state(self) -> str:
        if self.ended is not None:
            return "COMPLETED"
        return "IN_QUEUE" if self.started is None else "IN_PROGRESS"

    @property
    def app(self) -> str:
        return "/".join(self.endpoint.split("/")[:2])

    @property
    def start_deadline(self) -> float:
        seconds = self.headers.get("x-fal-request-start-timeout") or self.headers.get("x-fal-request-timeout")
        return self.created + float(seconds) if seconds else math.inf

    @property
    def stored(self) -> bool:
        """Whether fal keeps the payloads."""
        return self.headers.get("x-fal-store-io") != "0"

    def logs(self, now: float) -> list[dict[str, Any]]:
        """One line a step, so far."""
        if self.started is None:
            return []
        steps = self.input.get("num_inference_steps", 35)
        steps = steps if isinstance(steps, int) else 35
        end = now if self.ended is None else self.ended
        done = min(steps, int((end - self.started) / max(self.run_seconds, 1e-9) * steps))
        per_step = self.run_seconds / steps if done else 0
        began = self.sent_at + self.started - self.created
        return [
            {
                "message": f"step {step}/{steps}",
                "level": "INFO",
                "source": "USER",
                "timestamp": timestamp(began + step * per_step),
            }
            for step in range(1, done + 1)
        ]


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


REQUEST = re.compile(
    r"/(?P<app>[^/]+/[^/]+)(?P<path>/.+?)??/requests/(?P<id>[^/]+)(?P<what>/status/stream|/status|/cancel|/response)?/?"
)
STAGES = {
    ("GET", "/status"): "status",
    ("GET", "/status/stream"): "stream",
    ("GET", None): "result",
    ("GET", "/response"): "result",
    ("PUT", "/cancel"): "cancel",
}
NOT_FOUND = json_response({"status": "NOT_FOUND"}, 404)


class Queue:
    """`outcomes`: of the next jobs, in order; the others make a video."""

    def __init__(self, switches: Switches, clock: Clock, videos: Videos, storage: Storage) -> None:
        self.jobs: dict[str, Job] = {}
        self.outcomes: deque[Outcome | Callable[[dict[str, Any]], Outcome]] = deque()
        self._switches = switches
        self._clock = clock
        self._videos = videos
        self._storage = storage
        self._moment = 0.0

    def stage(self, exchange: Exchange) -> str:
        if match := REQUEST.fullmatch(exchange.path):
            return STAGES.get((exchange.method, match["what"]), "")
        return "submit" if exchange.method == "POST" else ""

    def answer(self, exchange: Exchange) -> Response:
        self.settle()
        if exchange.stage == "submit":
            return self.submit(exchange)
        match = REQUEST.fullmatch(exchange.path)
        if not match or not exchange.stage:
            return json_response({"detail": "Not Found"}, 404)
        job = self.jobs.get(match["id"])
        known = job and job.app == match["app"] and match["path"] in (None, job.endpoint[len(job.app) :])
        if not job or not known or self.expired(job) or (job.cancelled and self._switches.cancelled == "vanishes"):
            return NOT_FOUND
        if exchange.stage == "status":
            body = self.status(job, exchange.host, logs_wanted(exchange))
            return json_response(body, 200 if job.state == "COMPLETED" else 202, request_id_header(job))
        if exchange.stage == "stream":
            events = self.events(job, exchange.host, logs_wanted(exchange))
            return Response(200, {"content-type": "text/event-stream", **request_id_header(job)}, events)
        return self.result(job) if exchange.stage == "result" else self.cancel(job)

    def submit(self, exchange: Exchange) -> Response:
        endpoint = exchange.path.strip("/")
        if endpoint not in ENDPOINTS:
            return json_response({"detail": f"Application '{endpoint}' not found"}, 404)
        if self._switches.locked:
            message = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
            return json_response({"detail": message}, 403)
        try:
            body = exchange.json()
        except ValueError as error:
            item = {"type": "json_invalid", "loc": ["body", 0], "msg": "JSON decode error", "input": {}}
            return refusal(invalid([{**item, "ctx": {"error": str(error)}}]))
        problems = errors_in(endpoint, body)
        if problems and (self._switches.validate_at == "submit" or not isinstance(body, dict)):
            return refusal(invalid(problems))
        if (longest := exchange.argument("fal_max_queue_length")) and self.length() > int(longest):
            return json_response({"detail": "The queue is longer than fal_max_queue_length"}, 429)
        job = self.accept(endpoint, body, exchange, invalid(problems) if problems else None)
        reply = {"status": "IN_QUEUE", "request_id": job.request_id, "queue_position": self.position(job)}
        return json_response({**reply, **urls(job, exchange.host)}, 200, request_id_header(job))

    def accept(self, endpoint: str, body: dict[str, Any], exchange: Exchange, refused: Outcome | None) -> Job:
        if not refused and address_in(body) and self._storage.fetch(address_in(body)) is None:
            refused = not_downloaded(body)
        chosen = refused or (self.outcomes.popleft() if self.outcomes else VIDEO)
        outcome = chosen if isinstance(chosen, Outcome) else chosen(body)
        now = self._clock.now()
        seed = body.get("seed")
        job = Job(
            request_id=str(uuid.uuid4()),
            endpoint=endpoint,
            input=body,
            headers=exchange.headers,
            webhook=exchange.argument("fal_webhook") or None,
            sent_at=round(time.time() + self._switches.ahead_seconds, 6),
            created=now,
            ready=now + self._switches.queue_seconds,
            run_seconds=0 if refused else self._switches.run_seconds,
            seed=secrets.randbelow(2**31) if seed is None or refused else int(seed),
            outcome=outcome,
            media_path="",
        )
        job.headers.pop("authorization", None)
        if outcome == VIDEO:
            job.media_path = self._videos.new_path(job.input)
            self._videos.prepare(job.input, job.seed)
        self.jobs[job.request_id] = job
        self.settle()
        return job

    def settle(self) -> None:
        """Lets happen, in order, what was to happen up to now."""
        now = self._clock.now()
        while (event := self.next_event()) and event[0] <= now:
            moment, job, what = event
            self._moment = max(self._moment, moment)
            if what == "start":
                job.started = moment
            elif what == "end":
                job.ended = moment
            else:
                job.started, job.ended, job.outcome = None, moment, START_TIMEOUT

    def next_event(self) -> tuple[float, Job, str] | None:
        queued = self.queued()
        running = [job for job in self.jobs.values() if job.state == "IN_PROGRESS"]
        events = [((job.started or 0.0) + job.run_seconds, job, "end") for job in running]
        events += [(job.start_deadline, job, "give up") for job in queued]
        if len(running) < self._switches.concurrency:
            events += [(max(job.ready, self._moment), job, "start") for job in queued]
        return min(events, key=lambda event: event[0], default=None)

    def queued(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.state == "IN_QUEUE"]

    def position(self, job: Job) -> int:
        """How many are ahead. One of another caller leaves each second until the job is ready."""
        queued = self.queued()
        return requests_in(job.ready - self._clock.now()) + (queued.index(job) if job in queued else 0)

    def length(self) -> int:
        return len(self.queued()) + requests_in(self._switches.queue_seconds)

    def status(self, job: Job, host: str, with_logs: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"status": job.state, "request_id": job.request_id, **urls(job, host)}
        if job.state == "IN_QUEUE":
            return {**body, "queue_position": self.position(job)}
        body["logs"] = job.logs(self._clock.now()) if with_logs else None
        if job.ended is not None and self._switches.metrics:
            body["metrics"] = {"inference_time": job.ended - job.started if job.started is not None else None}
        if job.state == "COMPLETED":
            errors = {"error": job.outcome.error, "error_type": job.outcome.error_type}
            body.update({name: value for name, value in errors.items() if value is not None})
        return body

    async def events(self, job: Job, host: str, with_logs: bool) -> AsyncIterator[bytes]:
        """The status stream. Its look each `STREAM_INTERVAL` counts as a poll."""
        last: dict[str, Any] = {}
        told, shown, shown_at = 0, "", self._clock.now()
        while last.get("status") != "COMPLETED":
            self._clock.poll()
            self.settle()
            last = self.status(job, host, with_logs)
            if last.get("logs"):
                told, last["logs"] = len(last["logs"]), last["logs"][told:]
            now = self._clock.now()
            if last.get("logs") or (last["status"], last.get("queue_position")) != shown:
                shown, shown_at = (last["status"], last.get("queue_position")), now
                yield f"data: {json.dumps(last)}\n\n".encode()
            elif now - shown_at >= self._switches.keep_alive_seconds:
                shown_at = now
                yield b": keep-alive\n\n"
            await asyncio.sleep(STREAM_INTERVAL)

    def result(self, job: Job) -> Response:
        if job.state != "COMPLETED":
            return json_response({"detail": "Request is still in progress"}, 400, request_id_header(job))
        headers = {"x-fal-billable-units": "1" if job.outcome == VIDEO else "0"}
        headers.update(request_id_header(job), **job.outcome.headers)
        return json_response(self.output(job), job.outcome.status, headers)

    def output(self, job: Job) -> Any:
        if job.outcome != VIDEO:
            return job.outcome.body
        url = f"https://{self._switches.media_host}{job.media_path}"
        if job.input.get("sync_mode"):
            kind, content = self._videos.content(job.input, job.seed)
            url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        if self._switches.bare_result:
            return {"video": {"url": url}}
        return {"video": {"url": url, **self._videos.facts(job.input, job.seed)}, "seed": job.seed}

    def cancel(self, job: Job) -> Response:
        if job.state == "COMPLETED":
            return json_response({"status": "ALREADY_COMPLETED"}, 400)
        waiting = job.state == "IN_QUEUE"
        job.cancelled = True
        if waiting or self._switches.cancelled != "completes":
            job.ended, job.outcome = self._clock.now(), CANCELLED
        if waiting:
            return json_response({"status": "OK"}, 200, request_id_header(job))
        return json_response({"status": "CANCELLATION_REQUESTED"}, 202, request_id_header(job))

    def expired(self, job: Job) -> bool:
        if job.ended is None:
            return False
        kept = self._switches.storage_days * DAY
        if not job.stored or job.input.get("sync_mode"):
            kept = 3600 if len(json.dumps(self.output(job))) < FEW_BYTES else 360
        return self._clock.now() - job.ended > kept

    def by_media_path(self, path: str) -> Job | None:
        return next((job for job in self.jobs.values() if job.media_path == path), None)

    def dump(self) -> str:
        jobs = [asdict(job) for job in self.jobs.values()]
        return json.dumps({"now": self._clock.now(), "moment": self._moment, "jobs": jobs})

    def load(self, text: str) -> None:
        state = json.loads(text)
        self._clock.go_on(state["now"])
        self._moment = state["moment"]
        jobs = [Job(**{**saved, "outcome": Outcome(**saved["outcome"])}) for saved in state["jobs"]]
        self.jobs = {job.request_id: job for job in jobs}


def requests_in(seconds: float) -> int:
    """Of other callers, in a queue that takes so long."""
    return math.ceil(min(max(0.0, seconds), 9999))


def logs_wanted(exchange: Exchange) -> bool:
    return exchange.argument("logs").lower() in ("1", "true")


def request_id_header(job: Job) -> dict[str, str]:
    return {"x-fal-request-id": job.request_id}


def refusal(outcome: Outcome) -> Response:
    return json_response(outcome.body, outcome.status, outcome.headers)


def urls(job: Job, host: str) -> dict[str, str]:
    base = f"https://{host}/{job.app}/requests/{job.request_id}"
    return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
