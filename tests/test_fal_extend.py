"""A video in parts at fal: each part is a job, and a part that is there is never paid for again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cosmos_predict25.devtools.fal_faults import FAST, NOT_FOUND
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn
from cosmos_predict25.pipeline.errors import JobExpiredError
from cosmos_predict25.pipeline.export import mp4_bytes
from cosmos_predict25.pipeline.extension import lengths_of_parts
from cosmos_predict25.pipeline.fal import VIDEO_TO_VIDEO, extension, frames, generate
from cosmos_predict25.pipeline.fal.start import start_to_send
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.pipeline.video import ExtendedVideo
from cosmos_predict25.tests.fal import PROMPT, journal_of, run, videos_of

SIZE = (96, 64)
REQUEST = GenerationRequest(prompt=PROMPT, num_frames=93, seed=7)
SHORT = replace(REQUEST, num_frames=9)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the stand-in's own size."""
    monkeypatch.setattr(extension, "SIZE", SIZE)


def clip(offset: float = 0.0) -> Tensor:
    """From dark to light, with no whole level."""
    return torch.linspace(0.05, 0.9, 96)[None, None, :, None].expand(7, 64, 96, 3) + offset


def places(fal: FalStandIn) -> dict[str, Any]:
    return {"folder": videos_of(fal), "journal": journal_of(fal), "policy": FAST}


def extended(fal: FalStandIn, new_frames: int, source: Tensor | None = None, **options: Any) -> ExtendedVideo:
    request, start = options.pop("request", REQUEST), Start(clip() if source is None else source)
    work = extension.extend(request, start, new_frames, encode_clip=mp4_bytes, **places(fal), **options)
    video = run(work)
    assert len(video.frames) == 7 + new_frames
    return video


def make_as_version_0_2(fal: FalStandIn, new_frames: int, parts: int) -> None:
    """The first `parts` of a video of which all parts have about the same length, sent with no more than they need."""
    identity, start = "", Start(clip()[-5:])
    for index, length in list(enumerate(lengths_of_parts(new_frames, REQUEST.num_frames, 5)))[:parts]:
        sent = start_to_send(start, mp4_bytes, journal_of(fal), identity, SIZE)
        whole = -(-(5 + length - 1) // 4) * 4 + 1
        request = replace(REQUEST, num_frames=whole, seed=7 + index, video_quality="maximum", width=96, height=64)
        made = run(generate(request, endpoint=VIDEO_TO_VIDEO, media=sent.media, **places(fal)))
        identity = f"continues:{made.job_name}:{5 + length}"
        start = Start(torch.stack([*extension.frames_of(made.path)][length : 5 + length]))


def file_of(fal: FalStandIn, seed: int) -> Path:
    (path,) = videos_of(fal).glob(f"cosmos_{seed}_*.mp4")
    return path


def test_only_what_is_not_there_is_paid_for(fal: FalStandIn) -> None:
    jobs = {}
    first = extended(fal, 88)
    for new_frames in (100, 120, 80, 88, 176):
        longer = extended(fal, new_frames)
        jobs[new_frames] = fal.accepted
        shared = min(7 + 88, len(longer.frames))
        assert longer.frames[:shared].equal(first.frames[:shared])
    assert jobs == {100: 2, 120: 2, 80: 2, 88: 2, 176: 2}
    assert {job.input["num_frames"] for job in fal.jobs.values()} == {93}
    assert [job.seed for job in fal.jobs.values()] == [7, 8]


@pytest.mark.parametrize(("parts", "accepted", "sent"), [(2, 2, [57, 57]), (1, 2, [57, 57]), (0, 2, [93, 93])])
def test_parts_that_version_0_2_paid_for_are_not_paid_again(
    fal: FalStandIn, parts: int, accepted: int, sent: list[int]
) -> None:
    make_as_version_0_2(fal, 100, parts)
    extended(fal, 100)
    assert [job.input["num_frames"] for job in fal.jobs.values()] == sent
    extended(fal, 100)
    assert fal.accepted == accepted


def test_a_single_short_part_that_version_0_2_paid_for_is_not_paid_again(fal: FalStandIn) -> None:
    make_as_version_0_2(fal, 50, 1)
    extended(fal, 50)
    assert fal.accepted == 1


@pytest.mark.parametrize(("difference", "accepted"), [(1e-4, 1), (-0.49 / 255, 1), (1.2 / 255, 2)])
def test_a_source_that_differs_by_less_than_half_a_level_is_the_same(
    fal: FalStandIn, difference: float, accepted: int
) -> None:
    before = extended(fal, 4, request=SHORT)
    after = extended(fal, 4, clip(difference), request=SHORT)
    assert fal.accepted == accepted
    assert after.frames[:7].equal(clip(difference))
    assert after.added.equal(before.added) == (accepted == 1)
    assert after.notes == ()


def test_one_pixel_makes_another_source_for_each_part(fal: FalStandIn) -> None:
    extended(fal, 8, request=SHORT)
    other = clip().clone()
    other[-1, 5, 5, 0] += 1.2 / 255
    extended(fal, 8, other, request=SHORT)
    assert [job.seed for job in fal.jobs.values()] == [7, 8, 7, 8]


def test_no_more_starts_are_kept_than_the_newest(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_STARTS", 2)
    for index in range(4):
        frames.as_kept(clip()[-5:] * 250 + index, journal_of(fal).starts)
    assert len(list(journal_of(fal).starts.iterdir())) == 2
    frames.as_kept(torch.full((1, 8, 8, 3), 7.0), journal_of(fal).starts)
    assert len(list(journal_of(fal).starts.iterdir())) == 2


def test_a_part_that_is_gone_does_not_block_those_after_it(fal: FalStandIn) -> None:
    whole = extended(fal, 12, request=SHORT)
    file_of(fal, 7).unlink()
    fal.fault("media", NOT_FOUND, times=FOREVER)
    fal.fault("result", NOT_FOUND, times=FOREVER)
    left = run(extension.extend(SHORT, Start(clip()), 12, encode_clip=mp4_bytes, **places(fal)))
    assert left.notes == ("Part 1 is gone, here and at fal: only its last 4 frames are left.",)
    assert (left.frames * 255 - whole.frames * 255).abs().max() <= 0.5
    assert left.frames[-8:].equal(whole.frames[-8:])
    assert fal.accepted == 3


def test_a_part_that_is_gone_is_told_where_those_after_it_would_have_to_be_paid_for(fal: FalStandIn) -> None:
    extended(fal, 8, request=SHORT)
    file_of(fal, 7).unlink()
    fal.fault("media", NOT_FOUND, times=FOREVER)
    fal.fault("result", NOT_FOUND, times=FOREVER)
    for new_frames in (4, 12):
        with pytest.raises(JobExpiredError, match=r"is gone.*delete .*\.json"):
            extended(fal, new_frames, request=SHORT)
    assert fal.accepted == 2
