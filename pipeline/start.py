"""The start of a video: a picture, or the end of a clip. It is separate from the request, which is fal's JSON."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy
import torch
from PIL import Image
from torch import Tensor

from .errors import InvalidRequestError
from .request import FPS

CLIP_FRAMES = 5
"""Frames of a clip's end that the model sees: two latent frames. It was trained with none, one or two."""


@dataclass(frozen=True, eq=False)
class LongClip:
    """A clip at `fps` that is too long for memory. Each call of `frames` yields its frames from the beginning.

    `num_frames`: the exact number, up to the last frame of the source. `frames`: (H, W, C) each, as in `Start`; a
    repeated frame is the same object. `height`, `width`: in pixels. `frame_rate`: of the source, in frames per second.
    `skipped`: seconds of the source before the first frame, less than 1 / `fps`. `notes`: for the user; reading the
    frames may add to it. `fps`: the model's frame rate.
    """

    num_frames: int
    height: int
    width: int
    frame_rate: Fraction | float
    skipped: Fraction
    frames: Callable[[], Iterable[Tensor]]
    notes: Sequence[str] = ()
    fps: int = FPS

    def is_short(self) -> bool:
        """Return whether it is a clip with too few frames to show movement."""
        return 1 < self.num_frames < CLIP_FRAMES


@dataclass(frozen=True, eq=False)
class Start:
    """A picture, used as the first frame of the video, or a clip to continue.

    `frames`: (F, H, W, C), uint8, or floats in 0..1: gray with 1 channel, RGB with 3, or RGBA with 4, composited on
    black. One frame is a picture. `frame_rate`: of a clip, in frames per second. `notes`: for the user.

    Raises `InvalidRequestError` for another shape, type or rate.
    """

    frames: Tensor
    frame_rate: Fraction | float = FPS
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_batch(self.frames)
        shape = tuple(self.frames.shape)
        if len(shape) != 4 or shape[3] not in (1, 3, 4) or 0 in shape:
            raise InvalidRequestError(
                f"The shape of the picture or clip to start from is {shape}, but must be (frames, height, width, "
                "channels) with 1, 3 or 4 channels: connect an image or a video."
            )
        if not (self.frames.is_floating_point() or self.frames.dtype == torch.uint8):
            raise InvalidRequestError(
                f"The picture or clip to start from is {self.frames.dtype}, but must be floats in 0..1 or uint8."
            )
        if not (math.isfinite(self.frame_rate) and self.frame_rate > 0):
            raise InvalidRequestError(f"frame_rate is {self.frame_rate}, but must be a number above 0.")

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def last_frame(self) -> "Start":
        """Return the last frame, as a picture."""
        return replace(self, frames=self.frames[-1:])

    def frame_indices(self, fps: int = FPS) -> list[int]:
        """Return the indices of the frames shown 1 / `fps` s apart, up to the last one."""
        step, last = Fraction(self.frame_rate) / fps, self.num_frames - 1
        count = math.floor(last / step) + 1
        return [math.floor(last - back * step + Fraction(1, 2)) for back in reversed(range(count))]

    def skipped(self, fps: int = FPS) -> Fraction:
        """Return the seconds of the clip before the first of `frame_indices`, less than 1 / `fps`."""
        return (self.num_frames - 1) / Fraction(self.frame_rate) - Fraction(len(self.frame_indices(fps)) - 1, fps)

    def is_short(self) -> bool:
        """Return whether it is a clip with too few frames to show movement."""
        return self.num_frames > 1 and len(self.frame_indices()) < CLIP_FRAMES

    def as_long(self, fps: int = FPS) -> LongClip:
        """Return the same clip at `fps`, frame by frame."""
        height, width = self.frames.shape[1:3]
        indices = self.frame_indices(fps)

        def frames() -> Iterator[Tensor]:
            return (self.frames[index] for index in indices)

        return LongClip(len(indices), height, width, self.frame_rate, self.skipped(fps), frames, self.notes, fps)

    def conditioning_indices(self) -> list[int]:
        """Return the indices of the frames that the model sees: the last 5 at 16 fps, or the last one of fewer."""
        indices = self.frame_indices()
        return indices[-CLIP_FRAMES:] if len(indices) >= CLIP_FRAMES else indices[-1:]

    def conditioning_frames(self, width: int, height: int) -> Tensor:
        """Return the frames that the model sees, (1 or 5, height, width, 3), scaled by `fit`."""
        return torch.stack([fit(self.frames[index], width, height) for index in self.conditioning_indices()])


def check_batch(images: object) -> None:
    """Raise `InvalidRequestError` for images that are not a tensor."""
    if isinstance(images, (list, tuple)):
        raise InvalidRequestError(
            f"The images are a list of {len(images)}, but must be one batch: join them with Batch Images."
        )
    if not isinstance(images, Tensor):
        raise InvalidRequestError(f"The images are a {type(images).__name__}, but must be a batch of images.")


def fit(frame: Tensor, width: int, height: int) -> Tensor:
    """Scale and center-crop `frame`, (H, W, C), to RGB (height, width, 3), float32 in 0..1 on the CPU.

    Bilinear with antialiasing, directly from the cropped region, whose borders may lie inside pixels, so nothing is
    stretched. Source: `resize_input` of NVIDIA's cosmos-predict2.5, which rounds that region to whole pixels.
    """
    rgb = _to_rgb(frame)
    rows, columns = rgb.shape[:2]
    if (columns, rows) == (width, height):
        return rgb
    kept_width, kept_height = min(columns, rows * width / height), min(rows, columns * height / width)
    left, top = (columns - kept_width) / 2, (rows - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    channels = [
        Image.fromarray(channel.contiguous().numpy()).resize((width, height), Image.Resampling.BILINEAR, box)
        for channel in rgb.unbind(2)
    ]
    return torch.from_numpy(numpy.stack([numpy.asarray(channel) for channel in channels], axis=2))


def _to_rgb(frame: Tensor) -> Tensor:
    """Convert (H, W, 1, 3 or 4), floats or uint8, to (H, W, 3), float32 in 0..1 on the CPU. NaN becomes black."""
    values = frame.cpu().float() / (255 if frame.dtype == torch.uint8 else 1)
    values = values.nan_to_num(0).clamp(0, 1)
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:]
    return values.expand(-1, -1, 3)
