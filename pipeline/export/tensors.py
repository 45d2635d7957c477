"""From the tensor that is there to clean float rows, a strip at a time, so that memory does not grow with the frame."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

STRIP_PIXELS = 1 << 16
"""About as many as stay in a core's cache from one step to the next."""


class Cleaner:
    """Gives the values of a frame in 0..1 as float32 on the CPU: those outside are clipped and NaN becomes 0.

    `found_nan`: whether there was any.
    """

    found_nan = False

    def strips(self, frame: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """An even number of rows at a time: where they lie, and their values. `frame`: (H, W, C), float or uint8."""
        height, width = frame.shape[:2]
        rows = max(2, STRIP_PIXELS // width // 2 * 2)
        for start in range(0, height, rows):
            where = slice(start, min(start + rows, height))
            yield where, self.clean(frame[where])

    def clean(self, values: Tensor) -> Tensor:
        if values.dtype == torch.uint8:
            return values.cpu().float().div_(255)
        unit = values.to("cpu", torch.float32).clamp(0, 1)
        # One sum is faster than a comparison for each value.
        if unit.sum().isnan():
            self.found_nan = True
            unit.nan_to_num_(0.0)
        return unit


def pad_to_even(frame: Tensor) -> Tensor:
    """The frame with its last row and column repeated where their number is odd."""
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return frame
    padding = (0, width % 2, 0, height % 2)
    return pad(frame.movedim(-1, 0)[None].float(), padding, mode="replicate")[0].movedim(0, -1).to(frame.dtype)


def composite(rows: Tensor, background: Tensor) -> Tensor:
    """(..., 4) over one colour (3,): (..., 3)."""
    return torch.lerp(background, rows[..., :3], rows[..., 3:])
