"""The stand-in of fal's queue: first what the official fal-client sees of it, then what httpx sees."""

import base64
import errno
import io
import json
import math
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from cosmos_predict25.devtools import fal_standin
from cosmos_predict25.devtools.fal_standin import (
    FIELD_ERROR,
    GENERATION_TIMEOUT,
    SERVER_ERROR,
    TEXT_ERROR,
    BigHeaders,
    Body,
    Chop,
    Clock,
    Drip,
    EndlessBody,
    FalStandIn,
    Fault,
    GzipBomb,
    Hang,
    Json,
    NoLength,
    Outcome,
    Redirect,
    Relabel,
    Reply,
    Reset,
    Stall,
    Truncate,
    content_policy,
    ingress,
    run_official,
    with_fields,
    without_fields,
)

QUEUE = "https://queue.fal.run"
ENDPOINT = "fal-ai/cosmos-predict-2.5/text-to-video"
APP = "fal-ai/cosmos-predict-2.5"
DISTILLED = "fal-ai/cosmos-predict-2.5/distilled/text-to-video"
PRICING = "https://api.fal.ai/v1/models/pricing"
LISTING = "https://api.fal.ai/v1/models/requests/by-endpoint"
INPUT = {"prompt": "A red cube on a conveyor belt.", "num_frames": 9, "seed": 7}
SUBMIT = ["submit", [ENDPOINT, INPUT]]
NOBODY = "00000000-0000-4000-8000-000000000000"
OVER_100_MIB = 101 * 2**20


@pytest.fixture
def fal(tmp_path: Path) -> Iterator[FalStandIn]:
    with FalStandIn(tmp_path) as fal:
        yield fal
        assert not [violation for violation in fal.violations if "itself" in violation]


def paths(fal: FalStandIn) -> list[tuple[str, str]]:
    """Method and target of each request, with ID for the id of the only job."""
    (request_id,) = fal.jobs
    return [(exchange.method, exchange.target.replace(request_id, "ID")) for exchange in fal.journal]


both_clients = pytest.mark.parametrize("client", ["sync", pytest.param("async", marks=pytest.mark.exhaustive)])


@pytest.mark.parametrize("client", ["sync", "async"])
@pytest.mark.parametrize("way", ["proxy", "direct"])
def test_happy_path(fal: FalStandIn, way: str, client: str) -> None:
    environ = fal.environ if way == "proxy" else fal.direct_environ
    submitted, events, result = run_official(
        environ, SUBMIT, ["handle.iter_events", [], {"with_logs": True}], ["handle.get"], client=client
    )

    (job,) = fal.jobs.values()
    host = "queue.fal.run" if way == "proxy" else f"127.0.0.1:{fal.ports['api']}"
    base = f"https://{host}/{APP}/requests/{job.request_id}"
    assert submitted["value"] == {
        "request_id": job.request_id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }
    states = [event["status"] for event in events["value"]]
    assert states == ["Queued", *["InProgress"] * 5, "Completed"]
    assert [len(event["logs"]) for event in events["value"][1:]] == [0, 7, 14, 21, 28, 35]
    assert events["value"][-1]["metrics"] == {"inference_time": 5.0}
    assert result["value"]["seed"] == 7
    assert result["value"]["video"]["url"] == f"https://v3b.fal.media{job.media_path}"
    assert job.input == INPUT
    assert paths(fal) == [
        ("POST", f"/{ENDPOINT}"),
        *[("GET", f"/{APP}/requests/ID/status?logs=true")] * 7,
        ("GET", f"/{APP}/requests/ID/status?logs=false"),
        ("GET", f"/{APP}/requests/ID"),
    ]
    assert {exchange.outcome for exchange in fal.journal} == {"replied"}
    assert set(fal.connects) == ({"queue.fal.run:443"} if way == "proxy" else set())
    assert fal.violations == []


@both_clients
def test_options_of_submit(fal: FalStandIn, client: str) -> None:
    options = {"webhook_url": "https://example.com/done?a=1", "hint": "abc", "priority": "low", "start_timeout": 30}
    run_official(fal.environ, ["submit", [ENDPOINT, INPUT], options], client=client)

    (submit,) = fal.requests("submit")
    assert submit.target == f"/{ENDPOINT}?fal_webhook=https%3A%2F%2Fexample.com%2Fdone%3Fa%3D1"
    assert submit.headers["x-fal-runner-hint"] == "abc"
    assert submit.headers["x-fal-queue-priority"] == "low"
    assert submit.headers["x-fal-request-timeout"] == "30.0"
    assert submit.headers["user-agent"] == "fal-client/1.0.3 (python)"
    assert submit.json() == INPUT
    assert next(iter(fal.jobs.values())).webhook == "https://example.com/done?a=1"


@both_clients
def test_the_three_states(fal: FalStandIn, client: str) -> None:
    fal.clock.per_poll, fal.queue_seconds, fal.run_seconds = 3, 5, 5
    fal.fail_next(SERVER_ERROR)
    plain, with_logs = ["handle.status"], ["handle.status", [], {"with_logs": True}]
    _, queued, running, also_running, completed = run_official(
        fal.environ, SUBMIT, plain, plain, with_logs, with_logs, client=client
    )

    assert queued["value"] == {"status": "Queued", "position": 2}
    assert running["value"] == {"status": "InProgress", "logs": None}
    assert [len(state["value"]["logs"]) for state in (also_running, completed)] == [28, 35]
    assert completed["value"]["logs"][0].keys() == {"message", "level", "source", "timestamp"}
    assert completed["value"]["metrics"] == {"inference_time": 5.0}
    assert completed["value"]["error"] == "Internal server error"
    assert completed["value"]["error_type"] == "internal_server_error"
    assert [exchange.status for exchange in fal.requests("status")] == [202, 202, 202, 200]


@both_clients
def test_status_and_result_by_id(fal: FalStandIn, client: str) -> None:
    fal.clock.per_poll = 10
    steps = [["status", [ENDPOINT, "$id"]], ["result", [ENDPOINT, "$id"]]]
    _, status, result = run_official(fal.environ, SUBMIT, *steps, client=client)
    assert status["value"]["status"] == "Completed"
    assert result["value"]["video"]["num_frames"] == 9


@both_clients
def test_result_before_the_end(fal: FalStandIn, client: str) -> None:
    fal.fault("status", with_fields(status="COMPLETED", logs=None))
    _, result = run_official(fal.environ, SUBMIT, ["handle.get"], client=client)
    assert (result["status"], result["message"]) == (400, "Request is still in progress")


@both_clients
def test_failed_job(fal: FalStandIn, client: str) -> None:
    fal.fail_next(content_policy)
    fal.clock.per_poll = 10
    _, status, result = run_official(fal.environ, SUBMIT, ["handle.status"], ["handle.get"], client=client)
    assert status["value"]["error_type"] == "content_policy_violation"
    assert result["status"] == 422
    assert INPUT["prompt"] in result["message"]
    assert "'loc': ['body', 'prompt']" in result["message"]


@both_clients
def test_cancel(fal: FalStandIn, client: str) -> None:
    fal.clock.per_poll = 10
    steps = [["cancel", [ENDPOINT, "$id"]], ["handle.cancel"], ["handle.status"], ["cancel", [ENDPOINT, NOBODY]]]
    _, cancelled, again, status, unknown = run_official(fal.environ, SUBMIT, *steps, client=client)
    assert cancelled == {"value": None}
    assert again["status"] == 400
    assert "ALREADY_COMPLETED" in again["message"]
    assert status["value"]["error_type"] == "client_cancelled"
    assert unknown["status"] == 404
    assert "NOT_FOUND" in unknown["message"]
    assert next(iter(fal.jobs.values())).cancelled


@both_clients
def test_wrong_key(fal: FalStandIn, client: str) -> None:
    (refused,) = run_official({**fal.environ, "FAL_KEY": "somebody:else"}, SUBMIT, client=client)
    assert (refused["status"], refused["message"]) == (401, "No user found for Key ID and Secret")
    assert fal.accepted == 0


@both_clients
def test_too_many_requests_are_repeated(fal: FalStandIn, client: str) -> None:
    fal.fault("submit", Reply(429, {"retry-after": "1"}, {"detail": "concurrent_requests_limit"}), times=2)
    (submitted,) = run_official(fal.environ, SUBMIT, client=client)
    assert "value" in submitted
    assert [exchange.status for exchange in fal.requests("submit")] == [429, 429, 200]
    assert fal.accepted == 1


@both_clients
def test_only_an_ingress_503_is_repeated(fal: FalStandIn, client: str) -> None:
    fal.fault("submit", Reply(503, body={"detail": "runner gone"}))
    fal.fault("submit", ingress(503))
    refused, submitted = run_official(fal.environ, SUBMIT, SUBMIT, client=client)
    assert (refused["status"], refused["message"]) == (503, "runner gone")
    assert "value" in submitted
    assert [exchange.status for exchange in fal.requests("submit")] == [503, 503, 200]


@both_clients
@pytest.mark.parametrize("rst", [True, False])
def test_reset_after_acceptance_makes_two_jobs(fal: FalStandIn, client: str, rst: bool) -> None:
    fal.fault("submit", Reset(accept=True, rst=rst))
    run_official(fal.environ, SUBMIT, client=client)
    assert [exchange.outcome for exchange in fal.requests("submit")] == ["reset" if rst else "closed", "replied"]
    assert fal.accepted == 2


@both_clients
def test_without_a_connection_the_backup_domain_is_tried(fal: FalStandIn, client: str) -> None:
    fal.fault("tls", Reset())
    (submitted,) = run_official(fal.environ, SUBMIT, client=client)
    assert submitted["value"]["status_url"].startswith("https://queue.falrun.com/")
    assert fal.connects == ["queue.fal.run:443", "queue.falrun.com:443"]
    assert (fal.accepted, fal.violations) == (1, [])


@pytest.mark.parametrize(("client", "posts", "error"), [("sync", 21, "TooManyRedirects"), ("async", 1, None)])
def test_redirect_to_itself(fal: FalStandIn, client: str, posts: int, error: str | None) -> None:
    fal.fault("submit", Redirect(307, "https://{host}{target}"), times=fal_standin.FOREVER)
    (refused,) = run_official(fal.environ, SUBMIT, client=client)
    assert refused["error"] == error or refused["status"] == 307
    assert len(fal.requests("submit")) == posts
    assert fal.accepted == 0


@pytest.mark.slow
@both_clients
def test_client_timeout_cancels(fal: FalStandIn, client: str) -> None:
    fal.queue_seconds, fal.run_seconds = 0, math.inf
    (refused,) = run_official(fal.environ, ["subscribe", [ENDPOINT, INPUT], {"client_timeout": 3}], client=client)
    assert refused["error"] == "FalClientTimeoutError"
    (cancel,) = fal.requests("cancel")
    assert (cancel.method, cancel.status) == ("PUT", 202)


@both_clients
def test_subscribe_tells_of_each_state(fal: FalStandIn, client: str) -> None:
    (done,) = run_official(fal.environ, ["subscribe", [DISTILLED, INPUT], {"updates": True}], client=client)
    updates, result = done["value"]
    assert [update["status"] for update in updates] == ["Queued", *["InProgress"] * 5, "Completed"]
    assert result["video"]["content_type"] == "video/mp4"


@pytest.mark.slow
@both_clients
def test_uploads(fal: FalStandIn, client: str) -> None:
    kind = "application/octet-stream"
    small, large = run_official(
        fal.environ, ["upload", [{"bytes": 5}, kind]], ["upload", [{"bytes": OVER_100_MIB}, kind]], client=client
    )
    sizes = {f"https://v3.fal.media{path}": len(content) for path, (_, content) in fal.uploads.items()}
    assert sizes == {small["value"]: 5, large["value"]: OVER_100_MIB}
    uploads = fal.requests("upload")
    assert [exchange.method for exchange in uploads].count("PUT") == 11
    assert sum(exchange.path.endswith("/complete") for exchange in uploads) == 1
    assert fal.violations == []


def test_the_fallback_of_uploads_shows_the_key(fal: FalStandIn) -> None:
    fal.strict_uploads = False
    (uploaded,) = run_official(fal.environ, ["upload", [{"bytes": 5}, "image/png"], {"repository": "fal"}])
    assert uploaded["value"].removeprefix("https://v3.fal.media") in fal.uploads
    assert any(violation.startswith("the key in PUT v3.fal.media") for violation in fal.violations)


@pytest.fixture
def http(fal: FalStandIn) -> Iterator[httpx.Client]:
    """With the key, as long as a test does not take it out."""
    tls = ssl.create_default_context(cafile=fal.environ["SSL_CERT_FILE"])
    with httpx.Client(
        proxy=fal.environ["HTTPS_PROXY"],
        verify=tls,
        trust_env=False,
        timeout=300,
        headers={"authorization": f"Key {fal.key}"},
    ) as http:
        yield http


def submit(http: httpx.Client, endpoint: str = ENDPOINT, headers: dict[str, str] | None = None, **fields: Any) -> str:
    """The status URL of a new job."""
    reply = http.post(f"{QUEUE}/{endpoint}", json={**INPUT, **fields}, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()["status_url"]


def result_of(status_url: str) -> str:
    return status_url.removesuffix("/status")


def finished(fal: FalStandIn, http: httpx.Client, **fields: Any) -> dict[str, Any]:
    """The result of a new job."""
    url = submit(http, **fields)
    fal.clock.advance(100)
    return http.get(result_of(url)).json()


INVALID = [
    (ENDPOINT, {"num_frames": 8}, "greater_than_equal", {"ge": 9}),
    (ENDPOINT, {"num_frames": 94}, "less_than_equal", {"le": 93}),
    (ENDPOINT, {"num_inference_steps": 51}, "less_than_equal", {"le": 50}),
    (DISTILLED, {"num_inference_steps": 21}, "less_than_equal", {"le": 20}),
    (ENDPOINT, {"guidance_scale": 0.5}, "greater_than_equal", {"ge": 1.0}),
    (ENDPOINT, {"prompt": None}, "string_type", None),
    (ENDPOINT, {"seed": "x"}, "int_parsing", None),
    (ENDPOINT, {"video_quality": "best"}, "literal_error", {"expected": "'low', 'medium', 'high' or 'maximum'"}),
]


@pytest.mark.parametrize(("endpoint", "wrong", "kind", "context"), INVALID)
def test_validation_at_submit(
    fal: FalStandIn, http: httpx.Client, endpoint: str, wrong: dict[str, Any], kind: str, context: Any
) -> None:
    fal.validate_at = "submit"
    reply = http.post(f"{QUEUE}/{endpoint}", json={**INPUT, **wrong})
    assert reply.status_code == 422
    (item,) = reply.json()["detail"]
    ((name, value),) = wrong.items()
    assert (item["loc"], item["type"], item.get("ctx"), item["input"]) == (["body", name], kind, context, value)
    assert {"msg", "url"} <= item.keys()
    assert reply.headers["x-fal-billable-units"] == "0"
    assert fal.accepted == 0


def test_validation_at_the_result(fal: FalStandIn, http: httpx.Client) -> None:
    url = submit(http, num_frames=8)
    fal.clock.advance(100)
    assert http.get(url).json()["error_type"] == "greater_than_equal"
    reply = http.get(result_of(url))
    assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["body", "num_frames"])
    assert fal.accepted == 1


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff"])
def test_a_body_that_is_no_object_is_never_accepted(fal: FalStandIn, http: httpx.Client, body: bytes) -> None:
    assert http.post(f"{QUEUE}/{ENDPOINT}", content=body).status_code == 422
    assert fal.accepted == 0


def test_long_and_foreign_prompts_come_through(fal: FalStandIn, http: httpx.Client) -> None:
    prompt = "\u5ca9 \U0001f4a7 é" * 100_000
    submit(http, prompt=prompt)
    content = json.dumps({"prompt": "in chunks \ud800"}).encode()
    assert http.post(f"{QUEUE}/{ENDPOINT}", content=iter([content[:9], content[9:]])).status_code == 200
    assert [job.input["prompt"] for job in fal.jobs.values()] == [prompt, "in chunks \ud800"]


def test_half_a_request_is_not_accepted(fal: FalStandIn) -> None:
    tls = ssl.create_default_context(cafile=fal.environ["SSL_CERT_FILE"])
    with (
        socket.create_connection(("127.0.0.1", fal.ports["api"])) as raw,
        tls.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(f'POST /{ENDPOINT} HTTP/1.1\r\nContent-Length: 99\r\n\r\n{{"prompt":'.encode())
        fal.wait_for(lambda: fal.journal)
    fal.wait_for(lambda: fal.journal[0].outcome == "abandoned")
    assert fal.journal[0].body == b'{"prompt":'
    assert fal.accepted == 0


def test_refusals_at_submit(fal: FalStandIn, http: httpx.Client) -> None:
    assert http.post(f"{QUEUE}/fal-ai/unknown", json=INPUT).status_code == 404
    assert http.post(f"{QUEUE}/{ENDPOINT}?fal_max_queue_length=1", json=INPUT).status_code == 429
    for value in ("", "Key", "Bearer abc", "Key abc", "Key a:b", f"key {fal.key}"):
        reply = http.post(f"{QUEUE}/{ENDPOINT}", json=INPUT, headers={"authorization": value})
        assert (reply.status_code, type(reply.json()["detail"])) == (401, str)
    url = submit(http)
    fal.locked = True
    reply = http.post(f"{QUEUE}/{ENDPOINT}", json=INPUT)
    assert (reply.status_code, "locked" in reply.json()["detail"]) == (403, True)
    assert http.get(url).status_code == 202
    assert fal.accepted == 1


@pytest.mark.parametrize("query", ["?logs=1", "?logs=true", "?logs=0", "?logs=false", ""])
@pytest.mark.parametrize(
    "form", ["{app}/requests/{id}/status", "{app}/requests/{id}/status/", "{endpoint}/requests/{id}/status"]
)
def test_forms_of_a_status_request(fal: FalStandIn, http: httpx.Client, form: str, query: str) -> None:
    submit(http)
    (request_id,) = fal.jobs
    fal.queue_seconds = 0
    fal.clock.advance(5)
    reply = http.get(f"{QUEUE}/{form.format(app=APP, endpoint=ENDPOINT, id=request_id)}{query}")
    assert (reply.status_code, reply.json()["status"]) == (202, "IN_PROGRESS")
    assert isinstance(reply.json()["logs"], list if query in ("?logs=1", "?logs=true") else type(None))


def test_the_queue_goes_on_as_runners_get_free(fal: FalStandIn, http: httpx.Client) -> None:
    fal.clock.per_poll, fal.queue_seconds, fal.run_seconds, fal.concurrency = 0, 3, 10, 2
    urls = [submit(http) for _ in range(4)]

    def states() -> list[tuple[str, int | None]]:
        replies = [http.get(url).json() for url in urls]
        return [(reply["status"], reply.get("queue_position")) for reply in replies]

    assert states() == [("IN_QUEUE", position) for position in (3, 4, 5, 6)]
    fal.clock.advance(2)
    assert states() == [("IN_QUEUE", position) for position in (1, 2, 3, 4)]
    fal.clock.advance(1)
    assert states() == [("IN_PROGRESS", None)] * 2 + [("IN_QUEUE", 0), ("IN_QUEUE", 1)]
    fal.clock.advance(30)
    assert states() == [("COMPLETED", None)] * 4
    assert [job.ended - job.created for job in fal.jobs.values()] == pytest.approx([13, 13, 23, 23])


def test_a_lost_runner_and_a_job_that_a_test_completes(fal: FalStandIn, http: httpx.Client) -> None:
    fal.run_seconds, fal.queue_seconds = math.inf, 1
    url = submit(http)
    (request_id,) = fal.jobs
    fal.clock.advance(10)
    states = [http.get(url).json()["status"]]
    fal.requeue(request_id)
    states += [http.get(url).json()["status"] for _ in range(2)]
    fal.complete(request_id)
    states.append(http.get(url).json()["status"])
    assert states == ["IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]


@pytest.mark.parametrize(
    ("outcome", "code"), [(FIELD_ERROR, 422), (TEXT_ERROR, 422), (SERVER_ERROR, 500), (GENERATION_TIMEOUT, 504)]
)
def test_failures(fal: FalStandIn, http: httpx.Client, outcome: Outcome, code: int) -> None:
    fal.fail_next(outcome)
    url = submit(http)
    fal.clock.advance(100)
    status, reply = http.get(url), http.get(result_of(url))
    assert (status.status_code, status.json()["status"], status.json()["error"]) == (200, "COMPLETED", outcome.error)
    assert (reply.status_code, reply.json()) == (code, outcome.body)
    assert outcome.headers.items() <= reply.headers.items()
    assert finished(fal, http)["seed"] == 7


def test_a_failure_that_the_status_does_not_tell(fal: FalStandIn, http: httpx.Client) -> None:
    fal.metrics = False
    fal.fail_next(replace(FIELD_ERROR, error=None, error_type=None))
    url = submit(http)
    fal.clock.advance(100)
    assert not {"error", "error_type", "metrics"} & http.get(url).json().keys()
    assert http.get(result_of(url)).status_code == 422


@pytest.mark.parametrize(
    ("cancelled", "status", "result"), [("ends", 200, 499), ("vanishes", 404, 404), ("completes", 200, 200)]
)
def test_what_a_cancelled_job_becomes(
    fal: FalStandIn, http: httpx.Client, cancelled: Any, status: int, result: int
) -> None:
    fal.cancelled = cancelled
    url = submit(http)
    fal.clock.advance(4)
    reply = http.put(f"{result_of(url)}/cancel")
    assert (reply.status_code, reply.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    fal.clock.advance(100)
    assert (http.get(url).status_code, http.get(result_of(url)).status_code) == (status, result)


def test_cancel_in_the_queue(fal: FalStandIn, http: httpx.Client) -> None:
    url = submit(http)
    reply = http.put(f"{result_of(url)}/cancel")
    assert (reply.status_code, reply.json()) == (200, {"status": "OK"})
    assert http.get(url).json()["error_type"] == "client_cancelled"


@pytest.mark.parametrize("header", ["x-fal-request-timeout", "x-fal-request-start-timeout"])
def test_start_timeout(fal: FalStandIn, http: httpx.Client, header: str) -> None:
    fal.queue_seconds = 60
    url = submit(http, headers={header: "30"})
    fal.clock.advance(40)
    assert http.get(url).json()["error_type"] == "request_timeout"
    reply = http.get(result_of(url))
    assert (reply.status_code, reply.headers["x-fal-request-timeout-type"]) == (504, "user")


def test_status_stream(fal: FalStandIn, http: httpx.Client) -> None:
    fal.clock.per_poll, fal.queue_seconds, fal.run_seconds, fal.keep_alive_seconds = 5, 20, 10, 5
    url = submit(http)
    lines = [line for line in http.get(f"{url}/stream?logs=1").text.split("\n") if line]
    fal.concurrency = 0
    assert lines[0].startswith("data: ")
    statuses = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [status["status"] for status in statuses] == ["IN_QUEUE"] * 3 + ["IN_PROGRESS"] * 2 + ["COMPLETED"]
    messages = [log["message"] for status in statuses[3:] for log in status["logs"]]
    assert messages == [f"step {step}/35" for step in range(1, 36)]


def test_status_stream_is_kept_alive(fal: FalStandIn, http: httpx.Client) -> None:
    fal.clock.per_poll, fal.queue_seconds, fal.run_seconds = 10, 0, 100
    lines = http.get(f"{submit(http)}/stream").text.split("\n\n")
    assert [line[:7] for line in lines if line] == ["data: {", *[": keep-"] * 4, "data: {"]


STREAM_FAULTS = [
    (Truncate(10), httpx.RemoteProtocolError),
    (Stall(10), httpx.ReadTimeout),
    (Reset(), httpx.TransportError),
    (Reply(200, {"content-type": "text/event-stream"}, b"data: {]\n\n"), None),
    (Chop(1), None),
]


@pytest.mark.parametrize(("fault", "error"), STREAM_FAULTS, ids=lambda value: str(value)[:30])
def test_faults_of_the_stream(fal: FalStandIn, http: httpx.Client, fault: Fault, error: type[Exception] | None) -> None:
    url = submit(http)
    http.timeout = httpx.Timeout(60, read=0.5 if isinstance(fault, Stall) else 60)
    fal.fault("stream", fault)
    with pytest.raises(error) if error else nullcontext():
        http.get(f"{url}/stream")
    outcome = {Reset: "reset", Truncate: "closed", Stall: "open"}.get(type(fault), "replied")
    fal.wait_for(lambda: [exchange.outcome for exchange in fal.requests("stream")] == [outcome])


FORMATS = [
    ("X264 (.mp4)", "video/mp4", b"ftyp", "h264"),
    ("VP9 (.webm)", "video/webm", b"\x1aE\xdf\xa3", "vp9"),
    ("PRORES4444 (.mov)", "video/quicktime", b"ftyp", "prores"),
    ("GIF (.gif)", "image/gif", b"GIF8", "gif"),
]


@pytest.mark.parametrize(("name", "kind", "magic", "codec"), FORMATS)
@pytest.mark.parametrize("num_frames", [9, 12])
def test_videos(
    fal: FalStandIn, http: httpx.Client, name: str, kind: str, magic: bytes, codec: str, num_frames: int
) -> None:
    video = finished(fal, http, video_output_type=name, num_frames=num_frames)["video"]
    del http.headers["authorization"]
    reply = http.get(video["url"])
    assert reply.headers["content-type"] == video["content_type"] == kind
    assert int(reply.headers["content-length"]) == len(reply.content) == video["file_size"]
    assert magic in reply.content[:8]
    with av.open(io.BytesIO(reply.content)) as container:
        assert container.streams.video[0].codec_context.name == codec
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == video["num_frames"] == num_frames
    assert frames[0].shape == (video["height"], video["width"], 3)
    colour = frames[0][32, 12]
    assert colour[0] > 200
    assert 80 < colour[1] < 180
    assert fal.violations == []


def test_ranges(fal: FalStandIn, http: httpx.Client) -> None:
    url = finished(fal, http)["video"]["url"]
    whole = http.get(url)
    part = http.get(url, headers={"range": "bytes=100-", "if-range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[100:])
    assert part.headers["content-range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
    assert http.get(url, headers={"range": "bytes=0-9"}).content == whole.content[:10]
    assert http.get(url, headers={"range": "bytes=9999999-"}).status_code == 416
    assert http.get(url, headers={"range": "bytes=100-", "if-range": '"other"'}).status_code == 200
    fal.ranges = False
    assert http.get(url, headers={"range": "bytes=100-"}).status_code == 200


def test_a_new_url_for_a_video(fal: FalStandIn, http: httpx.Client) -> None:
    old = finished(fal, http)["video"]["url"]
    (request_id,) = fal.jobs
    fal.renew_media(request_id)
    new = http.get(f"{QUEUE}/{APP}/requests/{request_id}").json()["video"]["url"]
    assert (http.get(old).status_code, http.get(new).status_code) == (404, 200)


def test_bare_result(fal: FalStandIn, http: httpx.Client) -> None:
    fal.bare_result = True
    result = finished(fal, http)
    assert result.keys() == {"video"}
    assert result["video"].keys() == {"url"}


def test_data_uri(fal: FalStandIn, http: httpx.Client) -> None:
    head, _, data = finished(fal, http, sync_mode=True)["video"]["url"].partition(",")
    assert head == "data:video/mp4;base64"
    assert b"ftyp" in base64.b64decode(data, validate=True)[:8]
    assert http.get(LISTING, params={"endpoint_id": ENDPOINT}).json()["items"] == []


def test_how_long_results_are_kept(fal: FalStandIn, http: httpx.Client) -> None:
    urls = [submit(http), submit(http, headers={"x-fal-store-io": "0"})]
    fal.clock.advance(3000)
    assert [http.get(result_of(url)).status_code for url in urls] == [200, 200]
    fal.clock.advance(3600)
    assert [http.get(result_of(url)).status_code for url in urls] == [200, 404]
    fal.clock.advance(31 * 86400)
    assert [http.get(url).status_code for url in urls] == [404, 404]


def test_prices(fal: FalStandIn, http: httpx.Client) -> None:
    prices = http.get(PRICING, params={"endpoint_id": [ENDPOINT, DISTILLED]}).json()["prices"]
    assert [price["unit_price"] for price in prices] == [0.20, 0.08]
    fal.prices[ENDPOINT] = 0.5
    asked = {"estimate_type": "unit_price", "endpoints": {ENDPOINT: {"unit_quantity": 3}}}
    assert http.post(f"{PRICING}/estimate", json=asked).json()["total_cost"] == 1.5
    assert http.get(PRICING, params={"endpoint_id": "fal-ai/unknown"}).json()["error"]["type"] == "not_found"
    refused = http.get(PRICING, params={"endpoint_id": ENDPOINT}, headers={"authorization": "Key a:b"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authorization_error")


def test_listing(fal: FalStandIn, http: httpx.Client) -> None:
    for seed in range(3):
        submit(http, seed=seed)
    submit(http, endpoint=DISTILLED)
    submit(http, seed=3, headers={"x-fal-store-io": "0"})
    asked: dict[str, Any] = {"endpoint_id": ENDPOINT, "expand": "payloads", "limit": 2}
    first = http.get(LISTING, params=asked).json()
    second = http.get(LISTING, params={**asked, "cursor": first["next_cursor"]}).json()
    assert [first["has_more"], second["has_more"], second["next_cursor"]] == [True, False, None]
    items = first["items"] + second["items"]
    assert [item.get("json_input") for item in items] == [None, *({**INPUT, "seed": seed} for seed in (2, 1, 0))]
    assert [item["request_id"] for item in items] == [
        job.request_id for job in reversed(fal.jobs.values()) if job.endpoint == ENDPOINT
    ]
    sent = datetime.fromisoformat(items[-1]["sent_at"])
    assert abs(datetime.now(timezone.utc) - sent) < timedelta(minutes=1)
    window = {"start": sent.isoformat(), "end": (sent + timedelta(microseconds=1)).isoformat()}
    assert http.get(LISTING, params={**asked, **window}).json()["items"] == items[-1:]
    assert http.get(LISTING, params={**asked, "limit": 101}).status_code == 400

    fal.listed = "completed"
    assert http.get(LISTING, params=asked).json()["items"] == []
    fal.clock.advance(100)
    fal.listed_defaults = True
    (done,) = http.get(LISTING, params={**asked, **window}).json()["items"]
    assert (done["status_code"], done["duration"], done["json_input"]["video_quality"]) == (200, 5, "high")
    assert done["json_output"]["seed"] == 0


def test_pre_signed_upload(fal: FalStandIn, http: httpx.Client) -> None:
    initiate = "https://rest.fal.ai/storage/upload/initiate"
    asked = {"file_name": "input.png", "content_type": "image/png"}
    place = http.post(initiate, params={"storage_type": "fal-cdn-v3"}, json=asked).json()
    parts = http.post(f"{initiate}-multipart", params={"storage_type": "fal-cdn-v3"}, json=asked).json()
    assert http.put(place["upload_url"], content=b"image").status_code == 400
    del http.headers["authorization"]
    assert http.put(place["upload_url"], content=b"image").status_code == 200
    url = httpx.URL(parts["upload_url"])
    tags = [http.put(url.copy_with(path=f"{url.path}/{n}"), content=b"%d" % n).headers["etag"] for n in (1, 2)]
    listed = {"parts": [{"partNumber": n, "etag": tag} for n, tag in enumerate(tags, 1)]}
    assert http.post(url.copy_with(path=f"{url.path}/complete"), json=listed).status_code == 200
    assert [http.get(reply["file_url"]).content for reply in (place, parts)] == [b"image", b"12"]


BROKEN: list[tuple[Fault, type[Exception], str, int]] = [
    (Reset(), httpx.TransportError, "reset", 0),
    (Reset(accept=True), httpx.TransportError, "reset", 1),
    (Reset(accept=True, rst=False), httpx.RemoteProtocolError, "closed", 1),
    (Reset(read_request=False), httpx.TransportError, "reset", 0),
    (Hang(accept=True), httpx.ReadTimeout, "open", 1),
    (Hang(), httpx.ReadTimeout, "open", 0),
    (Truncate(20), httpx.RemoteProtocolError, "closed", 1),
    (Truncate(20, chunked=True), httpx.RemoteProtocolError, "closed", 1),
    (Stall(20), httpx.ReadTimeout, "open", 1),
    (BigHeaders(300_000), httpx.RemoteProtocolError, "", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "error", "outcome", "accepted"), BROKEN, ids=lambda value: str(value)[:30])
def test_broken_replies(
    fal: FalStandIn, http: httpx.Client, fault: Fault, error: type[Exception], outcome: str, accepted: int
) -> None:
    http.timeout = httpx.Timeout(60, read=2 if error is httpx.ReadTimeout else 60)
    fal.fault("submit", fault)
    with pytest.raises(error):
        submit(http)
    fal.wait_for(lambda: fal.accepted == accepted)
    fal.wait_for(lambda: fal.journal[0].outcome == outcome or not outcome)
    http.timeout = httpx.Timeout(60)
    submit(http)
    assert fal.accepted == accepted + 1


@pytest.mark.parametrize("way", ["proxy", "direct"])
def test_a_reset_is_one_on_the_wire(fal: FalStandIn, way: str) -> None:
    fal.fault("submit", Reset())
    tls = ssl.create_default_context(cafile=fal.environ["SSL_CERT_FILE"])
    name = "queue.fal.run" if way == "proxy" else "127.0.0.1"
    with socket.create_connection(("127.0.0.1", fal.ports["proxy" if way == "proxy" else "api"])) as raw:
        if way == "proxy":
            raw.sendall(b"CONNECT queue.fal.run:443 HTTP/1.1\r\n\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        with tls.wrap_socket(raw, server_hostname=name) as connection:
            connection.sendall(f"POST /{ENDPOINT} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            fal.wait_for(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)


ODD: list[tuple[Fault, int]] = [
    (Reply(200, body=[]), 0),
    (Reply(200, body=b"<html>", accept=True), 1),
    (Reply(422, body={"detail": "no"}), 0),
    (ingress(502, accept=True), 1),
    (Redirect(302, "https://example.com/"), 0),
    (Drip(0.0001), 1),
    (Drip(0.0001, head=False), 1),
    (Chop(1), 1),
    (NoLength(), 1),
    (NoLength(chunked=True), 1),
    (BigHeaders(50_000), 1),
    (Relabel(201, {"content-type": "text/plain"}), 1),
    (with_fields(request_id=7), 1),
    (without_fields("status_url"), 1),
    (Body(lambda body: body[:10]), 1),
    (Json(lambda reply: reply.update(status=None)), 1),
    (Hang(0.1, accept=True), 1),
    (GzipBomb(2**20), 0),
    (EndlessBody(2**20, headers={"content-type": "application/json"}, first=b"{"), 0),
]


@pytest.mark.parametrize(("fault", "accepted"), ODD, ids=lambda value: str(value)[:30])
def test_odd_replies(fal: FalStandIn, http: httpx.Client, fault: Fault, accepted: int) -> None:
    fal.fault("submit", fault)
    reply = http.post(f"{QUEUE}/{ENDPOINT}", json=INPUT)
    (exchange,) = fal.journal
    assert (exchange.status, exchange.outcome) == (reply.status_code, "replied")
    assert fal.accepted == accepted


def test_endless_body(fal: FalStandIn, http: httpx.Client) -> None:
    fal.fault("media", EndlessBody())
    fal.fault("media", EndlessBody(length=10**12))
    for length in (None, "1000000000000"):
        with http.stream("GET", "https://v3b.fal.media/files/b/0/a.mp4") as reply:
            assert reply.headers.get("content-length") == length
            assert sum(len(piece) for _, piece in zip(range(20), reply.iter_raw(2**16), strict=False)) == 20 * 2**16
        fal.wait_for(lambda: fal.journal[-1].outcome == "abandoned")


def test_faults_follow_one_another(fal: FalStandIn, http: httpx.Client) -> None:
    fal.fault("status", Reply(500), times=2)
    fal.fault("status", Reply(404), after=1)
    url = submit(http)
    assert [http.get(url).status_code for _ in range(5)] == [500, 500, 202, 404, 202]
    fal.fault("status", Reply(500), times=fal_standin.FOREVER)
    assert [http.get(url).status_code for _ in range(2)] == [500, 500]
    fal.clear_faults()
    assert http.get(url).status_code == 200
    with pytest.raises(ValueError, match="no stage"):
        fal.fault("sumbit", Reply(500))


def test_release(fal: FalStandIn, http: httpx.Client) -> None:
    fal.fault("submit", Hang())
    http.timeout = httpx.Timeout(60, read=0.3)
    with pytest.raises(httpx.ReadTimeout):
        submit(http)
    fal.wait_for(lambda: fal.journal)
    fal.release()
    fal.wait_for(lambda: fal.journal[0].outcome != "open")


@pytest.mark.slow
def test_real_time(tmp_path: Path) -> None:
    # Slow enough that the client sees each state on a busy machine too.
    with FalStandIn(tmp_path, clock=Clock(real=True, scale=0.5)) as fal:
        (done,) = run_official(fal.environ, ["subscribe", [ENDPOINT, INPUT], {"updates": True}])
        (job,) = fal.jobs.values()
        assert job.ended is not None
        assert job.ended - job.created == pytest.approx(7)
        assert {update["status"] for update in done["value"][0]} == {"Queued", "InProgress", "Completed"}


def test_a_closed_port(fal: FalStandIn, http: httpx.Client) -> None:
    url = submit(http)
    fal.close_port()
    for _ in range(2):
        with pytest.raises(httpx.ConnectError):
            http.get(url)
    fal.open_port()
    assert http.get(url).status_code == 202


def test_restart(fal: FalStandIn, http: httpx.Client) -> None:
    url = submit(http)
    ports = dict(fal.ports)
    fal.restart()
    assert fal.ports == ports
    assert http.get(url).status_code == 202
    fal.restart(forget=True)
    assert http.get(url).json() == {"status": "NOT_FOUND"}
    assert fal.accepted == 0


def test_the_jobs_outlive_the_stand_in_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock goes on where it stood, however long nothing ran."""
    world = time.time
    for accepted in range(2):
        with FalStandIn(tmp_path) as fal:
            assert fal.accepted == accepted
            fal.fail_next(SERVER_ERROR)
            run_official(fal.environ, SUBMIT)
        jobs = fal.jobs
        assert [job.state for job in jobs.values()] == ["IN_QUEUE"] * (accepted + 1)
        monkeypatch.setattr(time, "time", lambda hours=accepted + 1: world() + hours * 3600)
    with FalStandIn(tmp_path) as fal:
        assert fal.jobs == jobs


def test_faults_in_the_making_of_a_connection(fal: FalStandIn, http: httpx.Client) -> None:
    fal.fault("connect", Reply(502))
    fal.fault("connect", Reset())
    fal.fault("tls", Reset())
    with pytest.raises(httpx.ProxyError):
        submit(http)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            submit(http)
    fal.fault("connect", Hang(0.05))
    submit(http)
    assert fal.connects == ["queue.fal.run:443"] * 4
    assert fal.accepted == 1


EVIL = ["https://evilfal.media", "https://fal.media.evil.example", "https://10.0.0.1", "https://v3b.fal.media:8443"]


@pytest.mark.parametrize("url", EVIL)
def test_evil_is_seen(fal: FalStandIn, http: httpx.Client, url: str) -> None:
    assert http.get(f"{url}/x", headers={"a": "b"}).headers["content-type"] == "text/html"
    (exchange,) = fal.journal
    assert exchange.origin == "evil"
    assert any(violation.startswith("CONNECT") for violation in fal.violations)
    assert any(violation.startswith("the key in GET") for violation in fal.violations)


def test_other_violations(fal: FalStandIn, http: httpx.Client) -> None:
    http.get("https://v3b.fal.media/files/b/0/x.mp4", headers={"authorization": "Bearer abc"})
    http.get("http://queue.fal.run/")
    http.post(f"https://fal.run/{ENDPOINT}", json=INPUT)
    kinds = [violation.split()[0] for violation in fal.violations]
    assert kinds == ["Authorization", "plain", "the"]
    assert fal.accepted == 0
