"""Float RGB to 255 colours and a transparent one, the same for all frames."""

from collections.abc import Callable
from contextlib import closing

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..clip.pictures import FileClip
from .tensors import Clip, FloatConverter, Frame

TRANSPARENT = 255
SAMPLES = 1 << 18
QUALITIES = {"low": (64, 16.0), "medium": (128, 12.0), "high": (255, 8.0), "maximum": (255, 0.0)}
"""Colours in the palette, and tolerance in levels."""
LAG = 0.1
"""Levels of the picture's mean, counted over the last few pictures."""
BITS = 6
"""Of each channel, to look up the nearest colour."""


class GifConverter:
    """Makes one `av.VideoFrame` after another, in the colours of `palette` (n, 3), uint8.

    `tolerance`: a pixel keeps the colour that it shows while the new one is not farther away than that many levels. A
    slow fade would so be followed late: while the pictures are lighter than they should be by `LAG`, no pixel keeps a
    lighter colour than its new one, and the same for darker ones.
    """

    def __init__(self, palette: Tensor, tolerance: float) -> None:
        self.floats = FloatConverter()
        self._palette = np.zeros((256, 4), np.uint8)
        self._palette[: len(palette), :3] = palette.numpy()
        self._palette[:TRANSPARENT, 3] = 255
        self._nearest = nearest_table(palette)
        near, lightness = is_near(palette, tolerance), torch.zeros(256)
        lightness[: len(palette)] = palette.float().mean(1)
        gain = lightness[:, None] - lightness
        self._tables = {
            sign: staying_tables(may_stay, gain)
            for sign, may_stay in ((0, near), (1, near & (gain <= 0)), (-1, near & (gain >= 0)))
        }
        self._lag = 0.0
        self._shown: Tensor | None = None

    @classmethod
    def for_clip(cls, clip: Clip | FileClip, quality: str, raise_if_stopped: Callable[[], None]) -> "GifConverter":
        """With the best palette for these frames, which are looked at once."""
        colours, tolerance = QUALITIES[quality]
        return cls(make_palette(clip, colours, raise_if_stopped), tolerance)

    def convert(self, frame: Frame) -> av.VideoFrame:
        """`frame`: (H, W, 3 or 4), float in 0..1 or uint8."""
        height, width, channels = frame.shape
        indices = torch.empty(height, width, dtype=torch.uint8)
        kept, gain = self._tables[0 if abs(self._lag) < LAG else 1 if self._lag > 0 else -1]
        lag = 0.0
        for where, values in self.floats.tiles(frame):
            new = look_up(self._nearest, cells(values[:3]))
            if channels == 4:
                new[values[3] < 0.5] = TRANSPARENT
            if self._shown is not None:
                pairs = self._shown[where].to(torch.int32).mul_(256).add_(new)
                lag += float(look_up(gain, pairs).sum())
                new = look_up(kept, pairs)
            indices[where] = new
        self._shown, self._lag = indices, 0.75 * self._lag + lag / (height * width)
        picture = av.VideoFrame(width, height, "pal8")
        for index, values in enumerate((indices.numpy(), self._palette[:, [2, 1, 0, 3]])):
            write(picture, index, values)
        return picture


def make_palette(clip: Clip | FileClip, colours: int, raise_if_stopped: Callable[[], None]) -> Tensor:
    """The best `colours` of what is seen in the frames, (n, 3), uint8."""
    each = max(1, SAMPLES // clip.num_frames)
    step = max(1, int((clip.height * clip.width / each) ** 0.5))
    seen = bytearray()  # in one piece: small ones that stay would keep the frames' memory from being used again
    with closing(clip.frames(step)) as frames:
        for frame in frames:
            raise_if_stopped()
            seen += opaque_levels(frame).numpy().tobytes()
    if not seen:
        return torch.zeros(1, 3, dtype=torch.uint8)
    image = Image.frombytes("RGB", (len(seen) // 3, 1), bytes(seen))
    reduced = image.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1)
    return torch.tensor(reduced.getpalette()).view(-1, 3)[:colours].to(torch.uint8)


def opaque_levels(frame: Frame) -> Tensor:
    """The pixels that are not transparent, (n, 3), uint8."""
    values = FloatConverter().convert(frame[:, :]).flatten(1)
    if len(values) == 4:
        values = values[:3, values[3] >= 0.5]
    return (values.T * 255 + 0.5).to(torch.uint8)


def cells(planes: Tensor) -> Tensor:
    """(3, ...) in 0..1 to the number of its cell in the cube of 2**BITS each way."""
    red, green, blue = (planes * (2**BITS - 1) + 0.5).to(torch.int32)
    return red.mul_(1 << 2 * BITS).add_(green, alpha=1 << BITS).add_(blue)


def nearest_table(palette: Tensor) -> Tensor:
    """For each cell the index of the nearest colour, uint8."""
    axis = torch.linspace(0, 255, 2**BITS)
    pairs = torch.cartesian_prod(axis, axis)
    colours = palette.float()
    # The squared distance without what depends on the cell alone. One buffer is used again: new ones for each slab made
    # the heap grow by up to 200 MB.
    products = torch.empty(len(pairs), len(colours))
    nearest = torch.empty(len(axis), len(pairs), dtype=torch.uint8)
    for index, red in enumerate(axis):
        length = colours.square().sum(1) - 2 * red * colours[:, 0]
        torch.addmm(length, pairs, colours[:, 1:].T, alpha=-2, out=products)
        nearest[index] = products.argmin(1)
    return nearest.flatten()


def is_near(palette: Tensor, tolerance: float) -> Tensor:
    """For each index that is shown and each new one, (256, 256), whether the shown colour may stay."""
    near = torch.eye(256, dtype=torch.bool)
    near[: len(palette), : len(palette)] |= torch.cdist(palette.float(), palette.float()) <= tolerance
    return near


def staying_tables(may_stay: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """For each pair, shown * 256 + new, the index to show next, uint8, and how much lighter than the new one it is.

    `may_stay`, `gain`: (256, 256), the latter how much lighter the shown colour is.
    """
    new = torch.arange(256, dtype=torch.uint8).expand(256, 256)
    return torch.where(may_stay, new.T, new).flatten(), torch.where(may_stay, gain, 0).flatten()


def look_up(table: Tensor, where: Tensor) -> Tensor:
    """`table[where]`, in a third of the time."""
    return table.index_select(0, where.flatten()).view(where.shape)


def write(frame: av.VideoFrame, index: int, values: np.ndarray) -> None:
    memory = np.frombuffer(frame.planes[index], np.uint8)  # pyright: ignore
    lines = memory.reshape(values.shape[0], -1)
    lines[:, : values.shape[1]] = values
