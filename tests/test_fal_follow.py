"""A job from its acceptance to its completion: the states that fal tells."""

import math
import threading
import time
from dataclasses import replace
from itertools import count, groupby, pairwise
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST, NOT_FOUND
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    SERVER_ERROR,
    FalStandIn,
    Fault,
    Json,
    Relabel,
    Reply,
    Reset,
    RetryAt,
    ingress,
    with_fields,
    without_fields,
)
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import Completed, FalClient, InProgress, NetworkPolicy, Queued
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.tests.fal import (
    APP,
    BRIEF,
    ENDPOINT,
    PROMPT,
    REQUEST,
    Meanwhile,
    Recorder,
    Watcher,
    failed,
    goes_on,
    goes_on_through,
    is_blocked,
    make,
    only_id,
    policy_with,
    record_of,
    records_of,
    run,
    short_name,
)

IN_PROGRESS = Reply(400, body={"detail": "Request is still in progress"})


@pytest.fixture(autouse=True)
def slow_polls(fal: FalStandIn) -> None:
    """Each state lasts for some polls."""
    fal.clock.per_poll = 1


def texts(observer: Recorder) -> list[str]:
    """What was shown, without the time and the price, and each text once in a row."""
    return [text for text, _ in groupby(message.partition(" (")[0] for message in observer.messages)]


def test_each_state_is_shown_once(fal: FalStandIn) -> None:
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


def test_the_client_alone_follows_a_job_to_its_result(fal: FalStandIn) -> None:
    async def follow() -> tuple[list[Any], dict[str, Any]]:
        async with FalClient(policy=FAST) as client:
            job = await client.submit(ENDPOINT, {"prompt": PROMPT, "num_frames": 9})
            again = client.job(ENDPOINT, job.request_id)
            assert again == job
            states = [state async for state in client.follow(again)]
            assert await client.status(job, logs=False) == Completed()
            return states, await client.result(again)

    states, result = run(follow())
    assert states[0] == Queued(1)
    assert states[1] == InProgress()
    assert states[-2] == InProgress(tuple(f"step {step}/35" for step in range(1, 29)))
    assert states[-1].logs[-1] == "step 35/35"
    assert result["video"]["url"].startswith("https://v3b.fal.media/")
    assert fal.requests("status")[-1].argument("logs") == "0"


def test_a_job_that_returns_to_the_queue_is_followed(fal: FalStandIn) -> None:
    observer = Watcher("Running", lambda: fal.requeue(only_id(fal)))
    run(make(fal, observer=observer))
    states = [text.partition(":")[0].partition(",")[0] for text, _ in groupby(texts(observer))]
    around = ["Queued at fal", "Running at fal"]
    assert [state for state, _ in groupby(states) if state in around] == around * 2
    assert fal.accepted == 1


def test_queue_positions_of_every_kind_are_tolerated(fal: FalStandIn) -> None:
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


def saying(state: str) -> Json:
    return Json(lambda reply: {**reply, "status": state} if reply["status"] == "COMPLETED" else reply)


def paused(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "status": "PAUSED"}


def test_states_that_are_not_known_end_the_run_only_where_nothing_else_comes(fal: FalStandIn) -> None:
    fal.clock.per_poll, looks = 0.25, count()
    fal.fault("status", Json(lambda reply: {} if next(looks) % 2 else reply), times=FOREVER)
    assert goes_on_through(fal).num_frames == 9
    assert next(looks) > 16


def test_a_word_that_is_not_known_is_a_job_that_runs_until_the_wait_limit(fal: FalStandIn) -> None:
    fal.fault("status", Json(paused), times=20)
    assert goes_on_through(fal).num_frames == 9
    fal.fault("status", Json(paused), times=FOREVER)
    request = replace(REQUEST, seed=8)
    with pytest.raises(JobKeptError, match="has not finished the job within"):
        run(make(fal, request, policy=BRIEF))
    fal.clear_faults()
    assert run(make(fal, request)).num_frames == 9
    assert fal.accepted == 2


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_failed_state_has_its_reason_in_the_result(fal: FalStandIn, state: str) -> None:
    fal.fault("status", saying(state), times=FOREVER)
    fal.fail_next(SERVER_ERROR)
    error = failed(fal, FalError)
    assert (error.stage, error.status, error.error_type) == ("result", 500, "internal_server_error")
    assert records_of(fal) == []
    assert fal.accepted == 1


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_failed_state_with_a_video_gives_the_video(fal: FalStandIn, state: str) -> None:
    fal.fault("status", saying(state), times=FOREVER)
    assert goes_on_through(fal).num_frames == 9


@pytest.mark.parametrize("fault", [Reset(), ingress(503)], ids=short_name)
def test_trouble_beyond_the_tries_of_one_read_is_shown_and_passes(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=20)
    observer = Recorder()
    assert goes_on_through(fal, observer=observer).num_frames == 9
    assert any("trouble" in message for message in observer.messages)


@pytest.mark.parametrize("fault", [NOT_FOUND, Relabel(404)], ids=["documented body", "header"])
def test_a_job_that_fal_itself_does_not_know_for_long_has_expired(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=FOREVER)
    begun = time.monotonic()
    error = failed(fal, JobExpiredError)
    assert time.monotonic() - begun >= FAST.gone_patience
    assert (error.stage, error.status) == ("status", 404)
    is_blocked(fal)


@pytest.mark.parametrize(
    "fault",
    [ingress(404), Reply(404, body={"detail": "Not Found"}), Reply(404), Reply(410)],
    ids=["page", "detail", "empty", "410"],
)
def test_a_404_of_something_on_the_way_says_nothing_of_the_job(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("status", fault, times=40)
    assert goes_on_through(fal).num_frames == 9


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("stage", ["status", "result"])
def test_a_key_that_is_refused_pauses_the_job(fal: FalStandIn, stage: str, status: int) -> None:
    fal.fault(stage, Reply(status, body={"detail": f"No user found for {fal.key}"}), times=FOREVER)
    error = failed(fal, JobKeptError)
    assert (error.stage, error.status) == (stage, status)
    assert "FAL_KEY" in str(error)
    assert "billing" in str(error)
    assert len(fal.requests(stage)) == 3
    assert record_of(fal).state is JobState.SUBMITTED
    assert fal.requests("cancel") == []
    assert goes_on(fal).num_frames == 9


@pytest.mark.quick(1)
@pytest.mark.sample(6)
@pytest.mark.parametrize("stage", ["status", "result"])
@pytest.mark.parametrize("value", ["1", pytest.param("date", marks=pytest.mark.slow), "", "0", "-5", "soon"])
def test_429_slows_down_and_passes(fal: FalStandIn, stage: str, value: str) -> None:
    headers = {"retry-after": value} if value else {}
    fault = RetryAt(2) if value == "date" else Reply(429, headers, {"detail": "Too many requests"})
    fal.fault(stage, fault, times=2)
    assert goes_on_through(fal).num_frames == 9
    times = [exchange.time for exchange in fal.requests(stage)]
    if value in ("1", "date", "0"):
        assert times[1] - times[0] > 0.9


def test_a_content_type_that_is_no_text_for_a_terminal_is_made_one(fal: FalStandIn) -> None:
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
def test_logs_of_every_kind_are_shown_in_bounds(fal: FalStandIn, logs: Any) -> None:
    fal.fault("status", with_fields(logs=logs), times=FOREVER)
    observer = Recorder()
    assert goes_on_through(fal, observer=observer).num_frames == 9
    assert all(message.isprintable() and len(message) < 300 for message in observer.messages)
    assert any(message.startswith("Running at fal") for message in observer.messages)


@pytest.mark.parametrize("code", [200, 202, 201])
def test_the_body_tells_the_state_and_not_the_code(fal: FalStandIn, code: int) -> None:
    fal.fault("status", Relabel(code), times=FOREVER)
    assert goes_on_through(fal).num_frames == 9
    assert {exchange.status for exchange in fal.requests("status")} == {code}
    assert len(fal.requests("status")) == 7


@pytest.mark.parametrize("queue_seconds", [0, math.inf])
def test_a_job_that_never_ends_is_kept_and_not_cancelled(fal: FalStandIn, queue_seconds: float) -> None:
    fal.queue_seconds, fal.run_seconds = queue_seconds, math.inf
    error = failed(fal, JobKeptError, policy=BRIEF)
    assert error.stage == "status"
    assert "has not finished" in str(error)
    assert fal.requests("cancel") == []
    assert record_of(fal).state is JobState.SUBMITTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_looks_at_a_job_have_pauses_between(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    fal.fault("status", Meanwhile(what=lambda: fal.complete(only_id(fal)), accept=True), after=9)
    assert goes_on_through(fal, policy=policy_with(poll_intervals=((0, 0.05), (0.3, 0.2)))).num_frames == 9
    times = [exchange.time for exchange in fal.requests("status")]
    pauses = [(moment - times[0], after - moment) for moment, after in pairwise(times)]
    late = [pause for since, pause in pauses if since >= 0.3]
    assert len(pauses) == 10
    assert all(pause > 0.79 * 0.05 for _, pause in pauses)
    # The stand-in may see the last look before the change a little later than the client counts it.
    assert len(late) > 1
    assert all(pause > 0.79 * 0.2 for pause in late[1:])


@pytest.mark.parametrize(("waited", "pause"), [(0, 1), (9.9, 1), (10, 2), (59.9, 2), (60, 5), (3600, 5)])
def test_the_longer_a_job_takes_the_longer_are_the_pauses(waited: float, pause: float) -> None:
    assert NetworkPolicy().poll_interval(waited) == pause


def test_a_server_that_starts_again_is_followed_on(fal: FalStandIn) -> None:
    assert goes_on_through(fal, observer=Watcher("Running", fal.restart)).num_frames == 9
    assert len(fal.connects) > 3


def test_a_server_that_is_away_for_a_while_is_waited_for(fal: FalStandIn) -> None:
    def go_away() -> None:
        fal.close_port()
        threading.Timer(0.5, fal.open_port).start()

    assert goes_on_through(fal, observer=Watcher("Running", go_away)).num_frames == 9


def test_an_unknown_submission_is_reported_while_it_is_not_listed(fal: FalStandIn) -> None:
    fal.listed = "completed"
    fal.fault("submit", Reset(accept=True))
    with pytest.raises(OutcomeUnknownError):
        run(make(fal))
    fal.clock.advance(100)
    assert goes_on(fal).num_frames == 9
