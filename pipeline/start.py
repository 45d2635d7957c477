"""What a video starts from: a picture, or the end of a clip. It travels beside the request, which is fal's JSON."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy
import torch
from PIL import Image
from torch import Tensor

from .errors import InvalidRequestError
from .observer import Observer
from .request import FPS, NEW_FRAMES, check_range

CLIP_FRAMES = 5
"""Of a clip's end that the model is given: two latent frames. It was trained with one, two or none."""
OVERLAPS = (CLIP_FRAMES, 1)
"""From how many frames of what is there a video may go on."""


@dataclass(frozen=True, eq=False)
class Start:
    """A picture, the first frame of the video to make, or a clip that the video goes on from.

    `frames`: (F, H, W, C), uint8, or floats in 0..1: gray with 1 channel, RGB with 3, RGBA with 4, which is put on
    black. One frame is a picture. `frame_rate`: of a clip, frames per second.

    Raises `InvalidRequestError` for another shape, type or rate.
    """

    frames: Tensor
    frame_rate: Fraction | float = FPS

    def __post_init__(self) -> None:
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

    def moments(self) -> list[int]:
        """The indices of the frames that are shown 1/16 s apart, up to the last one."""
        step, last = Fraction(self.frame_rate) / FPS, len(self.frames) - 1
        count = math.floor(last / step) + 1
        return [math.floor(last - back * step + Fraction(1, 2)) for back in reversed(range(count))]

    def skipped(self) -> Fraction:
        """Seconds of the clip before the first of `moments`: less than 1/16."""
        return (len(self.frames) - 1) / Fraction(self.frame_rate) - Fraction(len(self.moments()) - 1, FPS)

    def is_short(self) -> bool:
        """Whether it is a clip of which there are too few frames to tell how things move."""
        return len(self.frames) > 1 and len(self.moments()) < CLIP_FRAMES

    def given(self) -> list[int]:
        """The indices of what the model is given: the last 5 frames at 16 a second, or of fewer the last."""
        moments = self.moments()
        return moments[-CLIP_FRAMES:] if len(moments) >= CLIP_FRAMES else moments[-1:]

    def given_frames(self, width: int, height: int) -> Tensor:
        """(1 or 5, height, width, 3), as of `fit`."""
        return torch.stack([fit(self.frames[index], width, height) for index in self.given()])


def lengths_of_parts(new_frames: int, num_frames: int, overlap: int, even: bool = True) -> list[int]:
    """How many new frames each part has, in as few parts as can be of at most `num_frames` frames.

    `even`: whether all have about the same, else the last alone is shorter, as the model was trained on 93 frames.
    Raises `InvalidRequestError` for `new_frames` and `overlap` out of their limits.
    """
    check_range("new_frames", new_frames, NEW_FRAMES)
    if overlap not in OVERLAPS:
        raise InvalidRequestError(f"overlap is {overlap!r}, but must be 5 or 1.")
    longest = num_frames - overlap
    count = math.ceil(new_frames / longest)
    if not even:
        return [longest] * (count - 1) + [new_frames - longest * (count - 1)]
    return [new_frames // count + (index < new_frames % count) for index in range(count)]


def frames_with_room(start: Start, new_frames: int, width: int, height: int, observer: Observer) -> Tensor:
    """(F, height, width, 3), the frames of `start` at 16 a second, and after them room for `new_frames` more."""
    moments = start.moments()
    frames = torch.empty(len(moments) + new_frames, height, width, 3)
    observer.progress("Scaling the source", 0, 1)
    for place, index in enumerate(moments):
        observer.raise_if_stopped()
        frames[place] = fit(start.frames[index], width, height)
    return frames


def fit(frame: Tensor, width: int, height: int) -> Tensor:
    """`frame`, (H, W, C), scaled and cropped in the middle: RGB (height, width, 3), float32 in 0..1 on the CPU.

    Bilinear with antialiasing, straight from the part that is kept, whose borders may lie within pixels: nothing is
    stretched. Source: `resize_input` of NVIDIA's cosmos-predict2.5, which rounds that part to whole pixels.
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
    """(H, W, 1, 3 or 4), floats or uint8 -> (H, W, 3), float32 in 0..1 on the CPU. What is no number becomes black."""
    values = frame.cpu().float() / (255 if frame.dtype == torch.uint8 else 1)
    values = values.nan_to_num(0).clamp(0, 1)
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:]
    return values.expand(-1, -1, 3)
