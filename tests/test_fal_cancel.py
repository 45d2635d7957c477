"""Stop, and the cancellation of a job at fal."""

import asyncio
import math
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST, NOT_FOUND
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    Drip,
    FalStandIn,
    Fault,
    GzipBomb,
    Hang,
    Redirect,
    Relabel,
    Reply,
    Reset,
    Stall,
    Truncate,
    ingress,
)
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError
from cosmos_predict25.pipeline.fal import Cancellation, FalClient, Journal
from cosmos_predict25.pipeline.fal.journal import JobState, Record
from cosmos_predict25.tests.fal import (
    APP,
    BRIEF,
    ENDPOINT,
    PROMPT,
    Meanwhile,
    Recorder,
    StoppedError,
    Watcher,
    failed,
    goes_on,
    make,
    only_id,
    policy_for,
    policy_with,
    record_of,
    records_of,
    run,
    short_name,
    videos_of,
)


def stopped(fal: FalStandIn, observer: Recorder, **options: Any) -> None:
    """A run ends as the observer wants."""
    with pytest.raises(StoppedError):
        run(make(fal, observer=observer, **options))
    assert not list(fal.folder.parent.rglob("*.part"))


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


def stop_in_a_long_run(fal: FalStandIn, **options: Any) -> float:
    fal.run_seconds = math.inf
    return stopped(fal, Recorder("Running"), **options)


def test_stop_in_the_queue_cancels_the_job(fal: FalStandIn) -> None:
    fal.queue_seconds = math.inf
    stopped(fal, Recorder("Queued"))
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 200
    assert_nothing_is_left(fal)


def test_a_video_that_comes_in_spite_of_a_cancellation_is_kept(fal: FalStandIn) -> None:
    fal.cancelled = "completes"
    fal.fault("cancel", Meanwhile(what=lambda: fal.complete(only_id(fal)), accept=True))
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 202
    assert_is_there(fal)


@pytest.mark.parametrize("cancelled", ["vanishes", "ends"])
def test_a_cancelled_job_leaves_nothing(fal: FalStandIn, cancelled: Any) -> None:
    fal.cancelled = cancelled
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert fal.requests("cancel")[0].status == 202
    assert_nothing_is_left(fal)


def test_a_cancellation_of_which_nothing_is_heard_keeps_the_record(fal: FalStandIn) -> None:
    fal.cancelled = "completes"
    stop_in_a_long_run(fal, policy=policy_with(cancel_wait=0.3))
    assert_cancelled_once(fal)
    assert record_of(fal).state is JobState.CANCEL_REQUESTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_a_cancellation_that_has_its_effect_later_makes_room_for_a_new_job(fal: FalStandIn) -> None:
    fal.fault("cancel", Meanwhile(what=lambda: fal.fault("status", ingress(503), FOREVER), accept=True))
    stop_in_a_long_run(fal, policy=policy_with(cancel_wait=0.3))
    assert record_of(fal).state is JobState.CANCEL_REQUESTED
    fal.clear_faults()
    fal.run_seconds = 0
    observer = Recorder()
    assert run(make(fal, observer=observer)).num_frames == 9
    assert any("cancelled, so a new one is sent" in message for message in observer.messages)
    assert fal.accepted == 2
    assert records_of(fal) == []


def test_a_job_that_had_ended_before_it_was_cancelled_gives_its_video(fal: FalStandIn) -> None:
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


def test_a_job_that_cancel_does_not_know_may_still_give_its_video(fal: FalStandIn) -> None:
    fal.fault("cancel", Meanwhile(fault=NOT_FOUND, what=lambda: fal.complete(only_id(fal))))
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert_is_there(fal)


@pytest.mark.slow
def test_a_job_that_this_key_cannot_see_is_not_sent_again_after_stop(fal: FalStandIn) -> None:
    """fal's 404 to the cancellation says nothing of what became of the job: it may be another account's."""
    fal.run_seconds = math.inf
    failed(fal, JobKeptError, policy=BRIEF)
    fal.fault("status", NOT_FOUND, times=FOREVER)
    fal.fault("cancel", NOT_FOUND, times=FOREVER)
    observer = Watcher("Looking", lambda: observer.stop())
    stopped(fal, observer, policy=policy_with(gone_patience=math.inf, cancel_wait=0.3))
    assert record_of(fal).state is JobState.SUBMITTED
    assert "not known yet: run the same again" in observer.messages[-1]
    failed(fal, JobExpiredError)
    fal.complete(only_id(fal))
    goes_on(fal)


def test_what_came_of_stop_is_shown_where_fal_does_not_cancel(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    fal.fault("cancel", Reply(403, body={"detail": "not yours"}))
    observer = Recorder("Running")
    stopped(fal, observer)
    assert observer.messages[-1].startswith(
        "Stopped, but not cancelled: run the same again for its video. fal did not cancel the job: not yours (HTTP 403)"
    )
    assert record_of(fal).state is JobState.SUBMITTED


def test_a_cancelled_job_that_vanishes_leaves_nothing(fal: FalStandIn) -> None:
    fal.cancelled = "vanishes"
    fal.fault("cancel", Reset(accept=True))
    stop_in_a_long_run(fal)
    assert [exchange.status for exchange in fal.requests("cancel")] == [None, 404]
    assert_nothing_is_left(fal)


def test_the_other_form_of_a_cancellation_is_understood(fal: FalStandIn) -> None:
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


@pytest.mark.parametrize("fault", TROUBLE, ids=short_name)
def test_a_cancellation_is_tried_three_times(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("cancel", fault, times=2)
    stop_in_a_long_run(fal, policy=policy_for(fault))
    assert len(fal.requests("cancel")) == 3
    assert_nothing_is_left(fal)


@pytest.mark.parametrize("fault", TROUBLE, ids=short_name)
def test_a_job_that_could_not_be_cancelled_is_kept(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("cancel", fault, times=FOREVER)
    stop_in_a_long_run(fal, policy=policy_for(fault))
    assert len(fal.requests("cancel")) == 3
    assert record_of(fal).state is JobState.SUBMITTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize(
    "fault", [Reply(401), Reply(403), Redirect(307, "https://evil.example/"), Reply(418)], ids=short_name
)
def test_a_refusal_is_not_repeated(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("cancel", fault, times=FOREVER)
    stop_in_a_long_run(fal)
    assert_cancelled_once(fal)
    assert record_of(fal).state is JobState.SUBMITTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_a_cancellation_whose_answer_was_lost_is_one(fal: FalStandIn) -> None:
    fal.fault("cancel", Reset(accept=True))
    stop_in_a_long_run(fal)
    assert [exchange.status for exchange in fal.requests("cancel")] == [None, 400]
    assert_nothing_is_left(fal)


def test_stop_while_the_job_is_being_sent_cancels_it_once_its_id_is_known(fal: FalStandIn) -> None:
    fal.queue_seconds, observer = math.inf, Recorder()
    fal.fault("submit", Meanwhile(what=observer.stop, fault=Hang(0.7), accept=True))
    stopped(fal, observer)
    assert_cancelled_once(fal)
    stages = [exchange.stage for exchange in fal.journal if exchange.stage in ("submit", "cancel")]
    assert stages == ["submit", "cancel"]
    assert fal.requests("submit")[0].outcome == "replied"
    assert_nothing_is_left(fal)


@pytest.mark.quick(1)
@pytest.mark.parametrize("fault", [Hang(accept=True), Stall(20), Drip(0.1)], ids=short_name)
def test_stop_while_the_job_is_being_sent_and_the_answer_is_lost_looks_for_the_job_and_cancels_it(
    fal: FalStandIn, fault: Fault
) -> None:
    fal.run_seconds, observer = math.inf, Recorder()
    fal.fault("submit", Meanwhile(what=observer.stop, fault=fault, accept=True))
    stopped(fal, observer, policy=policy_with(submit_deadline=2))
    assert_cancelled_once(fal)
    assert_nothing_is_left(fal)


def test_stop_while_the_answer_is_lost_and_the_job_cannot_be_found_keeps_the_record(fal: FalStandIn) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    stopped(fal, Recorder("Looking"), policy=policy_with(reconcile_pauses=(0, 3600), cancel_wait=0.3))
    assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    assert fal.requests("cancel") == []
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("page", [ingress(404), NOT_FOUND], ids=["page", "fal itself"])
def test_a_job_that_could_not_be_cancelled_is_not_taken_for_a_cancelled_one(fal: FalStandIn, page: Fault) -> None:
    """One 404 once the network is back."""
    fal.fault("cancel", Reset(), times=3)
    stop_in_a_long_run(fal)
    fal.fault("status", page)
    fal.complete(only_id(fal))
    observer = Recorder()
    assert run(make(fal, observer=observer)).num_frames == 9
    assert (fal.accepted, len(fal.requests("submit"))) == (1, 1)


def test_a_page_on_the_way_is_no_confirmation_of_a_cancellation(fal: FalStandIn) -> None:
    fal.fault("cancel", ingress(404), times=FOREVER)
    stop_in_a_long_run(fal)
    assert record_of(fal).state is JobState.SUBMITTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_stop_with_a_full_disk_cancels_the_job_and_ends_as_an_interruption(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: Journal, record: Record) -> None:
        raise JobKeptError("The records of jobs cannot be written.", stage="journal")

    fal.run_seconds = math.inf
    observer = Watcher("Running", lambda: (monkeypatch.setattr(Journal, "save", full), observer.stop()))
    stopped(fal, observer)
    assert_cancelled_once(fal)
    assert fal.jobs[only_id(fal)].cancelled


def test_stop_with_a_disk_that_fills_while_the_job_is_sent_cancels_it(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(journal: Journal, record: Record) -> None:
        raise JobKeptError("The records of jobs cannot be written.", stage="journal")

    def fill_and_stop() -> None:
        monkeypatch.setattr(Journal, "save", full)
        observer.stop()

    fal.run_seconds, observer = math.inf, Recorder()
    fal.fault("submit", Meanwhile(what=fill_and_stop, fault=Hang(0.5), accept=True))
    stopped(fal, observer)
    assert_cancelled_once(fal)


@pytest.mark.parametrize("status", [401, 422])
def test_stop_while_a_job_is_being_sent_that_is_refused_leaves_nothing(fal: FalStandIn, status: int) -> None:
    fal.fault("connect", Hang(0.5), times=2)
    fal.fault("submit", Reply(status, body={"detail": "no"}))
    stopped(fal, Recorder("Sending"))
    assert fal.requests("cancel") == []
    assert records_of(fal) == []
    assert fal.accepted == 0


def test_a_job_that_was_stopped_twice_still_gives_its_video(fal: FalStandIn) -> None:
    fal.cancelled = "completes"
    for number in (1, 2):
        stop_in_a_long_run(fal, policy=policy_with(cancel_wait=0.3))
        assert [exchange.status for exchange in fal.requests("cancel")] == [202] * number
        assert record_of(fal).state is JobState.CANCEL_REQUESTED
    fal.complete(only_id(fal))
    assert goes_on(fal).num_frames == 9


def test_stop_before_anything_was_sent_costs_nothing(fal: FalStandIn) -> None:
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
    assert record_of(fal).result
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
    ids=short_name,
)
def test_each_answer_to_a_cancellation_is_understood(
    fal: FalStandIn, fault: Fault, answer: Cancellation | None
) -> None:
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
def test_a_job_that_is_cancelled_twice_was_too_late_the_second_time(
    fal: FalStandIn, polls: int, first: Cancellation
) -> None:
    async def cancel() -> list[Cancellation]:
        async with FalClient(policy=FAST) as client:
            job = await client.submit(ENDPOINT, {"prompt": PROMPT})
            fal.clock.advance(polls)
            return [await client.cancel(job), await client.cancel(job)]

    assert run(cancel()) == [first, Cancellation.TOO_LATE]


@pytest.mark.parametrize("text", ["Sent to fal", "Queued", "Running", "Downloading"])
def test_cancelling_the_task_leaves_the_job_running(fal: FalStandIn, text: str) -> None:
    fal.clock.per_poll = 1

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
    fal.fault("submit", Hang(accept=True))

    async def cancel() -> None:
        task = asyncio.ensure_future(make(fal))
        while not fal.accepted:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.to_thread(fal.release)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    assert record_of(fal).request_id == only_id(fal)
    assert record_of(fal).state is JobState.SUBMITTED
    assert fal.requests("cancel") == fal.requests("status") == []
    assert goes_on(fal).num_frames == 9
