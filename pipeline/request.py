"""The request for a video: fields, limits and defaults, shared by local and remote generation.

The field names are the hosted API's (fal-ai/cosmos-predict-2.5).
"""

import math
import secrets
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from .errors import InvalidRequestError
from .formats import FORMATS

FPS = 16
"""The model's frame rate, in frames per second."""

DEFAULT_NEGATIVE_PROMPT = (
    "The video captures a series of frames showing ugly scenes, static with no motion, motion blur, over-saturation, "
    "shaky footage, low resolution, grainy texture, pixelated images, poorly lit areas, underexposed and overexposed "
    "scenes, poor color balance, washed out colors, choppy sequences, jerky movements, low frame rate, artifacting, "
    "color banding, unnatural transitions, outdated special effects, fake elements, unconvincing visuals, poorly "
    "edited content, jump cuts, visual noise, and flickering. Overall, the video is of poor quality."
)
VIDEO_OUTPUT_TYPES = tuple(FORMATS)
VIDEO_QUALITIES = ("low", "medium", "high", "maximum")
SCHEDULES = STANDARD, FEW_STEPS, DISTILLED, DISTILLED_ODE = ("standard", "few steps", "distilled", "distilled (ODE)")
FOUR_STEPS = (DISTILLED, DISTILLED_ODE)
MAX_DISTILLED_STEPS = 4
DISTILLED_VALUES = {"num_inference_steps": MAX_DISTILLED_STEPS, "guidance_scale": 1.0}
"""Used by the distilled schedules in place of the fields' defaults, which they do not allow."""
MIN_RECOMMENDED_STEPS = 12
"""With fewer steps a video degrades a lot, in either of the other schedules."""
STRONG_GUIDANCE, MIN_GUIDED_STEPS = 7.0, 11
"""Guidance this strong ruins a video of fewer standard steps: a quarter of the demo's show another object."""


Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Range(Generic[Number]):
    """The numbers a field accepts: multiples of `step` from `minimum` to `maximum`, both included."""

    minimum: Number
    maximum: Number
    step: int = 1
    optional: bool = False


NUM_FRAMES = Range(9, 93)
NUM_INFERENCE_STEPS = Range(1, 50)
DISTILLED_STEPS = Range(1, 20)
DISTILLED_DEFAULT_STEPS = 10
GUIDANCE_SCALE = Range(1.0, 20.0)
SEED = Range(0, 2**31 - 1, optional=True)
NEW_FRAMES = Range(1, 880)
SIDE = Range(16, 1920, step=16)
"""Width and height in pixels. The transformer's position embedding has 240 latents of 8 pixels."""


def check_range(name: str, value: Any, limits: Range) -> None:
    """Raise `InvalidRequestError` unless `value` is within `limits`."""
    if value is None and limits.optional:
        return
    whole = isinstance(limits.minimum, int)
    number = int if whole else (int, float)
    # math.isfinite cannot take a whole number of 400 digits.
    if isinstance(value, bool) or not isinstance(value, number) or not -math.inf < value < math.inf:
        kind = "a whole number" if whole else "a number"
        raise InvalidRequestError(f"{name} must be {kind} from {limits.minimum} to {limits.maximum}, got {value!r}.")
    if not limits.minimum <= value <= limits.maximum:
        raise InvalidRequestError(f"{name} is {value}, but must be from {limits.minimum} to {limits.maximum}.")
    if limits.step > 1 and value % limits.step:
        below = value - value % limits.step
        near = f"{below} or {below + limits.step}"
        raise InvalidRequestError(f"{name} is {value}, but must be a multiple of {limits.step}: try {near}.")


def _check_text(name: str, value: Any, may_be_blank: bool) -> None:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} must be text, got {type(value).__name__}.")
    if not may_be_blank and not value.strip():
        raise InvalidRequestError(f"{name} is blank. Describe the scene and what happens in it, in a few sentences.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"Character {error.start + 1} of {name} is {value[error.start]!a}, an unpaired surrogate instead of a "
            "character: delete it."
        ) from None


def check_field(request_type: type, name: str, value: Any) -> None:
    """Raise `InvalidRequestError` unless `value` is valid for the field `name` of the dataclass `request_type`."""
    limits = next(item for item in fields(request_type) if item.name == name).metadata["limits"]
    if isinstance(limits, Range):
        check_range(name, value, limits)
    elif limits is str:
        _check_text(name, value, may_be_blank=name != "prompt")
    elif limits is bool and not isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be true or false, got {value!r}.")
    elif isinstance(limits, tuple) and value not in limits:
        raise InvalidRequestError(f"{name} is {value!r}, but must be one of {', '.join(limits)}.")


def _field(limits: Any, **default: Any) -> Any:
    return field(metadata={"limits": limits}, **default)


class _Checked:
    """A dataclass that checks every field against its limits, also in subclasses."""

    def __post_init__(self) -> None:
        for item in fields(self):  # pyright: ignore[reportArgumentType]
            check_field(type(self), item.name, getattr(self, item.name))


@dataclass(frozen=True, kw_only=True)
class Prompt(_Checked):
    """The prompt and the negative prompt. Raises `InvalidRequestError` for a blank prompt."""

    prompt: str = _field(str)
    negative_prompt: str = _field(str, default=DEFAULT_NEGATIVE_PROMPT)


@dataclass(frozen=True, kw_only=True)
class SamplerSettings(_Checked):
    """The sampler's settings. Raises `InvalidRequestError` for a value outside its limits.

    `num_frames`: frames in the finished video, at 16 fps. The model makes the next 4k+1, and the extra ones are
    dropped. `guidance_scale`: g in v = cond + g * (cond - uncond), so 7 here is "cfg 8" in other tools. `seed`: None
    draws a random one; see `GenerationRequest.seed_or_random`. `width`, `height`: in pixels.
    `schedule`: the spacing of a local model's steps; fal has its own. "standard" is NVIDIA's, "few steps" is for 12 to
    20 steps. "distilled" is for NVIDIA's distilled checkpoint or LoRA, and "distilled (ODE)" for the DFD checkpoint.
    Both have at most 4 steps and no guidance: the defaults of 35 steps and guidance 7 become 4 and 1 there.
    """

    num_frames: int = _field(NUM_FRAMES, default=93)
    num_inference_steps: int = _field(NUM_INFERENCE_STEPS, default=35)
    guidance_scale: float = _field(GUIDANCE_SCALE, default=7.0)
    seed: int | None = _field(SEED, default=None)
    width: int = _field(SIDE, default=1280)
    height: int = _field(SIDE, default=704)
    schedule: str = _field(SCHEDULES, default=STANDARD)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule in FOUR_STEPS:
            self._replace_defaults()
            self._check_distilled()

    def _replace_defaults(self) -> None:
        for name, value in DISTILLED_VALUES.items():
            if getattr(self, name) == getattr(SamplerSettings, name):
                object.__setattr__(self, name, value)

    def _check_distilled(self) -> None:
        if self.guidance_scale > 1:
            raise InvalidRequestError(
                f"guidance_scale is {self.guidance_scale:g}, but the schedule {self.schedule!r} has no guidance: set "
                "it to 1."
            )
        if self.num_inference_steps > MAX_DISTILLED_STEPS:
            raise InvalidRequestError(
                f"num_inference_steps is {self.num_inference_steps}, but the schedule {self.schedule!r} has 1 to "
                f"{MAX_DISTILLED_STEPS}."
            )

    def warnings(self) -> list[str]:
        """Return a warning for each setting that is valid but degrades a local video."""
        if self.schedule in FOUR_STEPS:
            return []
        steps, found, is_standard = self.num_inference_steps, [], self.schedule == STANDARD
        if steps < MIN_RECOMMENDED_STEPS:
            better = f", and {FEW_STEPS!r} loses less than {STANDARD!r}" if is_standard else ""
            found.append(f"{steps} steps are few: from {MIN_RECOMMENDED_STEPS} on the video loses less{better}.")
        if is_standard and self.guidance_scale >= STRONG_GUIDANCE and steps < MIN_GUIDED_STEPS:
            found.append(f"guidance_scale {self.guidance_scale:g} is too strong for {steps} steps.")
        return found


@dataclass(frozen=True, kw_only=True)
class GenerationRequest(Prompt, SamplerSettings):
    """A request for one video. Raises `InvalidRequestError`, which names the field, the value and the limit.

    The last three fields are for the hosted API; locally, the export node has them.
    """

    sync_mode: bool = _field(bool, default=False)
    video_output_type: str = _field(VIDEO_OUTPUT_TYPES, default=VIDEO_OUTPUT_TYPES[0])
    video_quality: str = _field(VIDEO_QUALITIES, default="high")

    @classmethod
    def combine(cls, prompt: Prompt, settings: SamplerSettings, **options: Any) -> "GenerationRequest":
        """Combine the two halves that travel through a graph into a request."""
        halves = {item.name: getattr(half, item.name) for half in (prompt, settings) for item in fields(half)}
        return cls(**halves, **options)

    def seed_or_random(self) -> int:
        """Return the seed, or a random one if there is none."""
        return secrets.randbelow(SEED.maximum + 1) if self.seed is None else self.seed
