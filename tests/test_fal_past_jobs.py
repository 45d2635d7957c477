"""Videos that were paid for and that no run asks for any more."""

import asyncio
import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Reset, content_policy
from cosmos_predict25.pipeline.errors import JobKeptError
from cosmos_predict25.pipeline.fal import NetworkPolicy
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.pipeline.fal.past_jobs import fetch_past_jobs, tell_news
from cosmos_predict25.tests.fal import (
    BRIEF,
    REQUEST,
    Recorder,
    StoppedError,
    error_of,
    journal_of,
    make,
    policy_with,
    records_of,
    run,
    videos_of,
)


def leave(fal: FalStandIn, *seeds: int, **options: Any) -> None:
    """A job for each seed that goes on at fal, and that no run follows any more."""
    fal.run_seconds = math.inf
    for seed in seeds:
        with pytest.raises(JobKeptError, match=rf"not finished .* Seed: {seed}\.$"):
            run(make(fal, replace(REQUEST, seed=seed), **{"policy": BRIEF, **options}))
    fal.run_seconds = 5


def complete(fal: FalStandIn) -> None:
    for request_id in fal.jobs:
        fal.complete(request_id)


def fetch(fal: FalStandIn, policy: NetworkPolicy = FAST) -> list[int | None]:
    """The seeds of what was fetched. No job was sent for it."""
    sent = len(fal.requests("submit"))
    found = run(fetch_past_jobs(journal_of(fal), videos_of(fal), policy=policy))
    assert len(fal.requests("submit")) == sent
    return [video.seed for video in found]


def seeds_on_disk(fal: FalStandIn) -> list[int]:
    return sorted(int(path.name.split("_")[1]) for path in videos_of(fal).glob("cosmos_*"))


def test_videos_that_other_values_have_left_are_fetched_and_told_once(fal: FalStandIn) -> None:
    leave(fal, 7, 9)
    complete(fal)
    run(make(fal, replace(REQUEST, seed=11)))
    assert fetch(fal) == [7, 9]
    assert seeds_on_disk(fal) == [7, 9, 11]
    assert (fal.accepted, records_of(fal)) == (3, [])
    told = "2 videos that you paid for before were fetched too (seeds 7, 9)."
    assert [run(tell_news(journal_of(fal))) for _ in range(2)] == [told, ""]
    asked = len(fal.journal)
    assert run(make(fal, replace(REQUEST, seed=9))).num_frames == 9
    assert len(fal.journal) == asked


def test_one_video_is_told_as_one(fal: FalStandIn) -> None:
    leave(fal, 7)
    complete(fal)
    fetch(fal)
    assert run(tell_news(journal_of(fal))) == "1 video that you paid for before was fetched too (seed 7)."


def test_without_an_unfinished_job_nothing_is_asked_and_no_key_is_needed(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make(fal))
    before = len(fal.journal), len(fal.connects)
    monkeypatch.delenv("FAL_KEY")
    assert fetch(fal) == []
    assert (len(fal.journal), len(fal.connects)) == before


def test_a_job_that_still_runs_is_waited_for(fal: FalStandIn) -> None:
    fal.queue_seconds = math.inf
    leave(fal, 7)

    async def work() -> list[int | None]:
        fetching = asyncio.ensure_future(fetch_past_jobs(journal_of(fal), videos_of(fal), policy=FAST))
        looks = len(fal.requests("status"))
        await asyncio.to_thread(fal.wait_for, lambda: len(fal.requests("status")) > looks + 3)
        complete(fal)
        return [video.seed for video in await fetching]

    assert run(work()) == [7]


def test_a_run_has_its_job_and_can_stop_it_while_past_jobs_are_fetched(fal: FalStandIn) -> None:
    fal.queue_seconds = math.inf
    leave(fal, 7, 9)
    # Longer than the run waits: past jobs that kept their lock until then would be seen only now and then.
    policy = policy_with(poll_intervals=((0, 0.1),), wait_limit=3600)

    async def work() -> None:
        looks = len(fal.requests("status"))
        fetching = asyncio.ensure_future(fetch_past_jobs(journal_of(fal), videos_of(fal), policy=policy))
        await asyncio.to_thread(fal.wait_for, lambda: len(fal.requests("status")) > looks)
        observer = Recorder(stop_at="Queued at fal")
        with pytest.raises(StoppedError):
            await make(fal, observer=observer)
        assert [job.seed for job in fal.jobs.values() if job.cancelled] == [7]
        complete(fal)
        assert [video.seed for video in await fetching] == [9]

    run(work())
    assert fal.accepted == 2


def test_two_programs_fetch_a_video_once(fal: FalStandIn) -> None:
    leave(fal, 7)
    complete(fal)

    async def work() -> list[Any]:
        return await asyncio.gather(*(fetch_past_jobs(journal_of(fal), videos_of(fal), policy=FAST) for _ in range(3)))

    assert sorted(map(len, run(work()))) == [0, 0, 1]
    assert len(fal.requests("media")) == 1


def test_a_job_whose_answer_was_lost_is_found_and_fetched(fal: FalStandIn) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", Reset(), times=FOREVER)
    error_of(fal)
    fal.clear_faults()
    assert fetch(fal) == [7]
    assert (fal.accepted, records_of(fal)) == (1, [])


def test_a_job_that_failed_or_was_cancelled_is_over_and_no_new_one_is_sent(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    fal.fail_next(content_policy)
    leave(fal, 7)
    complete(fal)
    assert fetch(fal) == []
    assert records_of(fal) == []
    assert "with seed 7, gave no video" in caplog.text
    assert seeds_on_disk(fal) == []


@pytest.mark.parametrize("format", ["X264 (.mp4)", "VP9 (.webm)", "GIF (.gif)"])
def test_a_record_of_before_that_does_not_name_the_kind_of_file_is_fetched(fal: FalStandIn, format: str) -> None:
    fal.run_seconds = math.inf
    request = replace(REQUEST, video_output_type=format)
    with pytest.raises(JobKeptError):
        run(make(fal, request, policy=BRIEF))
    (path,) = journal_of(fal).folder.glob("*.json")
    values = json.loads(path.read_text())
    del values["suffix"], values["charges"]
    path.write_text(json.dumps(values, indent=1))
    complete(fal)
    assert fetch(fal) == [7]
    run(make(fal, request))
    assert fal.accepted == 1


def test_an_expired_job_is_not_asked_for_again(fal: FalStandIn) -> None:
    leave(fal, 7)
    fal.restart(forget=True)
    assert fetch(fal) == []
    assert [record.state for record in records_of(fal)] == [JobState.EXPIRED]
    asked = len(fal.journal)
    assert fetch(fal) == []
    assert len(fal.journal) == asked


def test_the_look_for_unfinished_jobs_brings_no_network_library() -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cosmos_predict25.pipeline.fal.journal import Journal\n"
        "assert Journal(Path('nowhere')).unfinished() == []\n"
        "heavy = {'torch', 'numpy', 'av', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
