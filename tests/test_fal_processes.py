"""Several runs at once, in threads and processes, and runs that are killed: one video is one job."""

import asyncio
import signal
from dataclasses import replace
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_standin import FalStandIn, Hang
from cosmos_predict25.pipeline.errors import OutcomeUnknownError
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.tests import fal_worker
from cosmos_predict25.tests.fal import REQUEST, check_one_job, error_of, make, record_of, records_of, run, start
from cosmos_predict25.tests.posix import only_posix


@pytest.mark.quick(2)
@only_posix
@pytest.mark.parametrize(
    ("kill_at", "accepted_then", "end"),
    [
        ("Sending the job", 0, "OutcomeUnknownError"),
        ("Sent to fal", 1, "video"),
        ("Running at fal", 1, "video"),
        ("Downloading", 1, "video"),
    ],
)
def test_a_killed_process_is_gone_on_with(fal: FalStandIn, kill_at: str, accepted_then: int, end: str) -> None:
    assert fal_worker.outcome_of(start(fal, kill_at=kill_at)) is None
    assert fal.accepted == accepted_then
    if end == "video":
        assert run(make(fal)).num_frames == 9
        check_one_job(fal)
    else:
        assert type(error_of(fal)).__name__ == end
        assert fal.requests("submit") == []
        assert record_of(fal).state is JobState.SUBMIT_UNKNOWN


@only_posix
@pytest.mark.parametrize("moment", ["before-the-job", "after-the-job"])
def test_a_process_killed_before_the_answer_does_not_pay_twice(fal: FalStandIn, moment: str) -> None:
    fal.fault("submit", Hang(accept=moment == "after-the-job"))
    worker = start(fal)
    fal.wait_for(lambda: fal.requests("submit"))
    fal.wait_for(lambda: fal.accepted == (moment == "after-the-job"))
    worker.send_signal(signal.SIGKILL)
    assert fal_worker.outcome_of(worker) is None
    assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    fal.release()
    if moment == "after-the-job":
        run(make(fal))
        check_one_job(fal)
    else:
        assert isinstance(error_of(fal), OutcomeUnknownError)
        assert (len(fal.requests("submit")), fal.accepted) == (1, 0)


def test_two_processes_with_one_request_make_one_job(fal: FalStandIn) -> None:
    first, second = start(fal), start(fal)
    assert fal_worker.outcome_of(first) == fal_worker.outcome_of(second)
    check_one_job(fal)
    assert len(fal.requests("media")) == 1


@pytest.mark.slow
def test_two_processes_with_two_requests_make_two_jobs(fal: FalStandIn) -> None:
    workers = [start(fal, request={"seed": seed}) for seed in (1, 2)]
    assert [(fal_worker.outcome_of(worker) or {})["seed"] for worker in workers] == [1, 2]
    assert sorted(job.seed for job in fal.jobs.values()) == [1, 2]
    assert len(fal.requests("submit")) == 2
    assert records_of(fal) == []


@pytest.mark.slow
@only_posix
def test_the_lock_of_a_killed_process_does_not_hold_up_another(fal: FalStandIn) -> None:
    fal.queue_seconds = 1e6
    holder = start(fal)
    fal.wait_for(lambda: fal.requests("status"))
    waiting = start(fal)
    fal.wait_for(lambda: waiting.poll() is not None or len(fal.requests("status")) > 20)
    holder.send_signal(signal.SIGKILL)
    assert fal_worker.outcome_of(holder) is None
    fal.complete(next(iter(fal.jobs)))
    assert "video" in (fal_worker.outcome_of(waiting) or {})
    check_one_job(fal)


def test_threads_with_loops_of_their_own_beside_a_running_one(fal: FalStandIn) -> None:
    def in_thread(seed: int) -> int:
        return run(make(fal, replace(REQUEST, seed=seed))).seed

    async def main() -> list[Any]:
        threads = [asyncio.to_thread(in_thread, seed) for seed in (1, 2, 2)]
        return await asyncio.gather(make(fal), *threads)

    video, *seeds = asyncio.run(main())
    assert (video.seed, seeds) == (7, [1, 2, 2])
    assert sorted(job.seed for job in fal.jobs.values()) == [1, 2, 7]
    assert len(fal.requests("submit")) == 3
    assert records_of(fal) == []


def test_the_end_of_the_program_while_a_request_is_on_its_way_keeps_the_record(fal: FalStandIn) -> None:
    fal.fault("submit", Hang(accept=True))

    async def main() -> None:
        task = asyncio.ensure_future(make(fal))
        await asyncio.to_thread(fal.wait_for, lambda: fal.accepted == 1)
        assert not task.done()
        raise RuntimeError("the program ends")

    with pytest.raises(RuntimeError):
        asyncio.run(main())  # cancels all tasks
    assert [record.state for record in records_of(fal)] == [JobState.SUBMIT_UNKNOWN]
    fal.release()
    assert run(make(fal)).num_frames == 9
    check_one_job(fal)
