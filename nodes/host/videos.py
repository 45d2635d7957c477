"""ComfyUI's VIDEO: made from the pipeline's files, and read by the nodes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from ...pipeline.video import gif_frame_rate

if TYPE_CHECKING:
    from ...pipeline.clip import FileClip, FileSound
    from ...pipeline.start import Start
    from ...pipeline.video import VideoFile

VALUES = "cosmos_predict25"
CROP = "_VideoFromFile__crop"
KNOWN = {f"_VideoFromFile__{name}" for name in ("file", "start_time", "duration")} | {CROP, "_true_frame_rate", VALUES}
"""All attributes that a video in a file had in the releases of ComfyUI up to 0.46, and this pack's own."""


def with_values(video: Input.Video, values: dict[str, Any]) -> Input.Video:
    """The video with the values it was made with, for the export node: a graph does not have all of them."""
    vars(video)[VALUES] = values
    return video


def values_of(video: Input.Video | None) -> dict[str, Any] | None:
    return vars(video).get(VALUES) if video else None


def video_of(video: "VideoFile") -> Input.Video:
    """The file itself."""
    if video.path.suffix == ".gif":
        return GifVideo(str(video.path), video.fps)
    return InputImpl.VideoFromFile(str(video.path))


class GifVideo(InputImpl.VideoFromFile):
    """A GIF with its own frame rate. ComfyUI takes 100 over the shortest delay, which is up to 11 % too fast."""

    def __init__(self, file: str, frame_rate: Fraction | None = None) -> None:
        super().__init__(file)
        self._true_frame_rate = frame_rate

    def get_components(self) -> Types.VideoComponents:
        components = super().get_components()
        components.frame_rate = self._frame_rate_of(len(components.images))
        return components

    def get_frame_rate(self) -> Fraction:
        return self._frame_rate_of(self.get_frame_count())

    def _frame_rate_of(self, num_frames: int) -> Fraction:
        seconds = seconds_of(self)
        return self._true_frame_rate or (gif_frame_rate(num_frames, seconds) if seconds else super().get_frame_rate())


def seconds_of(video: Input.Video) -> float | None:
    """Return the duration, or None for a file without one, such as a raw H.264 stream or a GIF with one picture."""
    try:
        return video.get_duration()
    except (ValueError, OSError):
        return None


def is_in_file(video: Input.Video) -> TypeGuard[InputImpl.VideoFromFile]:
    """Whether a video is what its file holds, or the part of it from a time to a time.

    Not where it is of another pack's class, or has an attribute that is not known here: a later ComfyUI may change the
    frames by it, as Video Crop does. Such a video gives its frames by `get_components`.
    """
    if type(video) not in (InputImpl.VideoFromFile, GifVideo):
        return False
    attributes = vars(video)
    return attributes.keys() <= KNOWN and attributes.get(CROP) is None


def with_gif_frame_rate(video: Input.Video) -> Input.Video:
    """A GIF as `GifVideo`; any other video as it is."""
    file = file_of(video)
    if file is None or isinstance(video, GifVideo) or not str(file).lower().endswith(".gif"):
        return video
    return GifVideo(str(file))


@dataclass(frozen=True)
class Source:
    """What `export` takes of a video: frames in memory, or a file that is decoded while it is encoded again."""

    frames: "Tensor | FileClip"
    alpha: Tensor | None
    audio: "Input.Audio | FileSound | None"
    fps: Fraction

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as shown by a player."""
        if isinstance(self.frames, Tensor):
            height, width = self.frames.shape[1:3]
            return width, height
        shown = self.frames.with_square_pixels()
        return shown.width, shown.height

    def thinned(self, step: int) -> "Source":
        """Every `step`-th pixel both ways."""
        if not isinstance(self.frames, Tensor):
            return replace(self, frames=self.frames.thinned(step))
        alpha = None if self.alpha is None else self.alpha[:, ::step, ::step]
        return replace(self, frames=self.frames[:, ::step, ::step], alpha=alpha)


def source_of(video: Input.Video, audio: Input.Audio | None, raise_if_stopped: Callable[[], None]) -> Source:
    """The video with its sound, or with `audio`. Raises `InvalidRequestError` for a file that cannot be read."""
    from ...pipeline.start import check_batch

    clip = clip_in_file(video, raise_if_stopped)
    if clip is None:
        components = video.get_components()
        check_batch(components.images)
        return Source(components.images, alpha_of(components), audio or components.audio, components.frame_rate)
    return Source(clip, None, audio or clip.sound(), clip.frame_rate)


def clip_in_file(video: Input.Video, raise_if_stopped: Callable[[], None] | None = None) -> "FileClip | None":
    """The video's part of its file. None for a video that has to give its frames itself."""
    from ...pipeline.clip import FileClip

    window = window_of(video)
    if window is None:
        return None
    return FileClip(*window, raise_if_stopped) if raise_if_stopped else FileClip(*window)


def window_of(video: Input.Video) -> tuple[str | os.PathLike[str] | BytesIO, float, float] | None:
    """The file, and the start and duration of what is taken of it, in seconds, as `FileClip` takes them.

    None for a video that has to give its frames itself.
    """
    if not is_in_file(video):
        return None
    start, duration = (float(vars(video)[f"_VideoFromFile__{name}"]) for name in ("start_time", "duration"))
    return video.get_stream_source(), start, duration


def start_of(components: Types.VideoComponents) -> "Start":
    """Return the frames, with their alpha, as the start of another video."""
    from ...pipeline.start import Start

    alpha = alpha_of(components)
    frames = components.images if alpha is None else torch.cat([components.images, alpha], dim=3)
    return Start(frames, components.frame_rate)


def end_of(video: Input.Video) -> "Start":
    """What another video starts from. Of a file only the end is decoded, and its sound not at all."""
    from ...pipeline.clip.start import start_from_end

    clip = clip_in_file(video)
    return start_of(video.get_components()) if clip is None else start_from_end(clip)


def alpha_of(components: Types.VideoComponents) -> Tensor | None:
    """Return the alpha (F, H, W, 1), or None if all is opaque. Older ComfyUI versions keep no alpha of a video."""
    from ...pipeline.clip.pictures import OPAQUE

    alpha = getattr(components, "alpha", None)
    return None if alpha is None or alpha.amin() >= OPAQUE else alpha


def file_of(video: Input.Video) -> str | os.PathLike[str] | None:
    """The file that holds this video and nothing else, or None for frames, a part of a file, or a file in memory."""
    window = window_of(video)
    return window[0] if window and not isinstance(window[0], BytesIO) and is_whole(*window) else None


def is_whole(file: str | os.PathLike[str] | BytesIO, start: float, duration: float) -> bool:
    if start:
        return False
    seconds = seconds_of(InputImpl.VideoFromFile(cast(str, file))) if duration else 0.0
    return seconds is not None and duration >= seconds
