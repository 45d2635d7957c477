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
        self._background = torch.tensor(background, dtype=torch.float32)[:, None, None]
        self._with_alpha = "yuva" in pixel_format
        self._subsampled = "420" in pixel_format
        self._depth = 10 if "10le" in pixel_format else 8
        matrix, offset = yuv_matrix(self._depth)
        self._columns, self._offset = matrix.T[..., None, None].unbind(), offset[:, None, None]

    def convert(self, frame: Frame) -> av.VideoFrame:
        """`frame`: (H, W, 3 or 4), float in 0..1 or uint8."""
        height, width, _ = frame.shape
        if self._even_sides:
            height, width = height + height % 2, width + width % 2
        picture = av.VideoFrame(width, height, self._format)
        picture.colorspace, picture.color_range = OURS.matrix, OURS.color_range
        # The ProRes encoder takes these from the picture.
        picture.color_primaries, picture.color_trc = OURS.primaries, OURS.transfer
        planes = [plane_of(picture, index, self._depth) for index in range(len(picture.planes))]
        for (rows, columns), values in self.floats.tiles(frame):
            for plane, samples in zip(planes, self._samples(values), strict=True):
                top, left = rows.start * len(plane) // height, columns.start * plane.shape[1] // width
                plane[top : top + len(samples), left : left + samples.shape[1]].copy_(samples)
        return picture

    def _samples(self, values: Tensor) -> list[Tensor]:
        """(C, rows, columns) of RGB to each plane's samples plus one half, to be cut to integers."""
        if len(values) == 4 and not self._with_alpha:
            values = composite(values, self._background)
        if self._even_sides:
            values = pad_to_even(values)
        products = self._multiply(values)
        colours = subsample(products[1:]) if self._subsampled else products[1:]
        # Alpha has the full range, also beside limited colours.
        alpha = [values[3] * (2**self._depth - 1) + 0.5] if self._with_alpha else []
        return [products[0], *colours, *alpha]

    def _multiply(self, rgb: Tensor) -> Tensor:
        """(3, rows, columns) of YCbCr plus one half."""
        (red, green, blue), (by_red, by_green, by_blue) = rgb[:3], self._columns
        return torch.addcmul(self._offset, by_red, red).addcmul_(by_green, green).addcmul_(by_blue, blue)


def yuv_matrix(depth: int) -> tuple[Tensor, Tensor]:
    """M (3, 3) and b (3,): M @ rgb + b is YCbCr plus one half, to be cut to integers. ITU-R BT.709-6, item 3."""
    luma = torch.tensor([RED, GREEN, BLUE])
    blue_difference = (torch.tensor([0.0, 0.0, 1.0]) - luma) / (2 * (1 - BLUE))
    red_difference = (torch.tensor([1.0, 0.0, 0.0]) - luma) / (2 * (1 - RED))
    scale = 2 ** (depth - 8)
    matrix = torch.stack((219 * luma, 224 * blue_difference, 224 * red_difference)) * scale
    return matrix, torch.tensor([16.0, 128.0, 128.0]) * scale + 0.5


def subsample(planes: Tensor) -> Tensor:
    """(n, 2h, 2w) to (n, h, w): the mean of each 2x2. The files say that the samples lie in the centre."""
    pairs = planes[:, 0::2] + planes[:, 1::2]
    return pairs[..., 0::2].add(pairs[..., 1::2]).mul_(1 / 4)


def plane_of(frame: av.VideoFrame, index: int, depth: int) -> Tensor:
    """A view (rows, columns) of one plane's memory."""
    plane = frame.planes[index]
    samples = np.frombuffer(plane, np.uint8 if depth == 8 else np.int16)  # pyright: ignore
    return torch.from_numpy(samples.reshape(plane.height, -1)[:, : plane.width])
