"""ComfyUI's VIDEO: from the pipeline's files, and what a node asks of one that it is given."""

import os
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import Input, InputImpl, Types
from torch import Tensor

from ...pipeline.request import FPS
from ...pipeline.video import gif_frame_rate

if TYPE_CHECKING:
    from ...pipeline.start import Start
    from ...pipeline.video import RemoteVideo

END_SECONDS = 0.5
"""Enough for five frames at 16 a second."""
VALUES = "cosmos_predict25"
OPAQUE = 1 - 0.5 / 255
"""What a ProRes decoder gives for opaque is a little less than 1."""


def with_values(video: Input.Video, values: dict[str, Any]) -> Input.Video:
    """The video itself, which tells the export node what it was made with: a graph does not have all of it."""
    vars(video)[VALUES] = values
    return video


def values_of(video: Input.Video | None) -> dict[str, Any] | None:
    return vars(video).get(VALUES) if video else None


def video_of(video: "RemoteVideo") -> Input.Video:
    """fal's own file."""
    if video.path.suffix == ".gif":
        return GifVideo(str(video.path), video.fps)
    return InputImpl.VideoFromFile(str(video.path))


class GifVideo(InputImpl.VideoFromFile):
    """A GIF with its own frame rate. ComfyUI takes it for 100 over the shortest delay, which is up to 11 % too fast."""

    def __init__(self, file: str, frame_rate: Fraction | None = None) -> None:
        super().__init__(file)
        self._true_frame_rate = frame_rate

    def get_components(self) -> Types.VideoComponents:
        components = super().get_components()
        components.frame_rate = self._true_frame_rate or gif_frame_rate(len(components.images), self.get_duration())
        return components

    def get_frame_rate(self) -> Fraction:
        return self._true_frame_rate or gif_frame_rate(self.get_frame_count(), self.get_duration())


def with_gif_frame_rate(video: Input.Video) -> Input.Video:
    """A GIF as `GifVideo`; any other video as it is."""
    file = file_of(video)
    if file is None or isinstance(video, GifVideo) or not str(file).lower().endswith(".gif"):
        return video
    return GifVideo(str(file))


def with_sound(video: Input.Video, audio: Input.Audio) -> Input.Video:
    """The video's frames with another sound."""
    return InputImpl.VideoFromComponents(replace(video.get_components(), audio=audio))


def components_of(video: Input.Video | Tensor) -> Types.VideoComponents:
    """All frames and the sound of a video, or images at 16 a second."""
    if isinstance(video, Tensor):
        return Types.VideoComponents(images=video, frame_rate=Fraction(FPS))
    return with_gif_frame_rate(video).get_components()


def start_of(components: Types.VideoComponents) -> "Start":
    """The frames, with their alpha, to start another video from."""
    from ...pipeline.start import Start

    alpha = alpha_of(components)
    frames = components.images if alpha is None else torch.cat([components.images, alpha], dim=3)
    return Start(frames, components.frame_rate)


def end_of(video: Input.Video) -> "Start":
    """What another video starts from. Of a file only the end is decoded: ComfyUI keeps in memory what it decodes."""
    video = with_gif_frame_rate(video)
    if isinstance(video, InputImpl.VideoFromFile) and not isinstance(video, GifVideo):
        before = max(0.0, float(video.get_frame_count() / video.get_frame_rate()) - END_SECONDS)
        # A duration, because ComfyUI takes none for all that follows in the file.
        video = video.as_trimmed(before, video.get_duration() - before, strict_duration=False) or video
    return start_of(video.get_components())


def alpha_of(components: Types.VideoComponents) -> Tensor | None:
    """(F, H, W, 1), or None where all is opaque. ComfyUI's older versions keep no alpha of a video."""
    alpha = getattr(components, "alpha", None)
    return None if alpha is None or alpha.amin() >= OPAQUE else alpha


def file_of(video: Input.Video) -> str | os.PathLike[str] | None:
    """The file that holds this video and nothing else, or None for frames, a part of a file, or a file in memory."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    source = video.get_stream_source()
    if not isinstance(source, str | os.PathLike):
        return None
    is_whole = video.get_duration() == InputImpl.VideoFromFile(source).get_duration()
    return source if is_whole else None
