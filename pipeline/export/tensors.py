"""From any tensor of frames to floats in 0..1, a strip at a time, so that memory does not grow with the frame."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..clip.pictures import thin

STRIP_PIXELS = 8000
"""Few enough for all of their values to stay in a core's cache, and below the 32768 from which torch starts threads:
they would spin on the cores that the encoder needs."""


class Clip:
    """`frames` (F, H, W, 3 or 4), and the opacity of RGB frames where `alpha`, (F, H, W) or (F, H, W, 1), is given.

    The two are joined a strip at a time, so that memory does not grow with their number or their size.
    """

    def __init__(self, frames: Tensor, alpha: Tensor | None) -> None:
        self._frames = frames
        self._alpha = alpha if alpha is None else alpha.reshape(frames.shape[:3])
        self.num_frames, self.height, self.width = frames.shape[:3]
        self.channels = frames.shape[3] + (alpha is not None)

    def frames(self, step: int = 1) -> Generator["Tensor | FrameWithAlpha", None, None]:
        """(H, W, 3 or 4) each, or every `step`-th pixel of it both ways."""
        for index, frame in enumerate(self._frames):
            frame = thin(frame, step)
            yield frame if self._alpha is None else FrameWithAlpha(frame, thin(self._alpha[index], step))


@dataclass(frozen=True)
class FrameWithAlpha:
    """`rgb`, (H, W, 3), float or uint8, and `alpha`, (H, W), as one frame whose rows are joined when they are taken."""

    rgb: Tensor
    alpha: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.alpha.shape
        return height, width, 4

    def __getitem__(self, rows: slice) -> Tensor:
        """(rows, W, 4), float32."""
        rgb = self.rgb[rows]
        joined = torch.empty(*rgb.shape[:2], 4)
        joined[..., :3], joined[..., 3] = rgb, self.alpha[rows]
        if rgb.dtype == torch.uint8:
            joined[..., :3] /= 255
        return joined


Frame = Tensor | FrameWithAlpha


class FloatConverter:
    """Converts the values of a frame to float32 in 0..1 on the CPU: those outside are clipped and NaN becomes 0.

    `strip_pixels`: about the size of a strip. `found_nan`: whether there was any.
    """

    found_nan = False

    def __init__(self, strip_pixels: int = STRIP_PIXELS) -> None:
        self._strip_pixels = strip_pixels

    def strips(self, frame: Frame) -> Iterator[tuple[slice, Tensor]]:
        """An even number of rows at a time: where they lie, and their values. `frame`: (H, W, C), float or uint8."""
        height, width = frame.shape[:2]
        rows = max(2, self._strip_pixels // width // 2 * 2)
        for start in range(0, height, rows):
            where = slice(start, min(start + rows, height))
            yield where, self.convert(frame[where])

    def convert(self, values: Tensor) -> Tensor:
        """`values`: (..., C), float or uint8."""
        if values.dtype == torch.uint8:
            return values.cpu().float().div_(255)
        unit = values.to("cpu", torch.float32).clamp(0, 1)
        # One sum is faster than a comparison for each value.
        if unit.sum().isnan():
            self.found_nan = True
            unit.nan_to_num_(0.0)
        return unit


def pad_to_even(frame: Frame) -> Frame:
    """The frame with its last row and column repeated where their number is odd."""
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return frame
    frame = frame[:]
    padding = (0, width % 2, 0, height % 2)
    return pad(frame.movedim(-1, 0)[None].float(), padding, mode="replicate")[0].movedim(0, -1).to(frame.dtype)


def composite(rows: Tensor, background: Tensor) -> Tensor:
    """(..., 4) over one colour (3,): (..., 3)."""
    return torch.lerp(background, rows[..., :3], rows[..., 3:])
