"""Before a job is sent, fal's list is looked through once for one with the same input: nobody pays for it twice."""

import asyncio
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosmos_predict25.devtools.fal_faults import NOT_FOUND
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Fault, Hang, Reply, content_policy, ingress
from cosmos_predict25.pipeline.errors import JobExpiredError
from cosmos_predict25.pipeline.fal import IMAGE_TO_VIDEO, Journal
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.pipeline.fal.start import png_of
from cosmos_predict25.tests.fal import (
    LOOKING,
    REQUEST,
    Recorder,
    StoppedError,
    end_at,
    journal_of,
    make,
    only_id,
    policy_with,
    records_of,
    run,
    videos_of,
)


def png(level: int) -> bytes:
    return png_of(torch.full((64, 96, 3), level, dtype=torch.uint8))


def another(fal: FalStandIn) -> dict[str, Any]:
    """The folders of another ComfyUI."""
    return {"folder": fal.folder.parent / "other videos", "journal": Journal(fal.folder.parent / "other journal")}


def look(fal: FalStandIn, **options: Any) -> Any:
    return make(fal, **{"policy": LOOKING, **options})


def dies_with_its_job_running(fal: FalStandIn, **options: Any) -> None:
    run(end_at(fal, lambda _: fal.requests("status"), "cancel", **{**another(fal), **options}))
    assert fal.accepted == 1


@pytest.mark.parametrize("is_shared", [True, False], ids=["one output folder", "two"])
def test_the_job_of_a_comfyui_that_died_is_taken_up(fal: FalStandIn, is_shared: bool) -> None:
    fal.queue_seconds = 1e6
    dies_with_its_job_running(fal, **({"folder": videos_of(fal)} if is_shared else {}))
    fal.complete(only_id(fal))
    observer = Recorder()
    assert run(look(fal, observer=observer)).num_frames == 9
    assert [message for message in observer.messages if "sent by another run" in message]
    assert (fal.accepted, records_of(fal)) == (1, [])
    (record,) = journal_of(fal).records()
    assert (record.state, record.request_id, record.is_shared) == (JobState.DONE, only_id(fal), True)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_new_installation_pays_for_nothing_that_fal_lists(fal: FalStandIn, is_stored: bool) -> None:
    run(look(fal, store=is_stored))
    for folder in (videos_of(fal), journal_of(fal).folder):
        shutil.rmtree(folder)
    run(look(fal, store=is_stored))
    assert fal.accepted == (1 if is_stored else 2)


def test_another_seed_prompt_or_endpoint_is_another_job(fal: FalStandIn) -> None:
    run(look(fal))
    for change in ({"seed": 8}, {"prompt": "Another."}, {"num_frames": 13}):
        run(look(fal, request=replace(REQUEST, **change)))
    run(look(fal, request=REQUEST, endpoint=IMAGE_TO_VIDEO, media=png(1)))
    assert fal.accepted == 5


def test_a_start_is_the_same_by_its_content_and_not_by_its_address(fal: FalStandIn) -> None:
    start = {"endpoint": IMAGE_TO_VIDEO, "media": png(1)}
    run(look(fal, **start, **another(fal)))
    run(look(fal, **start))
    assert (fal.accepted, len(fal.uploads)) == (1, 1)
    for other in (png(2), png(200)):
        run(look(fal, endpoint=IMAGE_TO_VIDEO, media=other))
    assert fal.accepted == 3


def fails(fal: FalStandIn) -> None:
    with pytest.raises(Exception, match="content"):
        run(look(fal, **another(fal)))


def is_stopped(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    with pytest.raises(StoppedError):
        run(look(fal, observer=Recorder("Running"), **another(fal)))
    fal.run_seconds = 5


@pytest.mark.parametrize("ends", [fails, is_stopped], ids=["failed", "stopped"])
def test_a_job_that_is_over_without_a_video_is_not_taken_up(
    fal: FalStandIn, ends: Callable[[FalStandIn], None]
) -> None:
    if ends is fails:
        fal.fail_next(content_policy)
    ends(fal)
    assert run(look(fal)).num_frames == 9
    assert fal.accepted == 2


def test_two_living_runs_share_one_job_and_stop_of_one_leaves_it_to_the_other(fal: FalStandIn) -> None:
    fal.queue_seconds = 1e6
    observer = Recorder()

    async def both() -> Any:
        owner = asyncio.ensure_future(look(fal, **another(fal)))
        while not fal.requests("status"):
            await asyncio.sleep(0.01)
        sharer = asyncio.ensure_future(look(fal, observer=observer))
        while not any("Queued" in message for message in observer.messages):
            await asyncio.sleep(0.01)
        observer.stop()
        with pytest.raises(StoppedError):
            await sharer
        fal.complete(only_id(fal))
        return await owner

    assert run(both()).num_frames == 9
    assert fal.requests("cancel") == []
    assert "Another run sent the job, so it goes on" in observer.messages[-1]
    assert run(look(fal)).num_frames == 9
    assert fal.accepted == 1


@pytest.mark.parametrize("cancelled", ["ends", "vanishes"])
def test_a_shared_job_that_the_other_run_cancels_is_sent_anew(fal: FalStandIn, cancelled: Any) -> None:
    fal.queue_seconds, fal.cancelled = 1e6, cancelled
    owner, sharer = Recorder(), Recorder()

    async def both() -> Any:
        owning = asyncio.ensure_future(look(fal, observer=owner, **another(fal)))
        while not fal.requests("status"):
            await asyncio.sleep(0.01)
        sharing = asyncio.ensure_future(look(fal, observer=sharer))
        while not any("Queued" in message for message in sharer.messages):
            await asyncio.sleep(0.01)
        fal.queue_seconds = 2
        owner.stop()
        with pytest.raises(StoppedError):
            await owning
        return await sharing

    assert run(both()).num_frames == 9
    assert fal.accepted == 2
    assert records_of(fal) == []


def test_a_record_that_the_user_deleted_as_he_was_told_lets_a_new_job_be_sent(fal: FalStandIn) -> None:
    made: Path = run(look(fal)).path
    made.unlink()
    fal.fault("media", NOT_FOUND, times=FOREVER)
    fal.fault("result", NOT_FOUND, times=FOREVER)
    with pytest.raises(JobExpiredError, match=r"delete .*\.json and run the same again"):
        run(look(fal))
    fal.clear_faults()
    (record,) = journal_of(fal).folder.glob("*.json")
    record.unlink()
    run(look(fal))
    assert fal.accepted == 2


@pytest.mark.parametrize("fault", [Hang(), ingress(), Reply(401), Reply(200, body={"items": None})], ids=str)
def test_a_list_that_cannot_be_had_does_not_hold_up_a_job(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("listing", fault)
    policy = policy_with(look_time=0.3) if isinstance(fault, Hang) else LOOKING
    assert run(make(fal, policy=policy)).num_frames == 9
    fal.release()
    assert fal.accepted == 1


def test_stop_while_it_looks_sends_nothing(fal: FalStandIn) -> None:
    fal.fault("listing", Hang())
    run(end_at(fal, lambda _: fal.requests("listing"), "stop", policy=replace(LOOKING, look_time=math.inf)))
    fal.release()
    assert (fal.accepted, fal.requests("submit"), records_of(fal)) == (0, [], [])
