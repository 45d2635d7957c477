"""A video longer than the model makes at once, on this machine."""

from dataclasses import replace

from ..extension import DEFAULT_NEW_FRAMES, Extension, lengths_of_parts
from ..observer import NullObserver, Observer, PartObserver
from ..request import NUM_FRAMES, GenerationRequest
from ..start import CLIP_FRAMES, LongClip, Start
from ..video import ExtendedVideo
from .generate import GUARDRAIL_BYTES, generate, plan_for
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .model import LocalModel
from .placement import OneAtATime, Placement
from .plan import Plan
from .prompt_cache import PromptCache


def plan_for_parts(
    model: LocalModel,
    request: GenerationRequest,
    new_frames: int,
    overlap: int,
    placement: Placement,
    even_parts: bool = False,
) -> Plan:
    """Return how `placement` can make each part of `extend` now. Raises `NotEnoughMemoryError`."""
    longest = overlap + lengths_of_parts(new_frames, request.num_frames, overlap, even_parts)[0]
    return plan_for(model, replace(request, num_frames=max(NUM_FRAMES.minimum, longest)), placement, overlap)


def extend(
    model: LocalModel,
    request: GenerationRequest,
    start: Start | LongClip,
    new_frames: int = DEFAULT_NEW_FRAMES,
    *,
    overlap: int = CLIP_FRAMES,
    even_parts: bool = False,
    placement: Placement | None = None,
    plan: Plan | None = None,
    observer: Observer | None = None,
    guardrail: SafetyCheckerFactory | None = None,
    prompts: PromptCache | None = None,
) -> ExtendedVideo:
    """Make `new_frames` frames, 1 to 880 at 16 a second, that follow those of `start`.

    They are made in parts of `request.num_frames` frames and a shorter last one, or with `even_parts` in as many of
    about the same length, with the request's seed and those after it. Each part
    begins with the last `overlap` frames, 5 or 1, of what is there, which are cut from it; where `start` has fewer than
    5, with its last one. One overlapping frame does not tell how things move. The frames of `start` are kept as they
    are, but for those that are not shown at 16 frames a second and for a size that is not the request's.

    The other arguments, and what is raised, are those of `generate`; `plan` is for a part. The guardrail sees the
    prompt once and the new frames once, when all are made. Raises `InvalidRequestError` for `new_frames` and `overlap`
    out of their limits, and `NotEnoughMemoryError` for the whole video too.
    """
    placement, observer, prompts = placement or OneAtATime("cpu"), observer or NullObserver(), prompts or PromptCache()
    extension = Extension(start, request, new_frames, overlap, even_parts=even_parts, ram=placement.memory().ram)
    plan = plan or plan_for_parts(model, request, new_frames, overlap, placement, even_parts)
    if guardrail:
        observer.progress("Checking the prompt", 0, 1)
        check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))

    for part in extension.parts(observer):
        video = generate(
            model,
            part.request,
            start=part.start,
            placement=placement,
            plan=plan,
            observer=PartObserver(observer, part.index, len(extension)),
            prompts=prompts,
        )
        extension.append(video.frames[part.num_conditioning_frames : part.num_conditioning_frames + part.length])
    joined = extension.video()
    if guardrail:
        observer.progress("Checking the video", 1, 1)
        joined.added.copy_(check_frames(guardrail, joined.added, placement.make_room(GUARDRAIL_BYTES)))
    return joined
