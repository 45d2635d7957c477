"""A video longer than the model makes at once: part after part, each from the end of the one before."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InvalidRequestError
from ..observer import NullObserver, Observer
from ..request import FPS, NEW_FRAMES, NUM_FRAMES, SEED, GenerationRequest, check_range
from ..start import CLIP_FRAMES, OVERLAPS, Start, fit
from ..video import ExtendedVideo
from .generate import GUARDRAIL_BYTES, generate, plan_for
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .model import LocalModel
from .placement import OneAtATime, Placement
from .plan import Plan
from .prompt_cache import PromptCache


@dataclass(frozen=True)
class _PartObserver:
    """Reports the progress of one part as that of the whole."""

    observer: Observer
    part: int
    parts: int

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        message = f"Part {self.part + 1} of {self.parts}: {message}" if self.parts > 1 else message
        self.observer.progress(message, self.part * total + done, self.parts * total, latents)

    def raise_if_stopped(self) -> None:
        self.observer.raise_if_stopped()


def lengths_of_parts(new_frames: int, num_frames: int, overlap: int) -> list[int]:
    """How many new frames each part has: about the same, in as few parts as can be of at most `num_frames` frames."""
    count = math.ceil(new_frames / (num_frames - overlap))
    return [new_frames // count + (index < new_frames % count) for index in range(count)]


def plan_for_parts(
    model: LocalModel, request: GenerationRequest, new_frames: int, overlap: int, placement: Placement
) -> Plan:
    """How `placement` can make each part of `extend` now. Raises `NotEnoughMemoryError`."""
    longest = lengths_of_parts(new_frames, request.num_frames, overlap)[0]
    return plan_for(model, _request_of_part(request, 0, overlap + longest), placement, overlap)


def extend(
    model: LocalModel,
    request: GenerationRequest,
    start: Start,
    new_frames: int = NUM_FRAMES.maximum - CLIP_FRAMES,
    *,
    overlap: int = CLIP_FRAMES,
    placement: Placement | None = None,
    plan: Plan | None = None,
    observer: Observer | None = None,
    guardrail: SafetyCheckerFactory | None = None,
    prompts: PromptCache | None = None,
) -> ExtendedVideo:
    """Make `new_frames` frames, 1 to 880 at 16 a second, that follow those of `start`.

    They are made in parts of at most `request.num_frames` frames, with the request's seed and those after it. Each part
    begins with the last `overlap` frames, 5 or 1, of what is there, which are cut from it; where `start` has fewer than
    5, with its last one. One overlapping frame does not tell how things move. The frames of `start` are kept as they
    are, but for those that are not shown at 16 frames a second and for a size that is not the request's.

    The other arguments, and what is raised, are those of `generate`; `plan` is for a part. The guardrail sees the
    prompt once and the new frames once, when all are made. Raises `InvalidRequestError` for `new_frames` and `overlap`
    out of their limits.
    """
    check_range("new_frames", new_frames, NEW_FRAMES)
    if overlap not in OVERLAPS:
        raise InvalidRequestError(f"overlap is {overlap!r}, but must be 5 or 1.")
    placement, observer, prompts = placement or OneAtATime("cpu"), observer or NullObserver(), prompts or PromptCache()
    request = replace(request, seed=request.seed_or_random())
    parts = lengths_of_parts(new_frames, request.num_frames, overlap)
    plan = plan or plan_for_parts(model, request, new_frames, overlap, placement)
    if guardrail:
        observer.progress("Checking the prompt", 0, 1)
        check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))

    frames = _frames_with_room(start, new_frames, request)
    done = len(frames) - new_frames
    for index, length in enumerate(parts):
        known = Start(frames[max(0, done - overlap) : done])
        given = len(known.given())
        part = generate(
            model,
            _request_of_part(request, index, given + length),
            start=known,
            placement=placement,
            plan=plan,
            observer=_PartObserver(observer, index, len(parts)),
            prompts=prompts,
        )
        frames[done : done + length] = part.frames[given : given + length]
        done += length
    if guardrail:
        observer.progress("Checking the video", 1, 1)
        frames[-new_frames:] = check_frames(guardrail, frames[-new_frames:], placement.make_room(GUARDRAIL_BYTES))
    return ExtendedVideo(frames, new_frames, request.seed_or_random(), FPS)


def _frames_with_room(start: Start, new_frames: int, request: GenerationRequest) -> Tensor:
    """The frames of `start` at 16 a second in the size of `request`, and after them room for `new_frames` more."""
    moments = start.moments()
    frames = torch.empty(len(moments) + new_frames, request.height, request.width, 3)
    for place, index in enumerate(moments):
        frames[place] = fit(start.frames[index], request.width, request.height)
    return frames


def _request_of_part(request: GenerationRequest, index: int, num_frames: int) -> GenerationRequest:
    seed = (request.seed_or_random() + index) % (SEED.maximum + 1)
    return replace(request, num_frames=max(NUM_FRAMES.minimum, num_frames), seed=seed)
