"""Going on from a clip: its frames stay, each part starts from the end of the one before, all with one guardrail."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from cosmos_predict25.pipeline import extension
from cosmos_predict25.pipeline.errors import InvalidRequestError, NotEnoughMemoryError, UnsafeContentError
from cosmos_predict25.pipeline.extension import lengths_of_parts
from cosmos_predict25.pipeline.local import extend as extending
from cosmos_predict25.pipeline.local.extend import extend
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.placement import OneAtATime
from cosmos_predict25.pipeline.local.sizes import GIB, UNLIMITED
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.pipeline.video import LocalVideo
from cosmos_predict25.tests.test_generate import Checker, Recorder, StoppedError


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_pipeline_folder(checkpoint)


REQUEST = GenerationRequest(
    prompt="a cat", num_frames=13, num_inference_steps=1, guidance_scale=1, width=32, height=32, seed=2**31 - 1
)


def clip(frames: int, seed: int = 1) -> Tensor:
    return torch.rand(frames, 32, 32, 3, generator=torch.Generator().manual_seed(seed))


@dataclass
class Calls:
    """What `extend` asks of `generate`, which is done."""

    requests: list[GenerationRequest] = field(default_factory=list)
    starts: list[Tensor] = field(default_factory=list)
    made: list[Tensor] = field(default_factory=list)

    def generate(self, model, request, *, start, **options) -> LocalVideo:
        video = generate(model, request, start=start, **options)
        self.requests.append(request)
        self.starts.append(start.frames.clone())
        self.made.append(video.frames)
        return video


@pytest.fixture
def calls(monkeypatch):
    noted = Calls()
    monkeypatch.setattr(extending, "generate", noted.generate)
    return noted


@pytest.mark.parametrize(
    ("new_frames", "num_frames", "overlap", "expected"),
    [
        (88, 93, 5, [88]), (89, 93, 5, [45, 44]), (880, 93, 5, [88] * 10), (1, 93, 5, [1]), (92, 93, 1, [92]),
        (50, 25, 5, [17, 17, 16]),
    ],
    ids=str,
)  # fmt: skip
def test_parts_are_few_and_of_about_the_same_length(new_frames, num_frames, overlap, expected):
    assert lengths_of_parts(new_frames, num_frames, overlap) == expected


@pytest.mark.parametrize(
    ("new_frames", "num_frames", "overlap", "expected"),
    [(100, 93, 5, [88, 12]), (176, 93, 5, [88, 88]), (89, 93, 5, [88, 1]), (50, 25, 5, [20, 20, 10]), (1, 93, 1, [1])],
    ids=str,
)
def test_parts_are_full_but_the_last_where_they_need_not_be_even(new_frames, num_frames, overlap, expected):
    assert lengths_of_parts(new_frames, num_frames, overlap, even_parts=False) == expected


@pytest.mark.parametrize(("even", "expected"), [(False, [8, 8, 4]), (True, [7, 7, 6])], ids=["full", "even"])
def test_the_caller_chooses_how_parts_are_shared_out(model, calls, even, expected):
    extend(model, REQUEST, Start(clip(7)), 20, even_parts=even)
    assert [request.num_frames - 5 for request in calls.requests] == expected


@pytest.mark.parametrize(("overlap", "given"), [(5, 5), (1, 1)], ids=str)
def test_each_part_follows_the_one_before(model, calls, overlap, given):
    source = clip(7)
    video = extend(model, REQUEST, Start(source), 18, overlap=overlap)
    lengths = lengths_of_parts(18, 13, overlap, even_parts=False)
    assert len(lengths) > 1
    assert video.frames.shape == (7 + 18, 32, 32, 3)
    assert video.frames[:7].equal(source)
    assert video.added.equal(video.frames[7:])
    assert (video.seed, video.fps) == (2**31 - 1, 16)
    done = 7
    for index, length in enumerate(lengths):
        assert calls.starts[index].equal(video.frames[done - given : done])
        assert calls.requests[index].seed == (2**31 - 1 + index) % 2**31
        assert video.frames[done : done + length].equal(calls.made[index][given : given + length])
        done += length


def test_a_clip_of_fewer_than_five_frames_gives_its_last(model, calls):
    source = clip(3)
    video = extend(model, REQUEST, Start(source), 16)
    assert calls.starts[0].equal(source)
    assert len(Start(calls.starts[0]).conditioning_indices()) == 1
    assert video.added[:8].equal(calls.made[0][1:9])
    assert calls.starts[1].equal(video.frames[3 + 8 - 5 : 3 + 8])


def test_a_clip_of_another_rate_and_size_is_shown_at_16_a_second_up_to_its_end(model):
    start = Start(clip(12), 24)
    video = extend(model, replace(REQUEST, width=48), start, 4)
    assert len(video.frames) == 8 + 4
    assert start.frame_indices() == [1, 2, 4, 5, 7, 8, 10, 11]
    # 11 frames of 1/24 s before the last one, and 7 of 1/16 s.
    assert float(start.skipped()) == pytest.approx(11 / 24 - 7 / 16)
    assert video.frames.shape[1:3] == (32, 48)


def test_progress_is_that_of_all_parts_and_stop_ends_the_second(model):
    observer = Recorder()
    extend(model, REQUEST, Start(clip(5)), 16, observer=observer)
    shares = [done / total for _, done, total in observer.reports]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    messages = [message for message, _, _ in observer.reports]
    assert "Part 1 of 2: Denoising, step 1 of 1" in messages
    assert messages[-1].startswith("Part 2 of 2: Decoding")

    class Stops(Recorder):
        def raise_if_stopped(self):
            if self.reports[-1][0].startswith("Part 2 of 2: Denoising"):
                raise StoppedError

    with pytest.raises(StoppedError):
        extend(model, REQUEST, Start(clip(5)), 16, observer=Stops())


def test_stop_ends_the_scaling_of_a_long_source(model, monkeypatch):
    scaled = []
    monkeypatch.setattr(extension, "fit", lambda *_: scaled.append(1) or torch.zeros(32, 32, 3))

    class Stops(Recorder):
        def raise_if_stopped(self):
            if len(scaled) == 3:
                raise StoppedError

    with pytest.raises(StoppedError):
        extend(model, REQUEST, Start(clip(100)), 16, observer=Stops())
    assert len(scaled) == 3


def test_a_joined_video_that_does_not_fit_into_the_memory_is_refused_before_anything_runs(model, calls):
    class Small(OneAtATime):
        def memory(self):
            return replace(UNLIMITED, ram=GIB)

    start = Start(torch.zeros(1, 1, 1, 3).expand(100_000, 32, 32, 3))
    says = r"32x32 with 100000 frames of the source and 16 new ones takes 1\.1 GiB .* 1\.0 GiB are free\. Trim"
    with pytest.raises(NotEnoughMemoryError, match=says):
        extend(model, REQUEST, start, 16, placement=Small("cpu"))
    assert calls.requests == []


def test_thirty_hand_overs_leave_the_level_as_it_is(model, monkeypatch):
    """As frames of whole numbers they would lose half of 1/255 at each."""

    def repeat_the_last(model, request, *, start, **_) -> LocalVideo:
        given = start.conditioning_frames(request.width, request.height)
        frames = torch.cat([given, given[-1:].expand(request.num_frames - len(given), -1, -1, -1)])
        return LocalVideo(frames, torch.empty(0), request.seed, 16)

    monkeypatch.setattr(extending, "generate", repeat_the_last)
    source = clip(5)
    video = extend(model, REQUEST, Start(source), 240)
    assert len(lengths_of_parts(240, 13, 5)) == 30
    assert video.frames[-1].equal(source[-1])


def test_the_guardrail_sees_the_prompt_once_and_the_new_frames_once(model, calls):
    events: list[str] = []
    source = clip(5)
    video = extend(model, REQUEST, Start(source), 16, guardrail=lambda: Checker(events))
    assert [event for event in events if event.startswith(("text", "frames"))] == [
        "text a cat",
        "frames (16, 32, 32, 3)",
    ]
    assert video.frames[:5].equal(source)
    assert video.added.max() == 0
    # What it blackened is not what the second part started from.
    assert calls.starts[1].equal(calls.made[0][8:13])
    assert calls.starts[1].max() > 0


def test_a_refused_prompt_is_refused_before_anything_runs(model, calls):
    with pytest.raises(UnsafeContentError, match="refused the prompt"):
        extend(model, REQUEST, Start(clip(5)), 16, guardrail=lambda: Checker([], text_is_safe=False))
    assert calls.requests == []


@pytest.mark.parametrize(
    ("new_frames", "overlap", "says"),
    [(0, 5, "new_frames is 0, but must be from 1 to 880"), (8, 3, "overlap is 3, but must be 5 or 1")],
    ids=["no frames", "overlap 3"],
)
def test_values_out_of_their_limits_are_refused(model, new_frames, overlap, says):
    with pytest.raises(InvalidRequestError, match=says):
        extend(model, REQUEST, Start(clip(5)), new_frames, overlap=overlap)
