"""Records, names and fingerprints as an earlier version of the pack has left them on disk: texts of its own files."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import FalStandIn
from cosmos_predict25.pipeline.errors import JobExpiredError, JobKeptError
from cosmos_predict25.pipeline.fal import (
    DISTILLED,
    IMAGE_TO_VIDEO,
    TEXT_TO_VIDEO,
    VIDEO_TO_VIDEO,
    Endpoint,
    FalClient,
    Media,
)
from cosmos_predict25.pipeline.fal.submission import fingerprint_of, make_submission
from cosmos_predict25.tests.fal import (
    BRIEF,
    ENDPOINT,
    INPUT,
    REQUEST,
    journal_of,
    make,
    only_id,
    record_of,
    records_of,
    run,
    videos_of,
)

FINGERPRINT = "e86a4ff92efc88a3613bc481a6d86a05"
HEAD = """{
 "fingerprint": "e86a4ff92efc88a3613bc481a6d86a05",
 "endpoint": "fal-ai/cosmos-predict-2.5/text-to-video",
 "input_sha256": "600d3eab5272608e8a47c6656d369073a811bcdd1f24cc237d68629b9cdd90fc",
 "request_sha256": "600d3eab5272608e8a47c6656d369073a811bcdd1f24cc237d68629b9cdd90fc",
 "input_keys": [
  "guidance_scale",
  "negative_prompt",
  "num_frames",
  "num_inference_steps",
  "prompt",
  "seed",
  "sync_mode",
  "video_output_type",
  "video_quality"
 ],
 "seed": 7,
 "v": 2,
"""
NO_JOB = """ "request_id": null,
 "status_url": null,
 "response_url": null,
 "cancel_url": null,
 "result": null
}"""
JOB = """ "request_id": "REQUEST_ID",
 "status_url": "https://queue.fal.run/fal-ai/cosmos-predict-2.5/requests/REQUEST_ID/status",
 "response_url": "https://queue.fal.run/fal-ai/cosmos-predict-2.5/requests/REQUEST_ID",
 "cancel_url": "https://queue.fal.run/fal-ai/cosmos-predict-2.5/requests/REQUEST_ID/cancel",
"""
NO_RESULT = """ "result": null
}"""
RESULT = """ "result": {
  "video": {
   "url": "https://v3b.fal.mediaMEDIA_PATH",
   "file_size": 2306,
   "width": 96,
   "height": 64,
   "fps": 16,
   "num_frames": 9
  }
 }
}"""


def middle(state: str, clock_offset: str = "null") -> str:
    return f""" "created": 1795992821.546949,
 "clock_offset": {clock_offset},
 "state": "{state}",
 "past_ids": [],
 "is_adopted": false,
"""


RECORDS = {
    "sent, answer lost": HEAD + middle("SUBMIT_UNKNOWN", "-0.9357695579528809") + NO_JOB,
    "sent": HEAD + middle("SUBMITTED") + JOB + NO_RESULT,
    "made": HEAD + middle("SUBMITTED") + JOB + RESULT,
    "cancelled by Stop": HEAD + middle("CANCEL_REQUESTED") + JOB + NO_RESULT,
    "expired": HEAD + middle("EXPIRED") + JOB + NO_RESULT,
    "done, and the file deleted": HEAD + middle("DONE") + JOB + RESULT,
}
"""As version 2 wrote them for `REQUEST`, but for the ids and addresses that fal gives."""


def write_record(fal: FalStandIn, text: str) -> None:
    """The record of a job that fal has, sent at the time that the record gives."""

    async def submit() -> str:
        async with FalClient(policy=FAST) as client:
            return (await client.submit(ENDPOINT, INPUT)).request_id

    request_id = run(submit())
    job = fal.jobs[request_id]
    text = text.replace("REQUEST_ID", request_id).replace("MEDIA_PATH", job.media_path)
    if '"result": {' in text:
        fal.complete(request_id)
    path = journal_of(fal).path_of(FINGERPRINT)
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize("text", RECORDS.values(), ids=RECORDS)
def test_a_record_of_the_version_before_is_gone_on_with_and_not_paid_again(fal: FalStandIn, text: str) -> None:
    write_record(fal, text.replace("1795992821.546949", str(fal.clock.now())))
    video = run(make(fal))
    assert (video.num_frames, video.path.name) == (9, "cosmos_7_e86a4ff92efc.mp4")
    assert (fal.accepted, len(fal.requests("submit")), records_of(fal)) == (1, 1, [])


@pytest.mark.parametrize("text", RECORDS.values(), ids=RECORDS)
def test_a_record_is_written_as_the_version_before_wrote_it(fal: FalStandIn, text: str) -> None:
    """So that going back to that version loses no job either."""
    write_record(fal, text)
    journal, path = journal_of(fal), journal_of(fal).path_of(FINGERPRINT)
    before = path.read_text()
    record = journal.load(FINGERPRINT)
    assert record
    journal.save(record)
    assert path.read_text() == before


@pytest.mark.parametrize("state", ["SUBMITTING", "SUBMIT_UNKNOWN", "SUBMITTED", "RUNNING", "RESULT_READY"])
def test_a_record_of_version_1_is_gone_on_with(fal: FalStandIn, state: str) -> None:
    """That version knew more states, and neither past jobs nor the offset of a clock."""
    is_sent = not state.startswith("SUBMIT") or state == "SUBMITTED"
    text = RECORDS["sent"] if is_sent else HEAD + middle("SUBMITTED") + NO_JOB
    for later in (' "clock_offset": null,\n', ' "past_ids": [],\n', ' "is_adopted": false,\n'):
        text = text.replace(later, "")
    text = text.replace('"v": 2', '"v": 1').replace('"SUBMITTED"', f'"{state}"')
    write_record(fal, text.replace("1795992821.546949", str(fal.clock.now())))
    run(make(fal))
    assert (fal.accepted, len(fal.requests("submit")), records_of(fal)) == (1, 1, [])


def test_a_record_of_a_later_version_is_refused_with_the_next_step_and_nothing_is_paid(fal: FalStandIn) -> None:
    write_record(fal, RECORDS["sent"].replace('"v": 2', '"v": 3'))
    with pytest.raises(JobKeptError, match="of version 3, and this pack reads version 2") as caught:
        run(make(fal))
    assert str(journal_of(fal).path_of(FINGERPRINT)) in str(caught.value)
    assert "https://fal.ai/dashboard/requests" in str(caught.value)
    assert fal.accepted == 1


def test_an_expired_record_of_the_version_before_still_blocks(fal: FalStandIn) -> None:
    write_record(fal, RECORDS["expired"])
    fal.restart(forget=True)
    with pytest.raises(
        JobExpiredError, match=r"delete .*e86a4ff92efc88a3613bc481a6d86a05\.json and run the same again"
    ):
        run(make(fal))
    assert fal.accepted == 0


@pytest.mark.parametrize("sync_mode", [False, True], ids=["inside the reply", "at an address"])
def test_a_video_that_was_sent_with_the_other_sync_mode_is_the_same_video(fal: FalStandIn, sync_mode: bool) -> None:
    first, second = (replace(REQUEST, sync_mode=value) for value in (not sync_mode, sync_mode))
    path = run(make(fal, first)).path
    assert run(make(fal, second)).path == path
    assert (fal.accepted, len(fal.requests("submit"))) == (1, 1)


@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "unfinished"])
def test_a_video_that_an_earlier_version_named_after_sync_mode_is_found(fal: FalStandIn, is_finished: bool) -> None:
    """Where sync_mode was on, it made another name of the same video."""
    inline = replace(REQUEST, sync_mode=True)
    named = fingerprint_of(TEXT_TO_VIDEO, {**INPUT, "sync_mode": True})
    assert named == "8735a037ec80adb7d590ee26e68086e7"
    fal.run_seconds = math.inf
    with pytest.raises(JobKeptError):
        run(make(fal, inline, policy=BRIEF))
    record = record_of(fal)
    old = journal_of(fal).path_of(record.fingerprint)
    record.fingerprint = named
    journal_of(fal).save(record)
    old.unlink()
    fal.complete(str(record.request_id))
    if is_finished:
        path = run(make(fal, inline)).path
        assert path.name == f"cosmos_7_{named[:12]}.mp4"
    assert run(make(fal, REQUEST)).path.name == f"cosmos_7_{named[:12]}.mp4"
    run(make(fal, inline))
    assert fal.accepted == 1


def test_an_unfinished_job_of_either_sync_mode_is_found_without_its_seed(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    with pytest.raises(JobKeptError):
        run(make(fal, replace(REQUEST, sync_mode=True, seed=None), policy=BRIEF))
    fal.complete(only_id(fal))
    assert run(make(fal, replace(REQUEST, seed=None))).seed == fal.jobs[only_id(fal)].seed
    assert fal.accepted == 1


NAMES: list[tuple[Endpoint, Any, str, str, str]] = [
    (
        TEXT_TO_VIDEO,
        None,
        FINGERPRINT,
        "600d3eab5272608e8a47c6656d369073a811bcdd1f24cc237d68629b9cdd90fc",
        "600d3eab5272608e8a47c6656d369073a811bcdd1f24cc237d68629b9cdd90fc",
    ),
    (
        IMAGE_TO_VIDEO,
        Media(f"sha256:{'a' * 64}", "image/png", b"x"),
        "3bf1f310aac7b53fb9ca9ccf5fd7c0ab",
        "144605427aa7852d07c9d93160aa4234610c3e033ae050d94a75184c466877c7",
        "144605427aa7852d07c9d93160aa4234610c3e033ae050d94a75184c466877c7",
    ),
    (
        VIDEO_TO_VIDEO,
        Media(f"continues:{'b' * 32}:9", "video/mp4", b"x"),
        "435f5cd5a730b4045675299e4493b2ab",
        "fa5f80b237d118f503f5e9aa490f3a8b252c305d9cd4289ec0a9862f2d27ca9f",
        "fa5f80b237d118f503f5e9aa490f3a8b252c305d9cd4289ec0a9862f2d27ca9f",
    ),
    (
        VIDEO_TO_VIDEO,
        "https://example.com/a.mp4",
        "310d09876b251f922f59f64d3ef2453e",
        "119f20c271b4650b852543b9beb467742b598dbcf72fe89f8604491e7715c92f",
        "56491302837eef4ea411a693ae0ecc7fd614495303ed20b95eb7c33225689bf3",
    ),
    (
        DISTILLED,
        None,
        "c529a8d20d87e9da153a5f24afab7e5b",
        "b9cace9cc99efd8e64a109d9271a4b0d39d3055ba5b7d100a0c7f22c4577fa7a",
        "b9cace9cc99efd8e64a109d9271a4b0d39d3055ba5b7d100a0c7f22c4577fa7a",
    ),
]


@pytest.mark.parametrize(
    ("endpoint", "media", "fingerprint", "request_sha256", "input_sha256"), NAMES, ids=lambda value: str(value)[:12]
)
def test_the_same_wish_has_the_same_names_as_in_the_version_before(
    fal: FalStandIn, endpoint: Endpoint, media: Any, fingerprint: str, request_sha256: str, input_sha256: str
) -> None:
    request = replace(REQUEST, num_inference_steps=10) if endpoint is DISTILLED else REQUEST
    submission = make_submission(request, endpoint, journal_of(fal), videos_of(fal), media)
    record = submission.new_record()
    assert submission.target.name == f"cosmos_7_{fingerprint[:12]}.mp4"
    assert (submission.fingerprint, record.fingerprint) == (fingerprint, fingerprint)
    assert (record.request_sha256, record.input_sha256) == (request_sha256, input_sha256)
    assert json.loads(RECORDS["sent"].replace("REQUEST_ID", "x"))["input_keys"] == sorted(INPUT)


def test_a_video_knows_the_name_of_its_job(fal: FalStandIn) -> None:
    made = run(make(fal))
    (record,) = journal_of(fal).records()
    assert made.job_name == record.fingerprint
    assert run(make(fal)).job_name == record.fingerprint
