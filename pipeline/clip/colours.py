"""How the samples of a picture are to be understood."""

from dataclasses import dataclass

import av
import numpy as np


@dataclass(frozen=True)
class Colours:
    """How the samples of a picture are to be understood: numbers of ITU-T H.273, the rest as FFmpeg says it."""

    primaries: int
    transfer: int
    matrix: int
    color_range: int
    chroma_location: str


def chroma_location(picture: av.VideoFrame) -> str:
    """Left or center, of 4:2:0: what the file says, or what ComfyUI takes it to be. Paints over the picture.

    PyAV does not tell it, but swscale heeds it. Where the samples lie in the centre between their pixels, an edge of
    colour comes out as far to the left of its middle as to the right.
    """
    luma, blue, red = (np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in picture.planes[:3])  # pyright: ignore
    luma[:] = red[:] = 128
    blue[:] = 96
    edge = picture.width // 4
    blue[:, edge:] = 160
    line = picture.reformat(format="gbrpf32le", threads=1).to_ndarray()[0, :, 2]
    rise = line[-1] - line[0]
    return "left" if line[2 * edge - 1] + line[2 * edge] - line[0] - line[-1] > rise / 4 else "center"
