"""Make a video longer than the model's maximum on this machine."""

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
    """Return the plan for one segment of `extend` in the free memory. Raises `NotEnoughMemoryError`."""
    overlap = model.variant.overlap_of(overlap)
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
    """Continue `start` by `new_frames` frames, 1 to 880, at the fps of the model's variant, 16 for most.

    They are made in segments of `request.num_frames` frames and a shorter last one, or with `even_parts` in as many
    segments of about equal length. The first segment uses the request's seed, each later one the next. A segment begins
    with the last `overlap` frames so far, 5 or 1, which are then removed from it; some variants take only 1. A `start`
    with fewer than 5 frames gives only its last one, and one frame does not show movement. The frames of `start` are
    kept unchanged, unless their rate is not the model's or their size is not the request's. A `LongClip` must have the
    model's rate.

    The other arguments and exceptions are as in `generate`; `plan` is for one segment. The guardrail checks the prompt
    once, and all new frames once at the end. Raises `InvalidRequestError` for `new_frames` and `overlap` outside their
    limits, and `NotEnoughMemoryError` also for the whole video.
    """
    placement, observer, prompts = placement or OneAtATime("cpu"), observer or NullObserver(), prompts or PromptCache()
    ram, fps, overlap = placement.memory().ram, model.variant.fps, model.variant.overlap_of(overlap)
    extension = Extension(start, request, new_frames, overlap, even_parts=even_parts, ram=ram, fps=fps)
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
