"""From any tensor of frames to floats in 0..1, a tile at a time, so that memory does not grow with the frame."""

import copy
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import ceil, floor

import torch
from torch import Tensor

from ..clip.pictures import thin

TILE_VALUES = 32767
"""Few enough to stay in a core's cache, and for torch to start no threads, which would spin on the cores that the
encoder needs. A product of matrices starts them at any size."""
Tile = tuple[slice, slice]
"""Rows and columns."""


class Clip:
    """`frames` (F, H, W, 3 or 4), and the opacity of RGB frames where `alpha`, (F, H, W) or (F, H, W, 1), is given.

    The two are joined a tile at a time, so that memory does not grow with their number or their size.
    """

    def __init__(self, frames: Tensor, alpha: Tensor | None) -> None:
        self._frames = frames
        self._alpha = alpha if alpha is None else alpha.reshape(frames.shape[:3])
        self._shown: Sequence[int] = range(len(frames))
        self.height, self.width = frames.shape[1:3]
        self.channels = frames.shape[3] + (alpha is not None)

    @property
    def num_frames(self) -> int:
        return len(self._shown)

    def at_most(self, fps: int, rate: Fraction) -> "Clip":
        """Return a clip of at most `fps`, from one of `rate` fps: the frames shown at the new, even times."""
        share = max(Fraction(1), rate / fps)
        fewer = copy.copy(self)
        fewer._shown = [self._shown[floor(index * share)] for index in range(ceil(self.num_frames / share))]
        return fewer

    def frames(self, step: int = 1) -> Generator["Tensor | FrameWithAlpha", None, None]:
        """(H, W, 3 or 4) each, or every `step`-th pixel of it both ways."""
        for index in self._shown:
            frame = thin(self._frames[index], step)
            yield frame if self._alpha is None else FrameWithAlpha(frame, thin(self._alpha[index], step))


@dataclass(frozen=True)
class FrameWithAlpha:
    """`rgb`, (H, W, 3), float or uint8, and `alpha`, (H, W), as one frame, joined a tile at a time."""

    rgb: Tensor
    alpha: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.alpha.shape
        return height, width, 4

    def __getitem__(self, where: Tile) -> Tensor:
        """(rows, columns, 4), float32."""
        rgb = self.rgb[where]
        joined = torch.empty(*rgb.shape[:2], 4)
        joined[..., :3], joined[..., 3] = rgb, self.alpha[where]
        if rgb.dtype == torch.uint8:
            joined[..., :3] /= 255
        return joined


Frame = Tensor | FrameWithAlpha


class FloatConverter:
    """Converts the values of a frame to float32 in 0..1 on the CPU: those outside are clipped and NaN becomes 0.

    `found_nan`: whether there was any.
    """

    found_nan = False

    def tiles(self, frame: Frame) -> Iterator[tuple[Tile, Tensor]]:
        """Even numbers of rows and columns at a time: where they lie, and their values, (C, rows, columns).

        `frame`: (H, W, C), float or uint8.
        """
        height, width, channels = frame.shape
        columns = min(width, TILE_VALUES // channels // 4 * 2)
        rows = TILE_VALUES // channels // columns // 2 * 2
        for top, left in product(range(0, height, rows), range(0, width, columns)):
            where = slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
            yield where, self.convert(frame[where])

    def convert(self, values: Tensor) -> Tensor:
        """(..., C), float or uint8, to (C, ...)."""
        planes = values.movedim(-1, 0).to("cpu", torch.float32)
        unit = torch.empty(planes.shape)
        if values.dtype == torch.uint8:
            return torch.div(planes, 255, out=unit)
        torch.clamp(planes, 0, 1, out=unit)
        # One sum is faster than a comparison for each value.
        if unit.sum().isnan():
            self.found_nan = True
            unit.nan_to_num_(0.0)
        return unit


def pad_to_even(planes: Tensor) -> Tensor:
    """(C, H, W) with the last row and column repeated where their number is odd."""
    height, width = planes.shape[1:]
    if width % 2:
        planes = torch.cat((planes, planes[..., -1:]), dim=2)
    return torch.cat((planes, planes[:, -1:]), dim=1) if height % 2 else planes


def composite(planes: Tensor, background: Tensor) -> Tensor:
    """(4, ...) over one colour (3, 1, 1): (3, ...)."""
    return torch.lerp(background, planes[:3], planes[3:])
