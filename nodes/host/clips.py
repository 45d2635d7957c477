"""Pictures and clips that a video starts from, and the extended videos."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from comfy import model_management
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from ...pipeline.errors import InvalidRequestError
from ...pipeline.request import FPS
from .videos import clip_in_file, end_of, start_of, with_values

if TYPE_CHECKING:
    from ...pipeline.clip import FileClip, FileSound
    from ...pipeline.start import LongClip, Start
    from ...pipeline.video import ExtendedVideo

MICROSECONDS = 1_000_000


def refuse_two_starts(both: bool) -> None:
    """Raise `InvalidRequestError` if both an image and a video are connected."""
    if both:
        raise InvalidRequestError(
            "Both image and video are connected, but a video starts from only one: disconnect one of them."
        )


def start_from(image: Input.Image | None, video: Input.Video | None) -> "Start | None":
    """Return the picture or clip that a video starts from, or None if neither is connected."""
    from ...pipeline.start import Start

    if image is not None:
        return Start(image)
    return end_of(video) if video is not None else None


def video_from(frames: Tensor, fps: Fraction | float = FPS, audio: Input.Audio | None = None) -> Input.Video:
    return InputImpl.VideoFromComponents(Types.VideoComponents(frames, Fraction(fps), audio))


def free_ram() -> float:
    """Return the bytes of RAM that are free."""
    free: Any = model_management.get_free_memory(torch.device("cpu"))
    return free


def clip_of(
    video: Input.Video | Tensor, raise_if_stopped: Callable[[], None], fps: int = FPS
) -> tuple["LongClip", Input.Audio | None]:
    """Return all frames of a video, or of images, at `fps`, and the sound. A file is decoded on demand.

    Raises `InvalidRequestError` for a file that cannot be read, and for a list or a batch of sounds.
    """
    from ...pipeline.export.sound import sound_of

    if isinstance(video, (Tensor, list)):
        return start_of(Types.VideoComponents(images=video, frame_rate=Fraction(fps))).as_long(fps), None
    clip = clip_in_file(video, raise_if_stopped)
    if clip is not None:
        return long_clip(clip, fps), audio_of(clip.sound())
    components = video.get_components()
    sound_of(components.audio)
    return start_of(components).as_long(fps), components.audio


def long_clip(clip: "FileClip", fps: int = FPS) -> "LongClip":
    """Return the frames at `fps`, with square pixels."""
    from ...pipeline.start import LongClip

    clip = clip.with_square_pixels()
    moments = clip.times.moments(fps)
    skipped = Fraction(moments[0] - clip.begin).limit_denominator(MICROSECONDS)
    frames = partial(clip.frames_at, moments)
    return LongClip(len(moments), clip.height, clip.width, clip.frame_rate, skipped, frames, clip.notes, fps)


def audio_of(sound: "FileSound | None") -> Input.Audio | None:
    """Return all of a sound."""
    if sound is None:
        return None
    samples = bytearray()  # it grows in its place: a list of pieces to be joined would take the memory twice
    for chunk in sound.chunks():
        samples += chunk.T.tobytes()
    if not samples:
        return None
    waveform = torch.frombuffer(samples, dtype=torch.float32).view(-1, sound.channels).T[None]
    return {"waveform": waveform, "sample_rate": sound.sample_rate}


def extended_videos(
    made: "ExtendedVideo", clip: "LongClip", audio: Input.Audio | None, values: dict[str, Any]
) -> tuple[Input.Video, Input.Video]:
    """Return the joined video, with the sound of `clip`, and the added one. `values`: the settings of both."""
    joined = video_from(made.frames, made.fps, sound_from(audio, clip.skipped))
    values = {**values, "seed": made.seed, "new_frames": made.new_frames}
    return (
        with_values(joined, {**values, "num_frames": len(made.frames)}),
        with_values(video_from(made.added, made.fps), {**values, "num_frames": made.new_frames}),
    )


def sound_from(audio: Input.Audio | None, seconds: Fraction) -> Input.Audio | None:
    """Return `audio` without its first `seconds`."""
    if audio is None:
        return None
    return {**audio, "waveform": audio["waveform"][..., round(seconds * audio["sample_rate"]) :]}
