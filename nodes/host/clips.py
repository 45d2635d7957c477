"""Pictures and clips that a node is given to start from, and the longer ones that it makes of them."""

from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy
import torch
from comfy import model_management
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from ...pipeline.errors import InvalidRequestError
from ...pipeline.request import FPS
from .videos import end_of, start_of, window_of, with_gif_frame_rate, with_values

if TYPE_CHECKING:
    from ...pipeline.clip import FileClip, FileSound
    from ...pipeline.start import LongClip, Start
    from ...pipeline.video import ExtendedVideo


def refuse_two_starts(both: bool) -> None:
    """Raise `InvalidRequestError` where both an image and a video are connected."""
    if both:
        raise InvalidRequestError("Both image and video are connected: a video starts from one of them.")


def start_from(image: Input.Image | None, video: Input.Video | None) -> "Start | None":
    """Return the picture or clip that a video starts from, or None where neither is connected."""
    from ...pipeline.start import Start

    if image is not None:
        return Start(image)
    return end_of(video) if video is not None else None


def video_from(frames: Tensor, fps: Fraction | float = FPS, audio: Input.Audio | None = None) -> Input.Video:
    return InputImpl.VideoFromComponents(Types.VideoComponents(frames, Fraction(fps), audio))


def dimensions_of(video: Input.Video) -> tuple[int, int]:
    """Return width and height. Raises `InvalidRequestError` for a file that cannot be read."""
    from ...pipeline.clip.file import as_invalid_request

    with as_invalid_request("The video"):
        return video.get_dimensions()


def free_ram() -> float:
    """Return the bytes of RAM that are free."""
    free: Any = model_management.get_free_memory(torch.device("cpu"))
    return free


def clip_of(video: Input.Video | Tensor, raise_if_stopped: Callable[[], None]) -> tuple["LongClip", Input.Audio | None]:
    """Return all frames of a video, or of images at 16 fps, and the sound. A file is decoded when they are asked for.

    Raises `InvalidRequestError` for a file that cannot be read.
    """
    if isinstance(video, Tensor):
        return start_of(Types.VideoComponents(images=video, frame_rate=Fraction(FPS))).as_long(), None
    video = with_gif_frame_rate(video)
    if window_of(video) is not None:
        return clip_of_file(video, raise_if_stopped)
    components = video.get_components()
    return start_of(components).as_long(), components.audio


def clip_of_file(video: Input.Video, raise_if_stopped: Callable[[], None]) -> tuple["LongClip", Input.Audio | None]:
    from ...pipeline.clip import FileClip, FileSound
    from ...pipeline.start import LongClip

    window = window_of(video)
    assert window
    file, begin, duration = window
    clip = FileClip(file, begin, duration, raise_if_stopped=raise_if_stopped)
    count, rate = count_pictures(clip, raise_if_stopped), video.get_frame_rate()
    audio = audio_of(FileSound.of(file, begin), duration)
    return LongClip(count, clip.height, clip.width, rate, clip.frames), audio


def count_pictures(clip: "FileClip", raise_if_stopped: Callable[[], None]) -> int:
    """Return how many are decoded: the number that the file gives may be a little off."""
    count = 0
    with closing(clip.pictures()) as pictures:
        for _ in pictures:
            raise_if_stopped()
            count += 1
    return count


def audio_of(sound: "FileSound | None", seconds: float) -> Input.Audio | None:
    """Return the first `seconds` of a sound, where 0 is all."""
    chunks = list(sound.chunks()) if sound else []
    if not sound or not chunks:
        return None
    samples = numpy.concatenate(chunks, axis=1)
    end = int(seconds * sound.sample_rate) if seconds else samples.shape[1]
    return {"waveform": torch.from_numpy(samples[:, :end])[None], "sample_rate": sound.sample_rate}


def extended_videos(
    made: "ExtendedVideo", clip: "LongClip", audio: Input.Audio | None, values: dict[str, Any]
) -> tuple[Input.Video, Input.Video]:
    """Return the joined video, with the sound of `clip`, and the added one. `values`: the settings of both."""
    joined = video_from(made.frames, audio=sound_from(audio, clip.skipped()))
    values = {**values, "seed": made.seed, "new_frames": made.new_frames}
    return (
        with_values(joined, {**values, "num_frames": len(made.frames)}),
        with_values(video_from(made.added), {**values, "num_frames": made.new_frames}),
    )


def sound_from(audio: Input.Audio | None, seconds: Fraction) -> Input.Audio | None:
    """Return `audio` without its first `seconds`."""
    if audio is None:
        return None
    return {**audio, "waveform": audio["waveform"][..., round(seconds * audio["sample_rate"]) :]}
