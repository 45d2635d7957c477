"""Lines on a node about the plan and the result."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...pipeline.request import FPS, GenerationRequest, Prompt, SamplerSettings

if TYPE_CHECKING:
    from ...pipeline.local.plan import Plan
    from ...pipeline.start import LongClip, Start
    from ...pipeline.video import ExtendedVideo, LocalVideo
    from .memory import HostedModel


def describe(plan: "Plan") -> list[str]:
    """Return the plan in words, or nothing if memory has no limit."""
    from ...pipeline.local.sizes import UNLIMITED

    return [] if plan.memory == UNLIMITED else [plan.describe()]


def while_making(
    hosted: "HostedModel", plan: "Plan", asked: GenerationRequest, start: "Start | LongClip | None"
) -> str:
    """Return the lines below the progress, and log the plan. Warnings come while there is time to stop."""
    for line in describe(plan):
        logging.info(f"Cosmos Predict2.5: {line}")
    return "\n".join([*describe(plan), *hosted.model.variant.warnings(asked.schedule, start)])


def notes_on_video(hosted: "HostedModel", asked: GenerationRequest, start: "Start | LongClip | None") -> list[str]:
    """Return how the video differs from the request, and why."""
    from ...pipeline.local.encode import first_truncated_word
    from ...pipeline.local.generate import largest_shape
    from ...pipeline.local.load.find import DEMO_FOLDER, names_a_demo_shape
    from ...pipeline.local.sizes import MAX_TOKENS
    from ...pipeline.start import CLIP_FRAMES

    model, found = hosted.model, []
    frames, height, width = largest_shape(model.transformer)
    if asked.num_frames > frames or asked.height > height or asked.width > width:
        found.append(f"This checkpoint makes at most {width}x{height} and {frames} frames.")
    found += model.variant.warnings(asked.schedule, start)
    if model.name == DEMO_FOLDER.name and not names_a_demo_shape(asked.prompt):
        found.append("The demo draws only circles, squares and triangles, but the prompt names none of them.")
    for name in ("prompt", "negative_prompt"):
        if word := first_truncated_word(model.tokenizer, getattr(asked, name)):
            found.append(f"{name} was truncated to {MAX_TOKENS} tokens, at the word {word!r}.")
    if start and start.is_short() and not model.variant.takes_one_frame:
        found.append(f"The clip has fewer than {CLIP_FRAMES} frames at {FPS} fps: only its last frame was used.")
    return found


def notes_on_source(clip: "LongClip", made: "ExtendedVideo") -> Iterator[str]:
    """Yield how the kept frames differ from the source."""
    height, width = made.frames.shape[1:3]
    if (clip.width, clip.height) != (width, height):
        yield f"The source was scaled and cropped from {clip.width}x{clip.height} to {width}x{height}."
    yield from clip.notes
    if clip.frame_rate != clip.fps:
        yield f"The source was converted from {float(clip.frame_rate):.5g} fps to {clip.fps} fps."


def made_with(
    hosted: "HostedModel", prompt: Prompt, settings: SamplerSettings, made: "LocalVideo | ExtendedVideo"
) -> dict[str, Any]:
    """Return the values that a local video was made with, for its file."""
    num_frames, height, width = made.frames.shape[:3]
    values = {"checkpoint": hosted.model.name, **asdict(prompt), **asdict(settings)}
    return {**values, "seed": made.seed, "num_frames": num_frames, "width": width, "height": height}
