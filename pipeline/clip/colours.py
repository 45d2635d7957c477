"""The meaning of a picture's samples: matrix, range, transfer and primaries."""

from dataclasses import dataclass

import av
import numpy as np


@dataclass(frozen=True)
class Colours:
    """The meaning of a picture's samples, in numbers of ITU-T H.273 and FFmpeg's terms."""

    primaries: int
    transfer: int
    matrix: int
    color_range: int
    chroma_location: str


def chroma_location(picture: av.VideoFrame) -> str:
    """Return left or center for 4:2:0 chroma: the file's value, or ComfyUI's default. Overwrites the picture.

    PyAV does not report it, but swscale uses it. If the chroma samples are centered between their pixels, a colour edge
    comes out as far to the left of its middle as to the right.
    """
    luma, blue, red = (np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in picture.planes[:3])  # pyright: ignore
    luma[:] = red[:] = 128
    blue[:] = 96
    edge = picture.width // 4
    blue[:, edge:] = 160
    line = picture.reformat(format="gbrpf32le", threads=1).to_ndarray()[0, :, 2]
    rise = line[-1] - line[0]
    return "left" if line[2 * edge - 1] + line[2 * edge] - line[0] - line[-1] > rise / 4 else "center"
