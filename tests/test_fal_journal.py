"""The journal: what is on disk at each moment of a job, and that a run goes on from there without paying again."""

import asyncio
import contextlib
import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Json, Reply, Reset, content_policy, ingress
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import DISTILLED, TEXT_TO_VIDEO, FalClient, Journal
from cosmos_predict25.pipeline.fal.journal import JobState, Record
from cosmos_predict25.pipeline.fal.submission import make_submission
from cosmos_predict25.pipeline.lock import acquire, release
from cosmos_predict25.pipeline.observer import NullObserver
from cosmos_predict25.tests import fal_worker
from cosmos_predict25.tests.fal import (
    APP,
    ENDPOINT,
    INPUT,
    PROMPT,
    QUEUE,
    REQUEST,
    Recorder,
    StoppedError,
    check_one_job,
    journal_of,
    make,
    record_of,
    records_of,
    run,
    start,
    videos_of,
)
from cosmos_predict25.tests.posix import only_posix

NEGATIVE = "Nothing that anybody else would not want either."


def record_for(fal: FalStandIn, state: JobState, **fields: Any) -> Record:
    """As a run would have left it in `state`, on disk."""
    record = make_submission(REQUEST, TEXT_TO_VIDEO, journal_of(fal), videos_of(fal)).new_record()
    record.state = state
    for name, value in fields.items():
        setattr(record, name, value)
    journal_of(fal).save(record)
    return record


def submit_job(fal: FalStandIn) -> dict[str, Any]:
    """A job that fal has accepted, as the fields of a record."""

    async def work() -> dict[str, Any]:
        async with FalClient(policy=FAST) as client:
            return asdict(await client.submit(ENDPOINT, INPUT))

    return run(work())


def result_of(fal: FalStandIn) -> dict[str, Any]:
    """What fal gives for its only job, which is completed."""
    (job,) = fal.jobs.values()
    fal.complete(job.request_id)
    return {"video": {"url": f"https://v3b.fal.media{job.media_path}", "content_type": "video/mp4"}, "seed": 7}


def at_each_stage(fal: FalStandIn, look: Callable[[str], None]) -> None:
    """Calls `look` in the stand-in while the first request of each stage waits for its reply."""

    def looking(stage: str) -> Callable[[Any], None]:
        return lambda _: look(stage)

    for stage in ("submit", "status", "result"):
        fal.fault(stage, Json(looking(stage)))


def names_in(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


# What is on disk, and when


def test_the_record_is_on_disk_before_the_job_is_sent(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    really_flush = os.fsync

    def flush(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        really_flush(descriptor)

    seen: list[tuple[Record, set[int], int, int]] = []
    folder = journal_of(fal).folder

    def look(_: Any) -> None:
        (path,) = folder.glob("*.json")
        inodes = {path.stat().st_ino, folder.stat().st_ino}
        modes = [stat.S_IMODE(file.stat().st_mode) for file in (path, folder)]
        seen.append((record_of(fal), inodes - flushed, *modes))

    monkeypatch.setattr(os, "fsync", flush)
    old = os.umask(0)
    try:
        fal.fault("submit", Json(look))
        run(make(fal))
    finally:
        os.umask(old)
    ((record, not_flushed, file_mode, folder_mode),) = seen
    assert (record.state, record.request_id) == (JobState.SUBMIT_UNKNOWN, None)
    assert not_flushed == set()
    assert (file_mode, folder_mode) == (0o600, 0o700)


def test_the_request_id_is_on_disk_before_anything_else_happens(fal: FalStandIn) -> None:
    seen: dict[str, Record] = {}
    at_each_stage(fal, lambda stage: seen.update({stage: record_of(fal)}))

    class Looking(Recorder):
        def progress(self, message: str, done: int, total: int, latents: Any = None) -> None:
            if fal.accepted and "Sending" not in message and "told" not in seen:
                seen["told"] = record_of(fal)

    run(make(fal, observer=Looking()))
    (request_id,) = fal.jobs
    assert [seen[stage].request_id for stage in ("told", "status", "result")] == [request_id] * 3
    assert seen["told"].state is JobState.SUBMITTED
    base = f"{QUEUE}/{APP}/requests/{request_id}"
    record = seen["told"]
    assert (record.status_url, record.response_url, record.cancel_url) == (f"{base}/status", base, f"{base}/cancel")


def test_the_result_is_on_disk_before_the_download_and_the_record_until_the_file_is(fal: FalStandIn) -> None:
    fal.fault("media", Reset(), times=FOREVER)
    with pytest.raises(JobKeptError):
        run(make(fal))
    record = record_of(fal)
    (job,) = fal.jobs.values()
    assert record.result
    assert record.result["video"]["url"] == f"https://v3b.fal.media{job.media_path}"
    assert names_in(videos_of(fal), "") == []

    fal.clear_faults()
    video = run(make(fal))
    assert names_in(videos_of(fal), "") == [video.path.name]
    assert records_of(fal) == []
    assert (len(fal.requests("submit")), len(fal.requests("result"))) == (1, 1)


def test_neither_prompt_nor_key_is_in_the_journal_at_any_moment(fal: FalStandIn) -> None:
    seen: list[bytes] = []

    def look(stage: str) -> None:
        seen.extend(path.read_bytes() for path in journal_of(fal).folder.iterdir())

    at_each_stage(fal, look)
    fal.fail_next(content_policy)
    with pytest.raises(FalError):
        run(make(fal, replace(REQUEST, negative_prompt=NEGATIVE), webhook_url="https://example.com/?secret-of-mine"))
    texts = (PROMPT, NEGATIVE, "secret-of-mine", *fal.key.split(":"))
    assert len(seen) >= 3
    assert [text for text in texts for content in seen if text.encode() in content] == []


@pytest.mark.parametrize("end", ["video", "refused", "failed"])
def test_no_record_is_left_of_what_has_ended(fal: FalStandIn, end: str) -> None:
    if end == "refused":
        fal.locked = True
    if end == "failed":
        fal.fail_next(content_policy)
    if end == "video":
        run(make(fal))
    else:
        with pytest.raises(FalError):
            run(make(fal))
    assert records_of(fal) == names_in(journal_of(fal).folder, ".part") == []


def test_a_refused_job_whose_record_cannot_be_removed_can_be_sent_again(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, while another program reads it."""
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".json":
            raise PermissionError(13, "The process cannot access the file")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    fal.locked = True
    with pytest.raises(FalError, match="no charge"):
        run(make(fal))
    assert [record.state for record in journal_of(fal).records()] == [JobState.ENDED]
    fal.locked = False
    run(make(fal))
    assert (fal.accepted, records_of(fal)) == (1, [])


def test_a_drawn_seed_is_on_disk_before_the_job_is_sent(fal: FalStandIn) -> None:
    seeds: list[int] = []
    at_each_stage(fal, lambda stage: seeds.append(record_of(fal).seed))
    video = run(make(fal, replace(REQUEST, seed=None)))
    assert set(seeds) == {video.seed}


# Going on


@pytest.mark.parametrize("is_complete", [False, True], ids=["not-complete", "complete"])
@pytest.mark.parametrize("state", [JobState.SUBMITTED, JobState.CANCEL_REQUESTED, JobState.EXPIRED])
def test_a_run_goes_on_from(fal: FalStandIn, state: JobState, is_complete: bool) -> None:
    job = submit_job(fal)
    record_for(fal, state, **job)
    if is_complete:
        fal.complete(job["request_id"])
    assert run(make(fal)).num_frames == 9
    assert len(fal.requests("submit")) == fal.accepted == 1
    assert fal.requests("cancel") == []
    assert records_of(fal) == []


@pytest.mark.parametrize("state", [JobState.SUBMITTED, JobState.CANCEL_REQUESTED, JobState.EXPIRED, JobState.DONE])
def test_a_known_result_is_only_downloaded(fal: FalStandIn, state: JobState) -> None:
    job = submit_job(fal)
    result = result_of(fal)
    record_for(fal, state, **job, result=result)
    run(make(fal))
    stages = [request.stage for request in fal.journal]
    assert [stage for stage in stages if stage not in ("pricing", "media")] == ["submit"]
    assert stages.count("media") == 1
    assert records_of(fal) == []


@pytest.mark.parametrize("result", [None, {}, {"video": None}, {"video": {"url": 5}}, {"video": [1]}], ids=str)
def test_a_result_without_a_url_is_read_again(fal: FalStandIn, result: Any) -> None:
    job = submit_job(fal)
    fal.complete(job["request_id"])
    record_for(fal, JobState.SUBMITTED, **job, result=result)
    run(make(fal))
    assert (fal.accepted, len(fal.requests("result"))) == (1, 1)


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_record_without_an_id_is_looked_for_and_never_sent(fal: FalStandIn, accepted: int) -> None:
    if accepted:
        submit_job(fal)
    record = record_for(fal, JobState.SUBMIT_UNKNOWN)
    if accepted:
        run(make(fal))
        assert records_of(fal) == []
    else:
        with pytest.raises(OutcomeUnknownError):
            run(make(fal))
        assert record_of(fal) == record
    assert fal.accepted == len(fal.requests("submit")) == accepted
    assert fal.requests("listing")


@pytest.mark.parametrize("state", [JobState.SUBMITTED, JobState.CANCEL_REQUESTED, JobState.EXPIRED])
def test_a_record_that_lost_its_id_is_not_sent_again(fal: FalStandIn, state: JobState) -> None:
    job = submit_job(fal)
    record_for(fal, state, **{**job, "request_id": None})
    with contextlib.suppress(FalError):
        run(make(fal))
    assert len(fal.requests("submit")) == 1


@pytest.mark.parametrize("cancelled", ["ends", "vanishes"])
def test_a_cancelled_job_is_over_and_the_same_request_makes_a_new_one(fal: FalStandIn, cancelled: Any) -> None:
    fal.cancelled = cancelled
    job = submit_job(fal)
    record_for(fal, JobState.CANCEL_REQUESTED, **job)

    async def cancel() -> None:
        async with FalClient(policy=FAST) as client:
            await client.cancel(client.job(ENDPOINT, job["request_id"]))

    run(cancel())
    observer = Recorder()
    run(make(fal, observer=observer))
    assert [message for message in observer.messages if "cancelled, so a new one is sent" in message]
    assert (fal.accepted, records_of(fal)) == (2, [])


def test_an_expired_job_blocks_its_request_until_the_user_deletes_the_record(fal: FalStandIn) -> None:
    job = submit_job(fal)
    record = record_for(fal, JobState.SUBMITTED, **job)
    fal.restart(forget=True)
    for _ in range(2):
        with pytest.raises(JobExpiredError, match=job["request_id"]) as caught:
            run(make(fal))
        assert f"delete {journal_of(fal).path_of(record.fingerprint)}" in str(caught.value)
        assert record_of(fal).state is JobState.EXPIRED
        assert fal.accepted == 0
    journal_of(fal).path_of(record.fingerprint).unlink()
    run(make(fal))
    assert fal.accepted == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_run_that_fal_refuses_to_answer_is_paused_and_goes_on(fal: FalStandIn, status: int) -> None:
    fal.fault("status", Reply(status, body={"detail": "Locked"}), times=FOREVER)
    with pytest.raises(JobKeptError) as caught:
        run(make(fal))
    assert (caught.value.status, [caught.value.request_id]) == (status, list(fal.jobs))
    assert record_of(fal).state is JobState.SUBMITTED
    fal.clear_faults()
    run(make(fal))
    assert (fal.accepted, records_of(fal)) == (1, [])


def test_a_cancelled_task_leaves_the_job_running_and_the_record(fal: FalStandIn) -> None:
    fal.queue_seconds = 1e6

    async def work() -> None:
        making = asyncio.ensure_future(make(fal))
        while not fal.requests("status"):
            await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making

    run(work())
    (request_id,) = fal.jobs
    assert record_of(fal).request_id == request_id
    assert fal.requests("cancel") == []
    fal.complete(request_id)
    run(make(fal))
    assert (fal.accepted, records_of(fal)) == (1, [])


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Another cube."},
        {"negative_prompt": ""},
        {"num_frames": 10},
        {"num_inference_steps": 15},
        {"guidance_scale": 6.5},
        {"seed": 8},
        {"video_output_type": "GIF (.gif)"},
        {"video_quality": "low"},
    ],
    ids=str,
)
def test_another_request_does_not_go_on_with_it(fal: FalStandIn, other: dict[str, Any]) -> None:
    kept = record_for(fal, JobState.SUBMITTED, **submit_job(fal))
    run(make(fal, replace(REQUEST, **other)))
    assert fal.accepted == 2
    assert records_of(fal) == [kept]


def test_another_endpoint_does_not_go_on_with_it(fal: FalStandIn) -> None:
    kept = record_for(fal, JobState.SUBMITTED, **submit_job(fal))
    run(make(fal, replace(REQUEST, num_inference_steps=10), endpoint=DISTILLED))
    assert fal.accepted == 2
    assert records_of(fal) == [kept]


# A request without a seed


@pytest.mark.parametrize("state", [JobState.SUBMITTED, JobState.SUBMIT_UNKNOWN])
def test_a_request_without_a_seed_goes_on_with_its_unfinished_job(fal: FalStandIn, state: JobState) -> None:
    unseeded = replace(REQUEST, seed=None)
    fal.fault("submit", Reset(accept=True) if state is JobState.SUBMIT_UNKNOWN else Json(lambda _: None))
    fal.fault("listing", ingress(), times=FOREVER)
    fal.fault("status", Reply(401), times=FOREVER)
    with pytest.raises(FalError):
        run(make(fal, unseeded))
    fal.clear_faults()
    video = run(make(fal, unseeded))
    assert [job.seed for job in fal.jobs.values()] == [video.seed]

    another = run(make(fal, unseeded))
    assert fal.accepted == 2
    assert another.seed != video.seed


def test_a_request_without_a_seed_leaves_another_requests_job_alone(fal: FalStandIn) -> None:
    kept = record_for(fal, JobState.SUBMITTED, **submit_job(fal))
    run(make(fal, replace(REQUEST, seed=None, num_frames=10)))
    assert fal.accepted == 2
    assert records_of(fal) == [kept]


def test_two_at_once_without_a_seed_are_two_jobs(fal: FalStandIn) -> None:
    unseeded = replace(REQUEST, seed=None)

    async def work() -> list[int]:
        first = asyncio.ensure_future(make(fal, unseeded))
        while not fal.accepted:
            await asyncio.sleep(0.01)
        return [(await making).seed for making in (asyncio.ensure_future(make(fal, unseeded)), first)]

    one, other = run(work())
    assert one != other
    assert fal.accepted == 2


def test_eight_at_once_without_a_seed_are_eight_jobs(fal: FalStandIn) -> None:
    async def work() -> set[int]:
        videos = await asyncio.gather(*(make(fal, replace(REQUEST, seed=None)) for _ in range(8)))
        return {video.seed for video in videos}

    assert len(run(work())) == 8
    assert (fal.accepted, records_of(fal)) == (8, [])


# Several at once


def test_two_requests_at_once_have_two_jobs(fal: FalStandIn) -> None:
    async def work() -> list[Any]:
        return await asyncio.gather(make(fal), make(fal, replace(REQUEST, seed=8)))

    videos = run(work())
    assert len({video.path for video in videos}) == 2
    assert videos[0].path.read_bytes() != videos[1].path.read_bytes()
    assert sorted(job.seed for job in fal.jobs.values()) == [7, 8]
    assert records_of(fal) == []


@pytest.mark.parametrize("count", [2, 6])
def test_the_same_request_at_once_has_one_job(fal: FalStandIn, count: int) -> None:
    async def work() -> list[Any]:
        return await asyncio.gather(*(make(fal) for _ in range(count)))

    videos = run(work())
    assert len({video.path for video in videos}) == 1
    assert len(fal.requests("submit")) == len(fal.requests("media")) == fal.accepted == 1
    assert records_of(fal) == []


def test_who_waits_for_another_run_goes_on_when_that_one_fails(fal: FalStandIn) -> None:
    fal.fault("status", Reply(401), times=3)

    async def work() -> list[Any]:
        return await asyncio.gather(make(fal), make(fal), return_exceptions=True)

    outcomes = run(work())
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["JobKeptError", "RemoteVideo"]
    assert fal.accepted == 1


def test_who_waits_for_another_run_is_told_and_can_be_stopped(fal: FalStandIn) -> None:
    fal.queue_seconds = 1e6
    waiting = Recorder(stop_at="Another run makes this same video")

    async def work() -> None:
        first = asyncio.ensure_future(make(fal))
        while not fal.accepted:
            await asyncio.sleep(0.01)
        with pytest.raises(StoppedError):
            await make(fal, observer=waiting)
        fal.complete(next(iter(fal.jobs)))
        await first

    run(work())
    assert fal.requests("cancel") == []
    assert fal.accepted == 1


# The finished file


def test_a_finished_file_is_taken_without_any_traffic(fal: FalStandIn) -> None:
    first = run(make(fal))
    before = (len(fal.journal), len(fal.connects))
    observer = Recorder()
    assert run(make(fal, observer=observer)) == replace(first, notes=(), url=None)
    assert (len(fal.journal), len(fal.connects)) == before
    assert [message for message in observer.messages if "nothing to pay" in message]


def test_a_record_beside_its_finished_file_is_removed_without_any_traffic(fal: FalStandIn) -> None:
    run(make(fal))
    record_for(fal, JobState.SUBMITTED)
    before = len(fal.connects)
    run(make(fal))
    assert len(fal.connects) == before
    assert records_of(fal) == []


@pytest.mark.parametrize("damage", ["empty", "half", "no-video", "folder"])
def test_a_damaged_finished_file_is_refused_with_the_next_step(fal: FalStandIn, damage: str) -> None:
    path = run(make(fal)).path
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "no-video": b"no video"}[damage])
    before = len(fal.connects)
    with pytest.raises(FalError, match=r"(damaged|decoded).*Move it away and run again to download it again") as caught:
        run(make(fal))
    assert str(path) in str(caught.value)
    assert len(fal.connects) == before
    assert path.exists()


def test_a_finished_file_that_was_deleted_is_fetched_again_without_paying(fal: FalStandIn) -> None:
    first = run(make(fal))
    content = first.path.read_bytes()
    first.path.unlink()
    observer = Recorder()
    assert run(make(fal, observer=observer)) == first
    assert first.path.read_bytes() == content
    assert [
        message for message in observer.messages if "the file is gone: fetching it again, nothing to pay" in message
    ]
    assert (fal.accepted, len(fal.requests("result"))) == (1, 1)


def test_a_deleted_file_that_fal_has_no_more_is_told_and_not_paid_for_again(fal: FalStandIn) -> None:
    path = run(make(fal)).path
    path.unlink()
    fal.restart(forget=True)
    for _ in range(2):
        with pytest.raises(JobExpiredError) as caught:
            run(make(fal))
        assert fal.accepted == 0
    said = str(caught.value)
    (record,) = journal_of(fal).records()
    assert f"This video was made on {time.strftime('%Y-%m-%d')}, and {path} is gone" in said
    assert f"delete {journal_of(fal).path_of(record.fingerprint)} and run the same again" in said
    journal_of(fal).path_of(record.fingerprint).unlink()
    run(make(fal))
    assert fal.accepted == 1


# Records that cannot be read, and folders that cannot be written

DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda _: b"",
    "half": lambda record: json.dumps(record)[:100].encode(),
    "zeros": lambda _: bytes(500),
    "no-utf-8": lambda _: b"\xff\xfe{}",
    "list": lambda record: [record],
    "null": lambda _: None,
    "no-object": lambda _: 5,
    "deep": lambda _: b"[" * 100_000,
    "other-version": lambda record: {**record, "v": 3},
    "no-seed": lambda record: {name: value for name, value in record.items() if name != "seed"},
    "unknown-state": lambda record: {**record, "state": "PONDERING"},
    "state-in-a-list": lambda record: {**record, "state": ["SUBMITTED"]},
    "another-video": lambda record: {**record, "fingerprint": "0" * 32},
}


def damage(fal: FalStandIn, record: Record, kind: str) -> Path:
    path = journal_of(fal).path_of(record.fingerprint)
    if kind == "folder":
        path.unlink()
        path.mkdir()
        return path
    damaged = DAMAGE[kind](json.loads(path.read_text()))
    path.write_bytes(damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode())
    return path


@pytest.mark.sample(7)
@pytest.mark.parametrize("kind", [*DAMAGE, "folder"])
def test_a_damaged_record_is_refused_and_nothing_is_paid(fal: FalStandIn, kind: str) -> None:
    path = damage(fal, record_for(fal, JobState.SUBMITTED), kind)
    content = path.is_file() and path.read_bytes()
    with pytest.raises(JobKeptError, match="cannot be read") as caught:
        run(make(fal))
    assert str(path) in str(caught.value)
    assert "https://fal.ai/dashboard/requests" in str(caught.value)
    assert fal.connects == []
    assert (path.is_file() and path.read_bytes()) == content

    path.rmdir() if kind == "folder" else path.unlink()
    run(make(fal))
    assert fal.accepted == 1


def test_a_record_that_may_not_be_read_for_a_moment_is_to_be_read_again_and_not_deleted(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_for(fal, JobState.SUBMITTED, **submit_job(fal))

    def read_text(path: Path, encoding: str | None = None) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as moment:
        moment.setattr(Path, "read_text", read_text)
        with pytest.raises(JobKeptError) as caught:
            run(make(fal))
    assert "(Permission denied): allow reading it, or close the program that uses it, and run the same again." in str(
        caught.value
    )
    assert "Once it is over, delete the file" in str(caught.value)
    run(make(fal))
    assert fal.accepted == 1


@pytest.mark.parametrize("kind", ["empty", "deep", "other-version", "folder"])
def test_a_damaged_record_does_not_hold_up_other_requests(fal: FalStandIn, kind: str) -> None:
    path = damage(fal, record_for(fal, JobState.SUBMITTED), kind)
    run(make(fal, replace(REQUEST, seed=8)))
    run(make(fal, replace(REQUEST, seed=None)))
    assert (fal.accepted, path.exists()) == (2, True)


@pytest.mark.sample(13)
@pytest.mark.parametrize(
    "fields",
    [
        {"input_keys": None},
        {"input_keys": 5},
        {"input_sha256": None},
        {"created": "yesterday"},
        {"created": 1e300},
        {"created": None},
        {"seed": "seven"},
        {"request_id": 5},
        {"request_id": "../../x"},
        {"status_url": 5},
        {"status_url": "http://queue.fal.run/x"},
        {"result": []},
        {"result": "video"},
    ],
    ids=str,
)
@pytest.mark.parametrize("state", [JobState.SUBMIT_UNKNOWN, JobState.SUBMITTED])
def test_a_record_with_an_odd_value_raises_nothing_but_our_errors_and_pays_nothing(
    fal: FalStandIn, state: JobState, fields: dict[str, Any]
) -> None:
    job = submit_job(fal) if state is JobState.SUBMITTED else {}
    record = record_for(fal, state, **{**job, **fields})
    try:
        run(make(fal))
    except FalError:
        assert journal_of(fal).path_of(record.fingerprint).exists()
    assert len(fal.requests("submit")) == len(job) // 4


@pytest.mark.parametrize("name", ["status_url", "response_url", "cancel_url"])
def test_the_key_does_not_go_to_a_url_of_a_record_that_is_not_the_queues_own(fal: FalStandIn, name: str) -> None:
    job = submit_job(fal)
    record_for(fal, JobState.SUBMITTED, **{**job, name: f"https://evil.example/requests/{job['request_id']}"})
    run(make(fal))
    assert (fal.accepted, fal.requests("evil")) == (1, [])


@pytest.mark.parametrize("place", ["", "inside"])
def test_a_journal_that_cannot_be_made_is_told_and_nothing_is_sent(fal: FalStandIn, place: str) -> None:
    file = fal.folder / "file"
    file.touch()
    with pytest.raises(JobKeptError, match="cannot be written"):
        run(make(fal, journal=Journal(file / place)))
    assert fal.connects == []


@only_posix
def test_a_journal_that_the_disk_does_not_take_is_told_and_nothing_is_sent(fal: FalStandIn) -> None:
    outcome = fal_worker.outcome_of(start(fal, file_size=64))
    assert outcome
    assert outcome["error"] == "JobKeptError"
    assert "cannot be written" in outcome["message"]
    assert fal.requests("submit") == []
    assert records_of(fal) == []


def test_a_record_that_cannot_be_replaced_stays_as_it_was(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    record = record_for(fal, JobState.SUBMITTED, **submit_job(fal))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(JobKeptError, match="cannot be written"):
        journal_of(fal).save(replace(record, state=JobState.DONE))
    assert record_of(fal) == record
    assert list(journal_of(fal).folder.glob("*.part")) == []


# The journal by itself


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    record = Record(
        "job", ENDPOINT, "a", "b", ["prompt"], 7, state=JobState.SUBMITTED, result={"ä": [1, None, "\U0001f7e5"]}
    )
    assert journal.load("job") is None
    journal.save(record)
    assert journal.load("job") == record
    assert journal.records() == [record]
    journal.remove(record)
    journal.remove(record)
    assert journal.records() == []


def test_a_field_of_a_later_version_is_left_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    record = Record("job", ENDPOINT, "a", "b", ["prompt"], 7)
    journal.path_of("job").write_text(json.dumps({**asdict(record), "colour": "red"}))
    assert journal.load("job") == record


def test_records_come_the_oldest_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for fingerprint, created in (("a", 30.0), ("b", 10.0), ("c", 20.0)):
        journal.save(Record(fingerprint, ENDPOINT, "", "", [], 7, created=created))
    assert [record.fingerprint for record in journal.records()] == ["b", "c", "a"]


def test_a_claim_is_for_one_video_and_ends_with_its_block(tmp_path: Path) -> None:
    journal, same = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    target = tmp_path / "videos" / "a.mp4"

    async def work() -> None:
        assert not same.is_claimed("a")
        async with journal.claim("a", target, NullObserver(), 1):
            assert same.is_claimed("a")
            assert not same.is_claimed("b")
        assert not same.is_claimed("a")
        with pytest.raises(KeyError):
            async with journal.claim("a", target, NullObserver(), 1):
                raise KeyError
        assert not same.is_claimed("a")
        assert names_in(target.parent, "") == []

    run(work())


def test_a_claim_does_not_wait_without_end(tmp_path: Path) -> None:
    journal, target = Journal(tmp_path / "journal"), tmp_path / "videos" / "a.mp4"
    waiting = Recorder()

    async def work() -> None:
        async with journal.claim("a", target, NullObserver(), 0):
            with pytest.raises(JobKeptError, match=r"Another run.*if there is none, delete .*a\.lock"):
                async with journal.claim("a", target, waiting, 0.3):
                    pass

    run(work())
    assert "Another run makes this same video: waiting for it, 0 s" in waiting.messages


def test_two_journals_with_one_folder_of_videos_pay_once(fal: FalStandIn) -> None:
    other = Journal(fal.folder.parent / "another journal")

    async def work() -> list[Any]:
        return await asyncio.gather(make(fal), make(fal, journal=other), make(fal))

    assert len({video.path for video in run(work())}) == 1
    assert len(fal.requests("submit")) == len(fal.requests("media")) == fal.accepted == 1


@only_posix
def test_the_names_of_new_folders_are_on_disk_before_the_job_is_sent(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    really_flush = os.fsync

    def flush(descriptor: int) -> None:
        flushed.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        really_flush(descriptor)

    seen: list[set[str]] = []
    monkeypatch.setattr(os, "fsync", flush)
    fal.fault("submit", Json(lambda _: seen.append(set(flushed))))
    base = fal.folder.parent
    run(make(fal, journal=Journal(base / "new" / "journal")))
    assert {str(base), str(base / "new"), str(base / "new" / "journal")} <= seen[0]


def test_who_takes_a_lock_while_it_is_released_has_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, second = tmp_path / "lock", []
    really_unlink = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        really_unlink(path, missing_ok)
        if not second:
            second.append(acquire(path))

    first = acquire(path)
    assert first
    monkeypatch.setattr(Path, "unlink", unlink)
    release(first)
    assert second[0].is_locked
    assert not acquire(path)


@only_posix
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK], ids=["EOPNOTSUPP", "ENOLCK"])
def test_a_drive_without_locks_is_used_all_the_same(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)

    async def twice() -> Any:
        return await asyncio.gather(make(fal), make(fal))

    first, second = run(twice())
    assert first.path == second.path
    assert (fal.accepted, len(fal.requests("submit"))) == (1, 1)
    assert list(journal_of(fal).folder.glob("*.soft")) == []


def test_no_locks_are_left_behind(fal: FalStandIn) -> None:
    run(make(fal))
    fal.fail_next(content_policy)
    with pytest.raises(FalError):
        run(make(fal, replace(REQUEST, seed=8)))
    assert [path for folder in (videos_of(fal), journal_of(fal).folder) for path in folder.glob("*.lock")] == []


def test_a_reader_never_sees_half_a_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    record = Record("job", ENDPOINT, "a", "b", ["prompt"], 7)
    journal.save(record)
    stopped = threading.Event()

    def write() -> None:
        for index in range(50):
            journal.save(replace(record, result={"size": "x" * (index % 7) * 5000}))
        stopped.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not stopped.is_set():
        assert journal.load("job")
        reads += 1
    thread.join()
    assert reads > 10


def test_a_job_is_followed_where_its_record_cannot_be_written(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without storing, fal's list could not show it to a later run."""
    save = Journal.save

    def full(journal: Journal, record: Record) -> None:
        if record.state is JobState.SUBMITTED and not record.result:
            raise JobKeptError("The records of jobs cannot be written.", stage="journal")
        save(journal, record)

    monkeypatch.setattr(Journal, "save", full)
    assert run(make(fal, store=False)).num_frames == 9
    check_one_job(fal)
