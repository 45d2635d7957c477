"""A video longer than the model makes at once: part after part, each from the end of the one before."""

from dataclasses import replace

from ..errors import NotEnoughMemoryError
from ..observer import NullObserver, Observer, PartObserver
from ..request import FPS, NUM_FRAMES, SEED, GenerationRequest
from ..start import CLIP_FRAMES, Start, frames_with_room, lengths_of_parts
from ..video import ExtendedVideo
from .generate import GUARDRAIL_BYTES, generate, plan_for
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .model import LocalModel
from .placement import OneAtATime, Placement
from .plan import GIB, Plan, frame_bytes
from .prompt_cache import PromptCache


def plan_for_parts(
    model: LocalModel,
    request: GenerationRequest,
    start: Start,
    new_frames: int,
    overlap: int,
    placement: Placement,
    even_parts: bool = False,
) -> Plan:
    """How `placement` can make each part of `extend` now. Raises `NotEnoughMemoryError`, for the whole video too."""
    ram, old_frames = placement.memory().ram, len(start.moments())
    needed = frame_bytes(old_frames + new_frames, request.height, request.width)
    if needed > ram:
        raise NotEnoughMemoryError(
            f"{request.width}x{request.height} with {old_frames} frames of the source and {new_frames} new ones takes "
            f"{needed / GIB:.1f} GiB of RAM, and {ram / GIB:.1f} GiB are free. Trim the source, or lower new_frames or "
            "the size."
        )
    longest = lengths_of_parts(new_frames, request.num_frames, overlap, even_parts)[0]
    return plan_for(model, _request_of_part(request, 0, overlap + longest), placement, overlap)


def extend(
    model: LocalModel,
    request: GenerationRequest,
    start: Start,
    new_frames: int = NUM_FRAMES.maximum - CLIP_FRAMES,
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
    out of their limits.
    """
    placement, observer, prompts = placement or OneAtATime("cpu"), observer or NullObserver(), prompts or PromptCache()
    request = replace(request, seed=request.seed_or_random())
    parts = lengths_of_parts(new_frames, request.num_frames, overlap, even_parts)
    plan = plan or plan_for_parts(model, request, start, new_frames, overlap, placement, even_parts)
    if guardrail:
        observer.progress("Checking the prompt", 0, 1)
        check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))

    frames = frames_with_room(start, new_frames, request.width, request.height, observer)
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
            observer=PartObserver(observer, index, len(parts)),
            prompts=prompts,
        )
        frames[done : done + length] = part.frames[given : given + length]
        done += length
    if guardrail:
        observer.progress("Checking the video", 1, 1)
        frames[-new_frames:] = check_frames(guardrail, frames[-new_frames:], placement.make_room(GUARDRAIL_BYTES))
    return ExtendedVideo(frames, new_frames, request.seed_or_random(), FPS)


def _request_of_part(request: GenerationRequest, index: int, num_frames: int) -> GenerationRequest:
    seed = (request.seed_or_random() + index) % (SEED.maximum + 1)
    return replace(request, num_frames=max(NUM_FRAMES.minimum, num_frames), seed=seed)
