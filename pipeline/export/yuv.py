"""Float RGB to limited-range BT.709 YCbCr, rounded once, from the floats."""

import av
import numpy as np
import torch
from torch import Tensor

from ..clip.colours import Colours
from .tensors import FloatConverter, Frame, composite, pad_to_even

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
"""What each adds to luma: ITU-R BT.709-6, item 3.2."""


OURS = Colours(primaries=1, transfer=1, matrix=1, color_range=1, chroma_location="center")
"""BT.709 in limited range, and what `subsample` makes."""


class YuvConverter:
    """Makes one `av.VideoFrame` after another.

    `background`: the colour (3,) in 0..1 to put behind transparent frames where `pixel_format` has no alpha.
    """

    def __init__(self, pixel_format: str, even_sides: bool, background: tuple[float, float, float]) -> None:
        self.floats = FloatConverter()
        self._format = pixel_format
        self._even_sides = even_sides
        self._background = torch.tensor(background, dtype=torch.float32)
        self._subsampled = "420" in pixel_format
        self._depth = 10 if "10le" in pixel_format else 8
        self._matrix, self._offset = yuv_matrix(self._depth, with_alpha="yuva" in pixel_format)

    def convert(self, frame: Frame) -> av.VideoFrame:
        """`frame`: (H, W, 3 or 4), float in 0..1 or uint8."""
        if self._even_sides:
            frame = pad_to_even(frame)
        height, width, channels = frame.shape
        picture = av.VideoFrame(width, height, self._format)
        picture.colorspace, picture.color_range = OURS.matrix, OURS.color_range
        # The ProRes encoder takes these from the picture.
        picture.color_primaries, picture.color_trc = OURS.primaries, OURS.transfer
        planes = [plane_of(picture, index, self._depth) for index in range(len(picture.planes))]
        for where, rows in self.floats.strips(frame):
            if channels > len(planes):
                rows = composite(rows, self._background)
            flat = rows.reshape(-1, rows.shape[-1])
            components = torch.addmm(self._offset, self._matrix, flat.T).view(len(planes), -1, width)
            for index, (plane, values) in enumerate(zip(planes, components, strict=True)):
                if self._subsampled and index in (1, 2):
                    half = slice(where.start // 2, where.stop // 2)
                    plane[half].copy_(subsample(values))
                else:
                    plane[where].copy_(values)
        return picture


def yuv_matrix(depth: int, with_alpha: bool) -> tuple[Tensor, Tensor]:
    """M (n, n) and b (n, 1): M @ rgb + b is YCbCr plus one half, to be cut to integers. ITU-R BT.709-6, item 3."""
    luma = torch.tensor([RED, GREEN, BLUE])
    blue_difference = (torch.tensor([0.0, 0.0, 1.0]) - luma) / (2 * (1 - BLUE))
    red_difference = (torch.tensor([1.0, 0.0, 0.0]) - luma) / (2 * (1 - RED))
    scale = 2 ** (depth - 8)
    matrix = torch.stack((219 * luma, 224 * blue_difference, 224 * red_difference)) * scale
    offset = torch.tensor([16.0, 128.0, 128.0]) * scale + 0.5
    if not with_alpha:
        return matrix, offset[:, None]
    # Alpha has the full range, also beside limited colours.
    full = torch.tensor([2.0**depth - 1])
    return torch.block_diag(matrix, full), torch.cat((offset, torch.tensor([0.5])))[:, None]


def subsample(plane: Tensor) -> Tensor:
    """(2h, 2w) to (h, w): the mean of each 2x2. The files say that the samples lie in the centre."""
    pairs = plane[0::2] + plane[1::2]
    return pairs[:, 0::2].add(pairs[:, 1::2]).mul_(1 / 4)


def plane_of(frame: av.VideoFrame, index: int, depth: int) -> Tensor:
    """A view (rows, columns) of one plane's memory."""
    plane = frame.planes[index]
    samples = np.frombuffer(plane, np.uint8 if depth == 8 else np.int16)  # pyright: ignore
    return torch.from_numpy(samples.reshape(plane.height, -1)[:, : plane.width])
