"""A job from its acceptance to its result: status (T), result (R) and cancellation (C) go wrong in every way."""

import asyncio
import base64
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from itertools import groupby
from typing import Any

import pytest

from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import Cancellation, Completed, FalClient, InProgress, Queued
from cosmos_predict25.pipeline.fal.journal import State
from cosmos_predict25.tests.fal import (
    APP,
    ENDPOINT,
    FAST,
    PROMPT,
    REQUEST,
    Recorder,
    StoppedError,
    failed,
    goes_on,
    journal_of,
    make,
    policy_with,
    record_of,
    records_of,
    run,
    videos_of,
)
from cosmos_predict25.tests.fal_standin import (
    FIELD_ERROR,
    FOREVER,
    GENERATION_TIMEOUT,
    SERVER_ERROR,
    TEXT_ERROR,
    BigHeaders,
    Body,
    Chop,
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
    with_fields,
    without_fields,
)
from cosmos_predict25.tests.fal_standin.wire import Response, Wire

IMPATIENT = policy_with(api_timeout=0.8, result_timeout=0.8, connect_timeout=0.8)
BRIEF = policy_with(wait_limit=0.3)
IN_PROGRESS = Reply(400, body={"detail": "Request is still in progress"})
NOT_FOUND = Reply(404, body={"status": "NOT_FOUND"})


class Watcher(Recorder):
    """Calls `look` once, at the first message with `text` in it."""

    def __init__(self, text: str, look: Callable[[], object]) -> None:
        super().__init__()
        self._text = text
        self._look: Callable[[], object] | None = look

    def progress(self, message: str, done: int, total: int, latents: Any = None) -> None:
        super().progress(message, done, total, latents)
        if self._look and self._text in message:
            look, self._look = self._look, None
            look()


def ids(value: Any) -> str:
    return value.__name__ if callable(value) else str(value)[:40]


def only_id(fal: FalStandIn) -> str:
    (request_id,) = fal.jobs
    return request_id


def texts(observer: Recorder) -> list[str]:
    """What was shown, without the time and the price, and each text once in a row."""
    return [text for text, _ in groupby(message.partition(" (")[0] for message in observer.messages)]


def is_set_aside(fal: FalStandIn) -> bool:
    """Whether the record is out of the way but still to be read by a person."""
    (path,) = journal_of(fal).folder.glob("*.expired")
    assert records_of(fal) == []
    return json.loads(path.read_text())["request_id"] == only_id(fal)


def test_the_states_that_are_shown(fal: FalStandIn) -> None:
    observer = Recorder()
    video = run(make(fal, observer=observer))
    assert texts(observer) == [
        "Sending the job to fal",
        f"Sent to fal, request id {only_id(fal)}",
        "Queued at fal, 1 ahead",
        "Running at fal",
        *(f"Running at fal: step {step}/35" for step in (7, 14, 21, 28)),
        "fal has finished",
        "Downloading the video",
    ]
    assert (video.seed, video.num_frames, video.notes) == (7, 9, ())
    targets = [exchange.target for exchange in fal.requests("status")]
    assert set(targets) == {f"/{APP}/requests/{only_id(fal)}/status?logs=1"}
    assert [exchange.target for exchange in fal.requests("result")] == [f"/{APP}/requests/{only_id(fal)}"]
    assert fal.requests("cancel") == fal.requests("stream") == []
    assert fal.accepted == 1


def test_following_a_job_with_the_client_alone(fal: FalStandIn) -> None:
    async def follow() -> tuple[list[Any], dict[str, Any]]:
        async with FalClient(policy=FAST) as client:
            job = await client.submit(ENDPOINT, {"prompt": PROMPT, "num_frames": 9})
            again = client.job(ENDPOINT, job.request_id)
            assert again == job
            states = [state async for state in client.follow(again)]
            assert await client.status(job, logs=False) == Completed(inference_time=5.0)
            return states, await client.result(again)

    states, result = run(follow())
    assert states[0] == Queued(1)
    assert states[1] == InProgress()
    assert states[-2] == InProgress(tuple(f"step {step}/35" for step in range(1, 29)))
    assert states[-1].logs[-1] == "step 35/35"
    assert states[-1].inference_time == 5.0
    assert result["video"]["url"].startswith("https://v3b.fal.media/")
    assert fal.requests("status")[-1].argument("logs") == "0"


def test_t1_a_job_that_returns_to_the_queue(fal: FalStandIn) -> None:
    observer = Watcher("Running", lambda: fal.requeue(only_id(fal)))
    seen: list[State] = []
    progress = observer.progress

    def look(message: str, done: int, total: int) -> None:
        seen.extend(record.state for record in records_of(fal))
        progress(message, done, total)

    observer.progress = look  # type: ignore[method-assign]
    run(make(fal, observer=observer))
    states = [text.partition(":")[0].partition(",")[0] for text, _ in groupby(texts(observer))]
    around = ["Queued at fal", "Running at fal"]
    assert [state for state, _ in groupby(states) if state in around] == around * 2
    assert [state for state, _ in groupby(seen)] == [
        State.SUBMITTING,
        State.SUBMITTED,
        State.QUEUED,
        State.RUNNING,
        State.QUEUED,
        State.RUNNING,
        State.RESULT_READY,
    ]
    assert fal.accepted == 1


def test_t2_queue_positions_of_every_kind(fal: FalStandIn) -> None:
    fal.queue_seconds = 20
    for position in (3, 5, 900, None, -1, "7", 2.5, True, [], 10**30):
        fal.fault("status", with_fields(queue_position=position))
    fal.fault("status", without_fields("queue_position"))
    observer = Recorder()
    video = run(make(fal, observer=observer))
    assert texts(observer)[2:7] == [
        *(f"Queued at fal, {n} ahead" for n in (3, 5, 900)),
        "Queued at fal",
        "Queued at fal, 8 ahead",
    ]
    assert video.num_frames == 9
    assert fal.accepted == 1


ODD_STATES = [with_fields(status="PAUSED"), without_fields("status"), Reply(200, body=[]), Reply(202, body=b"null")]


@pytest.mark.parametrize("fault", ODD_STATES, ids=ids)
def test_t3_an_unknown_state_passes(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=4)
    fal.fault("status", fault, after=1, times=4)
    assert goes_on_through(fal).num_frames == 9


@pytest.mark.parametrize("fault", ODD_STATES, ids=ids)
def test_t3_an_unknown_state_for_ever(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=FOREVER)
    error = failed(fal, JobKeptError)
    assert (error.stage, len(fal.requests("status"))) == ("status", 5)
    assert "a state that is not known" in str(error)
    assert record_of(fal).state is State.SUBMITTED
    assert goes_on(fal).num_frames == 9


def goes_on_through(fal: FalStandIn, **options: Any) -> Any:
    """The video at the first try, in spite of the faults."""
    video = run(make(fal, **options))
    assert fal.accepted == 1
    assert records_of(fal) == []
    assert list(videos_of(fal).iterdir()) == [video.path]
    return video


def saying(state: str) -> Json:
    return Json(lambda reply: {**reply, "status": state} if reply["status"] == "COMPLETED" else reply)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_t4_a_failed_state_has_its_reason_in_the_result(fal: FalStandIn, state: str) -> None:
    fal.fault("status", saying(state), times=FOREVER)
    fal.fail_next(SERVER_ERROR)
    error = failed(fal, FalError)
    assert (error.stage, error.status, error.error_type) == ("result", 500, "internal_server_error")
    assert len(fal.requests("result")) == 1
    assert records_of(fal) == []
    assert fal.accepted == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_t4_a_failed_state_with_a_video(fal: FalStandIn, state: str) -> None:
    fal.fault("status", saying(state), times=FOREVER)
    assert goes_on_through(fal).num_frames == 9


BURSTS: list[tuple[Fault, int]] = [
    (Reply(500, body={"detail": "Internal Server Error"}), 7),
    (Reply(502), 7),
    (Reply(503, {"retry-after": "soon"}, {"detail": "x"}), 7),
    (ingress(502), 7),
    (Reply(408), 7),
    (Reply(425), 7),
    (Reset(), 7),
    (Reset(rst=False), 7),
    (Hang(), 2),
    (Drip(0.01), 2),
    (Truncate(20), 4),
    (Truncate(20, chunked=True), 4),
    (BigHeaders(300_000), 7),
    (GzipBomb(2**20), 4),
    (ingress(200), 4),
    (Reply(200, body=b"\xff\xfe{"), 4),
    (Reply(200, body=b'{"status": "IN_QUE'), 4),
    (Reply(200, body=b"[" * 100_000), 4),
]


@pytest.mark.parametrize(("fault", "times"), BURSTS, ids=ids)
def test_t5_t8_a_burst_of_bad_replies(fal: FalStandIn, fault: Fault, times: int) -> None:
    fal.fault("status", fault, times)
    assert goes_on_through(fal, policy=IMPATIENT).num_frames == 9
    assert len(fal.requests("status")) > times


@pytest.mark.parametrize("fault", [Reset(), ingress(503)], ids=ids)
def test_t5_trouble_beyond_the_tries_of_one_read_is_shown_and_passes(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=20)
    observer = Recorder()
    assert goes_on_through(fal, observer=observer).num_frames == 9
    assert any("trouble" in message for message in observer.messages)


def test_t6_a_new_job_may_be_unknown_for_a_moment(fal: FalStandIn) -> None:
    fal.fault("status", NOT_FOUND, times=2)
    assert goes_on_through(fal).num_frames == 9


@pytest.mark.parametrize("fault", [NOT_FOUND, Reply(404, body={"detail": "Not Found"}), ingress(404)], ids=ids)
def test_t6_unknown_for_ever(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=FOREVER)
    error = failed(fal, JobExpiredError, policy=policy_with(not_found_grace=0.3))
    assert (error.stage, error.status) == ("status", 404)
    assert is_set_aside(fal)
    assert fal.accepted == 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("stage", ["status", "result"])
def test_t7_a_key_that_is_refused_pauses_the_job(fal: FalStandIn, stage: str, status: int) -> None:
    fal.fault(stage, Reply(status, body={"detail": f"No user found for {fal.key}"}), times=FOREVER)
    error = failed(fal, JobKeptError)
    assert (error.stage, error.status) == (stage, status)
    assert "FAL_KEY" in str(error)
    assert "billing" in str(error)
    assert len(fal.requests(stage)) == 1
    assert record_of(fal).state is State.PAUSED_AUTH
    assert fal.requests("cancel") == []
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("stage", ["status", "result"])
@pytest.mark.parametrize("value", ["1", "date", "", "0", "-5", "soon"])
def test_t7_429_slows_down_and_passes(fal: FalStandIn, stage: str, value: str) -> None:
    headers = {"retry-after": formatdate(time.time() + 2, usegmt=True) if value == "date" else value}
    fal.fault(stage, Reply(429, headers if value else {}, {"detail": "Too many requests"}), times=2)
    assert goes_on_through(fal).num_frames == 9
    times = [exchange.time for exchange in fal.requests(stage)]
    if value in ("1", "date", "0"):
        assert times[1] - times[0] > 0.9


@pytest.mark.parametrize("fault", [ingress(200), Reply(200), GzipBomb(2**20), Reply(200, body=b"{" * 10)], ids=ids)
@pytest.mark.parametrize("stage", ["status", "result"])
def test_t8_no_reply_that_can_be_read(fal: FalStandIn, stage: str, fault: Fault) -> None:
    fal.fault(stage, fault, times=FOREVER)
    error = failed(fal, JobKeptError)
    assert error.stage == stage
    assert "not understood" in str(error)
    assert len(fal.requests(stage)) == 5
    assert goes_on(fal).num_frames == 9


def test_t8_a_content_type_that_is_no_text_for_a_terminal(fal: FalStandIn) -> None:
    headers = {"content-type": "text/\x1b[31mhtml; " + "x" * 9000}
    fal.fault("status", Reply(200, headers, b"<html>"), times=FOREVER)
    error = failed(fal, JobKeptError)
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize(
    "logs",
    [
        None,
        {"message": "an object"},
        ["strings", "only"],
        [{"message": "\x1b[2J\x1b[31mred\n\x00" + "y" * 300, "timestamp": "now"}],
        [{"message": "z" * 1000, "timestamp": "now"} for _ in range(10_000)],
    ],
    ids=["null", "object", "strings", "control", "10 MB"],
)
def test_t8_logs_of_every_kind(fal: FalStandIn, logs: Any) -> None:
    fal.fault("status", with_fields(logs=logs), times=FOREVER)
    observer = Recorder()
    assert goes_on_through(fal, observer=observer).num_frames == 9
    assert all(message.isprintable() and len(message) < 300 for message in observer.messages)
    assert any(message.startswith("Running at fal") for message in observer.messages)


@pytest.mark.parametrize("code", [200, 202, 201])
def test_t9_the_body_tells_the_state_and_not_the_code(fal: FalStandIn, code: int) -> None:
    fal.fault("status", Relabel(code), times=FOREVER)
    assert goes_on_through(fal).num_frames == 9
    assert {exchange.status for exchange in fal.requests("status")} == {code}
    assert len(fal.requests("status")) == 7


@pytest.mark.parametrize("fault", [NoLength(), NoLength(chunked=True), Chop(1)], ids=ids)
@pytest.mark.parametrize("stage", ["status", "result"])
def test_replies_of_every_framing(fal: FalStandIn, stage: str, fault: Fault) -> None:
    fal.fault(stage, fault, times=FOREVER)
    assert goes_on_through(fal).num_frames == 9


@pytest.mark.parametrize("queue_seconds", [0, math.inf])
def test_t10_a_job_that_never_ends_is_kept_and_not_cancelled(fal: FalStandIn, queue_seconds: float) -> None:
    fal.queue_seconds, fal.run_seconds = queue_seconds, math.inf
    error = failed(fal, JobKeptError, policy=BRIEF)
    assert error.stage == "status"
    assert "has not finished" in str(error)
    assert fal.requests("cancel") == []
    assert record_of(fal).state is (State.QUEUED if queue_seconds else State.RUNNING)
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_t10_looks_have_pauses_between(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    failed(fal, JobKeptError, policy=policy_with(wait_limit=0.6, poll_intervals=((0, 0.05), (0.3, 0.2))))
    assert 3 <= len(fal.requests("status")) <= 11
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_t12_the_server_starts_again(fal: FalStandIn) -> None:
    assert goes_on_through(fal, observer=Watcher("Running", fal.restart)).num_frames == 9
    assert len(fal.connects) > 3


def test_t12_the_server_is_away_for_a_while(fal: FalStandIn) -> None:
    def go_away() -> None:
        fal.close_port()
        threading.Timer(0.5, fal.open_port).start()

    assert goes_on_through(fal, observer=Watcher("Running", go_away)).num_frames == 9


def test_r1_completed_and_still_in_progress(fal: FalStandIn) -> None:
    fal.fault("result", IN_PROGRESS, times=2)
    assert goes_on_through(fal).num_frames == 9
    assert [exchange.status for exchange in fal.requests("result")] == [400, 400, 200]


def test_r1_completed_and_in_progress_for_ever(fal: FalStandIn) -> None:
    fal.fault("result", IN_PROGRESS, times=FOREVER)
    error = failed(fal, JobKeptError, policy=BRIEF)
    assert (error.stage, "in progress" in str(error)) == ("result", True)
    assert goes_on(fal).num_frames == 9


POLICY_ERROR = content_policy({"prompt": PROMPT})
NO_RETRY = "will not help"
FAILURES: list[tuple[Outcome, dict[str, Any], str]] = [
    (
        FIELD_ERROR,
        {"error_type": "less_than_equal", "fields": ("num_frames",), "retryable": False},
        "(num_frames): Input should be less than or equal to 93 (HTTP 422",
    ),
    (TEXT_ERROR, {"error_type": None, "fields": (), "retryable": None}, "The prompt could not be used (HTTP 422)"),
    (
        POLICY_ERROR,
        {"error_type": "content_policy_violation", "fields": ("prompt",), "retryable": False},
        "The same prompt will be refused again: change what it asks for",
    ),
    (
        replace(POLICY_ERROR, headers={"x-fal-retryable": "true"}),
        {"error_type": "content_policy_violation", "retryable": False},
        "flagged by a content checker",
    ),
    (SERVER_ERROR, {"error_type": "internal_server_error", "retryable": True}, "A new try is likely to help"),
    (replace(SERVER_ERROR, headers={"X-Fal-Needs-Retry": "1"}), {"retryable": True}, "A new try is likely to help"),
    (replace(SERVER_ERROR, headers={"X-Fal-Needs-Retry": "no"}), {"retryable": False}, NO_RETRY),
    (replace(SERVER_ERROR, headers={}), {"retryable": None}, "fal does not say"),
    (GENERATION_TIMEOUT, {"status": 504, "error_type": "generation_timeout", "retryable": False}, NO_RETRY),
    (
        Outcome(500, {"detail": "Runner died", "error_type": "runner_server_error"}),
        {"error_type": "runner_server_error"},
        "Runner died (HTTP 500, runner_server_error)",
    ),
    (
        Outcome(504, {"detail": "Request timed out"}, {"x-fal-error-type": "request_timeout"}),
        {"error_type": "request_timeout"},
        "Request timed out (HTTP 504, request_timeout)",
    ),
    (Outcome(499, {"detail": "Request was cancelled"}), {"status": 499}, "Request was cancelled (HTTP 499)"),
    (Outcome(422, {"detail": []}), {"status": 422}, "no reason that can be read (HTTP 422)"),
    (
        Outcome(422, {"detail": [{"loc": 5, "msg": ["x"], "type": 7}, "x"]}),
        {"fields": ()},
        "no reason that can be read",
    ),
    (Outcome(422, [1]), {"status": 422}, "no reason that can be read"),
    (
        Outcome(422, {"detail": [{"loc": ["body", "prompt", 3], "msg": "\x1b[31mred\n" + "y" * 9000, "type": "x\n"}]}),
        {"error_type": "x", "fields": ("prompt.3",)},
        "red yyy",
    ),
]


@pytest.mark.parametrize(("outcome", "expected", "says"), FAILURES, ids=[says[:40] for _, _, says in FAILURES])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_r2_a_failed_job(fal: FalStandIn, outcome: Outcome, expected: dict[str, Any], says: str, told: bool) -> None:
    fal.fail_next(outcome if told else replace(outcome, error=None, error_type=None))
    error = failed(fal, FalError)
    assert (error.stage, error.status) == ("result", outcome.status)
    assert {name: getattr(error, name) for name in expected} == expected
    assert says in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert len(fal.requests("submit")) == len(fal.requests("result")) == fal.accepted == 1
    assert records_of(fal) == []
    assert fal.requests("media") == []


def test_r2_a_reason_that_says_the_prompt_and_the_key_again(fal: FalStandIn, caplog: pytest.LogCaptureFixture) -> None:
    detail = f"For Key {fal.key}: the prompt '{PROMPT}' is not allowed, see data:video/mp4;base64,AAAA"
    fal.fault("status", with_fields(status="FAILED", error=detail, logs=[detail]))
    fal.fault("result", Reply(422, body={"detail": detail}))
    error = failed(fal, FalError)
    assert "is not allowed" in str(error)
    assert "AAAA" not in str(error)
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("unit", ["data:" + "a" * 60_000, "https://" * 7_000, "key " * 15_000, "\x1b[" * 30_000])
def test_r2_a_long_reason_is_read_at_once(fal: FalStandIn, unit: str) -> None:
    fal.fail_next(Outcome(422, {"detail": unit}))
    start = time.monotonic()
    error = failed(fal, FalError)
    assert time.monotonic() - start < 3
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (ingress(502), 7),
        (ingress(503), 7),
        (ingress(504), 7),
        (Reply(500), 7),
        (Reset(), 7),
        (Hang(), 2),
        (Truncate(30), 4),
        (ingress(200), 4),
        (Drip(0.01), 1),
    ],
    ids=ids,
)
def test_r3_a_burst_at_the_result(fal: FalStandIn, fault: Fault, times: int) -> None:
    fal.fault("result", fault, times)
    assert goes_on_through(fal, policy=IMPATIENT).num_frames == 9
    assert len(fal.requests("result")) == times + 1


@pytest.mark.parametrize("fault", [ingress(503), Reset(), Reply(429)], ids=ids)
def test_r3_no_result_for_ever(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("result", fault, times=FOREVER)
    error = failed(fal, JobKeptError)
    assert (error.stage, "does not answer" in str(error)) == ("result", True)
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("status", [400, 405, 407, 413, 451])
def test_r3_a_page_of_something_on_the_way_is_no_failure_of_the_job(fal: FalStandIn, status: int) -> None:
    fal.fault("result", ingress(status), times=FOREVER)
    assert failed(fal, JobKeptError).stage == "result"
    assert goes_on(fal).num_frames == 9


def test_r4_a_result_that_is_gone(fal: FalStandIn) -> None:
    fal.fault("result", NOT_FOUND, times=FOREVER)
    error = failed(fal, JobExpiredError)
    assert (error.stage, error.status) == ("result", 404)
    assert "30 days" in str(error)
    assert is_set_aside(fal)
    assert fal.accepted == 1


@pytest.mark.parametrize("store", [True, False])
def test_r4_a_job_that_nobody_came_back_to_in_time(fal: FalStandIn, store: bool) -> None:
    fal.run_seconds = math.inf
    failed(fal, JobKeptError, policy=BRIEF, store=store)
    fal.complete(only_id(fal))
    fal.clock.advance(31 * 86400 if store else 3700)
    assert failed(fal, JobExpiredError, store=store).status == 404
    assert is_set_aside(fal)
    assert fal.accepted == 1


def with_video(**fields: Any) -> Json:
    return Json(lambda reply: {**reply, "video": {**reply["video"], **fields}})


NO_VIDEO: list[Fault] = [
    without_fields("video"),
    *(with_fields(video=video) for video in (None, [], [{"url": "x"}], "https://v3b.fal.media/files/b/0/a.mp4", 5, {})),
    *(with_video(url=url) for url in (None, "", 5, ["https://v3b.fal.media/files/b/0/a.mp4"], {})),
    *(Reply(200, body=body) for body in ([], None, "text", 5, {}, {"detail": "no"})),
    Reply(204),
]


@pytest.mark.parametrize("fault", NO_VIDEO, ids=[str(number) for number in range(len(NO_VIDEO))])
def test_r5_a_result_without_a_url(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("result", fault, times=FOREVER)
    assert failed(fal, JobKeptError).stage == "result"
    assert record_of(fal).request_id == only_id(fal)
    assert fal.requests("media") == []
    assert goes_on(fal).num_frames == 9


FACTS = ("content_type", "file_name", "file_size", "width", "height", "fps", "duration", "num_frames")
DEEP: list[Any] = []
for _ in range(600):
    DEEP = [DEEP]
HELD: dict[str, Fault] = {
    "no seed": without_fields("seed"),
    "no seed, null": with_fields(seed=None),
    "seed of text": with_fields(seed="7"),
    "only a URL": Json(lambda reply: {"video": {"url": reply["video"]["url"]}}),
    "nulls": with_video(**dict.fromkeys(FACTS)),
    "more": with_fields(more={"a": [1, 2]}, prompt="x", detail="y", status="COMPLETED"),
    "wrong types": with_video(**{name: [{}] for name in FACTS}),
    "halves of characters": with_video(file_name="\ud800\udc00\ud800", more="\x00"),
    "deep": with_fields(deep=DEEP),
    "no numbers": Body(
        lambda body: body.replace(b'"fps": 16', b'"fps": NaN').replace(b'"width": 96', b'"width": -Infinity')
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_r5_what_else_a_result_may_hold(fal: FalStandIn, name: str) -> None:
    fal.fault("result", HELD[name])
    video = goes_on_through(fal)
    assert (video.num_frames, video.width, video.height, video.fps, video.seed) == (9, 96, 64, 16, 7)


def test_r5_a_bare_result_is_kept_over_a_failed_download(fal: FalStandIn) -> None:
    fal.bare_result = True
    fal.fault("media", Reply(500), times=FOREVER)
    failed(fal, JobKeptError)
    record = record_of(fal)
    assert record.state is State.RESULT_READY
    assert record.result
    assert list(record.result["video"]) == ["url"]
    assert goes_on(fal).seed == 7
    assert len(fal.requests("result")) == 1


FORMATS = [
    ("X264 (.mp4)", "video/mp4"),
    ("VP9 (.webm)", "video/webm"),
    ("PRORES4444 (.mov)", "video/quicktime"),
    ("GIF (.gif)", "image/gif"),
]


@pytest.mark.parametrize(("name", "kind"), FORMATS)
def test_r6_the_video_in_the_result_itself(fal: FalStandIn, name: str, kind: str) -> None:
    request = replace(REQUEST, sync_mode=True, video_output_type=name)
    video = run(make(fal, request))
    assert fal.requests("submit")[0].json()["sync_mode"] is True
    assert (video.content_type, video.num_frames, video.width) == (kind, 9, 96)
    assert fal.requests("media") == []
    assert records_of(fal) == []
    assert run(make(fal, request)) == replace(video, notes=())
    assert fal.accepted == 1


def test_r6_a_data_uri_that_nobody_asked_for(fal: FalStandIn) -> None:
    content = run(make(fal, replace(REQUEST, seed=8))).path.read_bytes()
    for url in uris(content):
        fal.fault("result", with_video(url=url))
        video = run(make(fal))
        assert video.path.read_bytes() == content
        video.path.unlink()


def uris(content: bytes) -> list[str]:
    text = base64.b64encode(content).decode()
    return [
        f"data:video/mp4;base64,{text}",
        f"DATA:Video/MP4;Base64,{text}",
        f"data:application/octet-stream;base64,{text}",
    ]


MP4 = base64.b64encode(b"\x00\x00\x00\x18ftypmp42" + bytes(100)).decode()
BAD_URIS = {
    "no base64": f"data:video/mp4;base64,{'*' * 100}",
    "a broken one": f"data:video/mp4;base64,{MP4[:-3]}",
    "line breaks": f"data:video/mp4;base64,{MP4[:40]}\n{MP4[40:]}",
    "of URLs": "data:video/mp4;base64,AAAA__--" + MP4,
    "not ASCII": "data:video/mp4;base64,ÄÖÜ" + MP4,
    "not said to be base64": f"data:video/mp4,{MP4}",
    "empty": "data:video/mp4;base64,",
    "nothing": "data:",
    "a page": f"data:text/html;base64,{MP4}",
    "a picture": f"data:image/png;base64,{MP4}",
    "no type": f"data:;base64,{MP4}",
    "too large": "data:video/mp4;base64," + MP4 + "A" * 2**21,
    "no mp4 in it": "data:video/mp4;base64," + base64.b64encode(b"GIF89a" + bytes(100)).decode(),
    "nothing to decode": f"data:video/mp4;base64,{MP4}",
}


@pytest.mark.parametrize("name", BAD_URIS)
def test_r6_a_data_uri_that_is_refused(fal: FalStandIn, name: str) -> None:
    fal.fault("result", with_video(url=BAD_URIS[name]), times=FOREVER)
    error = failed(fal, JobKeptError, policy=policy_with(max_media=2**20))
    assert error.stage == "download"
    assert len(str(error)) < 1000
    assert MP4[:40] not in str(error)
    assert journal_of(fal).path_of(record_of(fal).fingerprint).stat().st_size < 4000
    assert list(videos_of(fal).iterdir()) == []
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("length", [None, 200 * 2**20])
def test_r7_a_result_without_end(fal: FalStandIn, length: int | None) -> None:
    fal.fault(
        "result", EndlessBody(200 * 2**20, length, b'{"video": "', {"content-type": "application/json"}), times=FOREVER
    )
    error = failed(fal, JobKeptError, policy=policy_with(max_reply=2**20))
    assert f"more than {2**20} bytes" in str(error)
    fal.wait_for(lambda: {exchange.outcome for exchange in fal.requests("result")} == {"abandoned"})
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("stage", ["status", "result"])
@pytest.mark.parametrize(
    ("status", "where"),
    [
        (301, "https://evil.example/x"),
        (302, "https://v3b.fal.media/x"),
        (303, ""),
        (307, "https://{host}{target}"),
        (308, "https://["),
        (302, "data:text/plain,x"),
        (300, "http://queue.fal.run{target}"),
    ],
)
def test_r8_a_redirect_is_not_followed(fal: FalStandIn, stage: str, status: int, where: str) -> None:
    fal.fault(stage, Redirect(status, where), times=FOREVER)
    error = failed(fal, JobKeptError)
    assert (error.stage, "redirect" in str(error)) == (stage, True)
    assert len(fal.requests(stage)) == (5 if where.startswith("data:") else 1)
    assert set(fal.connects) == {"queue.fal.run:443", "api.fal.ai:443"}
    assert goes_on(fal).num_frames == 9


def stopped(fal: FalStandIn, observer: Recorder, **options: Any) -> float:
    """The seconds that a run took which ended as the observer wanted."""
    start = time.monotonic()
    with pytest.raises(StoppedError):
        run(make(fal, observer=observer, **options))
    assert not list(fal.folder.parent.rglob("*.part"))
    return time.monotonic() - start


def assert_cancelled_once(fal: FalStandIn) -> None:
    (cancel,) = fal.requests("cancel")
    assert (cancel.method, cancel.target) == ("PUT", f"/{APP}/requests/{only_id(fal)}/cancel")
    assert (cancel.body, cancel.headers["authorization"]) == (b"", f"Key {fal.key}")


def assert_is_there(fal: FalStandIn) -> None:
    """The video came all the same, and is used without asking fal for anything."""
    assert records_of(fal) == []
    before = len(fal.journal)
    assert run(make(fal)).num_frames == 9
    assert len(fal.journal) == before
    assert fal.accepted == 1


def assert_nothing_is_left(fal: FalStandIn) -> None:
    """No record and no file, so that the same request makes a new job."""
    assert records_of(fal) == []
    assert not list(videos_of(fal).glob("*"))
    assert fal.accepted == 1
    fal.clear_faults()
    fal.queue_seconds = fal.run_seconds = 0
    assert run(make(fal)).num_frames == 9
    assert fal.accepted == 2


@dataclass(frozen=True)
class Meanwhile(Fault):
    """`fault`, once `what` has happened."""

    what: Callable[[], object]
    fault: Fault = field(default_factory=Fault)

    async def send(self, response: Response, wire: Wire) -> None:
        self.what()
        await self.fault.send(response, wire)


def stop_in_a_long_run(fal: FalStandIn, **options: Any) -> float:
    fal.run_seconds = math.inf
    return stopped(fal, Recorder("Running"), **options)


def test_stop_in_the_queue(fal: FalStandIn) -> None:
    fal.queue_seconds = math.inf
    stopped(fal, Recorder("Queued"))
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 200
    assert_nothing_is_left(fal)


def test_c1_202_and_then_the_video_all_the_same(fal: FalStandIn) -> None:
    fal.cancelled = "completes"
    fal.fault("cancel", Meanwhile(what=lambda: fal.complete(only_id(fal)), accept=True))
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 202
    assert_is_there(fal)


@pytest.mark.parametrize("cancelled", ["vanishes", "ends"])
def test_c2_202_and_then_nothing(fal: FalStandIn, cancelled: Any) -> None:
    fal.cancelled = cancelled
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 202
    assert_nothing_is_left(fal)


def test_c2_202_and_then_nothing_is_heard(fal: FalStandIn) -> None:
    fal.cancelled = "completes"
    assert stop_in_a_long_run(fal, policy=policy_with(cancel_wait=0.3)) < 8
    assert_cancelled_once(fal)
    assert record_of(fal).state is State.CANCEL_REQUESTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_c2_a_cancellation_that_has_its_effect_later(fal: FalStandIn) -> None:
    fal.fault("cancel", Meanwhile(what=lambda: fal.fault("status", ingress(503), FOREVER), accept=True))
    stop_in_a_long_run(fal, policy=policy_with(cancel_wait=0.3))
    assert record_of(fal).state is State.CANCEL_REQUESTED
    fal.clear_faults()
    fal.run_seconds = 0
    observer = Recorder()
    assert run(make(fal, observer=observer)).num_frames == 9
    assert any("cancelled, so a new one is sent" in message for message in observer.messages)
    assert fal.accepted == 2
    assert records_of(fal) == []


def test_c3_400_and_the_video_that_is_paid_for(fal: FalStandIn) -> None:
    def complete_and_stop() -> None:
        fal.fault("status", Hang(1, accept=True))
        fal.complete(only_id(fal))
        observer.stop()

    observer = Watcher("Running", complete_and_stop)
    fal.run_seconds = math.inf
    stopped(fal, observer)
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 400
    assert_is_there(fal)


def test_c4_404_and_the_job_goes_on_all_the_same(fal: FalStandIn) -> None:
    fal.fault("cancel", Meanwhile(fault=NOT_FOUND, what=lambda: fal.complete(only_id(fal))))
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert_is_there(fal)


def test_c4_404_and_the_job_is_gone(fal: FalStandIn) -> None:
    fal.cancelled = "vanishes"
    fal.fault("cancel", Reset(accept=True))
    stop_in_a_long_run(fal)
    assert [exchange.status for exchange in fal.requests("cancel")] == [None, 404]
    assert_nothing_is_left(fal)


def test_c5_200_with_success(fal: FalStandIn) -> None:
    fal.fault("cancel", Reply(200, body={"success": True}, accept=True))
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert_nothing_is_left(fal)


TROUBLE: list[Fault] = [
    Reset(),
    Reset(rst=False),
    Hang(),
    Reply(500),
    ingress(502),
    Reply(429),
    GzipBomb(2**20),
    Truncate(2, accept=False),
]


@pytest.mark.parametrize("fault", TROUBLE, ids=ids)
def test_c6_c8_trouble_that_passes(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("cancel", fault, times=2)
    stop_in_a_long_run(fal, policy=IMPATIENT)
    assert len(fal.requests("cancel")) == 3
    assert_nothing_is_left(fal)


@pytest.mark.parametrize("fault", TROUBLE, ids=ids)
def test_c6_c8_no_cancellation_in_three_tries(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("cancel", fault, times=FOREVER)
    assert stop_in_a_long_run(fal, policy=IMPATIENT) < 8
    assert len(fal.requests("cancel")) == 3
    assert record_of(fal).state is State.CANCEL_REQUESTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("fault", [Reply(401), Reply(403), Redirect(307, "https://evil.example/"), Reply(418)], ids=ids)
def test_c8_a_refusal_is_not_repeated(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("cancel", fault, times=FOREVER)
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert record_of(fal).state is State.CANCEL_REQUESTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_c6_reset_after_the_cancellation_was_taken(fal: FalStandIn) -> None:
    fal.fault("cancel", Reset(accept=True))
    stop_in_a_long_run(fal)
    assert [exchange.status for exchange in fal.requests("cancel")] == [None, 400]
    assert_nothing_is_left(fal)


def test_c7_stop_while_the_submission_is_in_flight(fal: FalStandIn) -> None:
    fal.queue_seconds = math.inf
    fal.fault("submit", Hang(0.7, accept=True))
    stopped(fal, Recorder("Sending"))
    assert_cancelled_once(fal)
    stages = [exchange.stage for exchange in fal.journal if exchange.stage in ("submit", "cancel")]
    assert stages == ["submit", "cancel"]
    assert fal.requests("submit")[0].outcome == "replied"
    assert_nothing_is_left(fal)


@pytest.mark.parametrize("fault", [Hang(accept=True), Stall(20), Drip(0.1)], ids=ids)
def test_c7_stop_while_a_submission_is_in_flight_whose_answer_is_lost(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault)
    assert stopped(fal, Recorder("Sending"), policy=policy_with(submit_deadline=0.7)) < 10
    assert record_of(fal).state is State.SUBMIT_UNKNOWN
    assert fal.requests("cancel") == []
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("fault", [Reply(401, body={"detail": "no"}), Reply(422, body={"detail": "no"})], ids=ids)
def test_c7_stop_while_a_submission_is_in_flight_that_is_refused(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("connect", Hang(0.5), times=2)
    fal.fault("submit", fault)
    stopped(fal, Recorder("Sending"))
    assert fal.requests("cancel") == []
    assert records_of(fal) == []
    assert fal.accepted == 0


def test_c9_stop_twice(fal: FalStandIn) -> None:
    fal.cancelled = "completes"
    for number in (1, 2):
        stop_in_a_long_run(fal, policy=policy_with(cancel_wait=0.3))
        assert [exchange.status for exchange in fal.requests("cancel")] == [202] * number
        assert record_of(fal).state is State.CANCEL_REQUESTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_stop_before_anything_was_sent(fal: FalStandIn) -> None:
    observer = Recorder()
    observer.stop()
    fal.fault("connect", Hang(0.3), times=FOREVER)
    stopped(fal, observer)
    assert fal.accepted == len(fal.requests("submit")) <= 1
    assert len(fal.requests("cancel")) == fal.accepted
    assert records_of(fal) == []


def test_stop_during_the_download_leaves_the_result_to_come_back_to(fal: FalStandIn) -> None:
    fal.fault("media", Hang())
    stopped(fal, Recorder("Downloading"))
    assert fal.requests("cancel") == []
    assert record_of(fal).state in (State.RESULT_READY, State.DOWNLOADING)
    looks = len(fal.requests("status"))
    assert goes_on(fal).num_frames == 9
    assert len(fal.requests("status")) == looks


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Relabel(202), Cancellation.REQUESTED),
        (Relabel(200), Cancellation.REMOVED),
        (Reply(200, body={"success": True}), Cancellation.REMOVED),
        (Reply(204), Cancellation.REMOVED),
        (Reply(200, body=b"<html>"), Cancellation.REMOVED),
        (Reply(400, body={"status": "ALREADY_COMPLETED"}), Cancellation.TOO_LATE),
        (NOT_FOUND, Cancellation.GONE),
        (Reply(500), None),
        (Reset(), None),
        (Reply(403, body={"detail": "no"}), None),
    ],
    ids=ids,
)
def test_answers_of_cancel(fal: FalStandIn, fault: Fault, answer: Cancellation | None) -> None:
    async def cancel() -> Cancellation:
        async with FalClient(policy=FAST) as client:
            job = await client.submit(ENDPOINT, {"prompt": PROMPT})
            fal.fault("cancel", fault, times=3)
            return await client.cancel(job)

    if answer:
        assert run(cancel()) is answer
        return
    with pytest.raises(FalError) as caught:
        run(cancel())
    assert caught.value.stage == "cancel"
    assert only_id(fal) in str(caught.value)
    assert len(fal.requests("cancel")) == (3 if caught.value.retryable else 1)


@pytest.mark.parametrize(("polls", "first"), [(0, Cancellation.REMOVED), (3, Cancellation.REQUESTED)])
def test_c9_cancel_twice(fal: FalStandIn, polls: int, first: Cancellation) -> None:
    async def cancel() -> list[Cancellation]:
        async with FalClient(policy=FAST) as client:
            job = await client.submit(ENDPOINT, {"prompt": PROMPT})
            fal.clock.advance(polls)
            return [await client.cancel(job), await client.cancel(job)]

    assert run(cancel()) == [first, Cancellation.TOO_LATE]


@pytest.mark.parametrize("text", ["Sent to fal", "Queued", "Running", "Downloading"])
def test_cancelling_the_task_leaves_the_job_running(fal: FalStandIn, text: str) -> None:
    async def cancel() -> None:
        watcher = Watcher(text, lambda: task.cancel())
        task = asyncio.ensure_future(make(fal, observer=watcher))
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    assert fal.requests("cancel") == []
    assert record_of(fal).request_id == only_id(fal)
    assert not list(fal.folder.parent.rglob("*.part"))
    assert goes_on(fal).num_frames == 9


def test_cancelling_the_task_waits_for_the_submission(fal: FalStandIn) -> None:
    fal.fault("submit", Hang(0.7, accept=True))

    async def cancel() -> None:
        task = asyncio.ensure_future(make(fal))
        while not fal.requests("submit"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    assert record_of(fal).request_id == only_id(fal)
    assert record_of(fal).state is State.SUBMITTED
    assert fal.requests("cancel") == fal.requests("status") == []
    assert goes_on(fal).num_frames == 9


def test_an_unknown_submission_is_reported_while_it_is_not_listed(fal: FalStandIn) -> None:
    fal.listed = "completed"
    fal.fault("submit", Reset(accept=True))
    with pytest.raises(OutcomeUnknownError):
        run(make(fal))
    fal.clock.advance(100)
    assert goes_on(fal).num_frames == 9
