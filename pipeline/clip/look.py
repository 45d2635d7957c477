"""Convert pictures for display: upright, progressive, in standard colours and with square pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
import torch
from av.error import BlockingIOError as NotReady
from av.error import EOFError as EndOfFile
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter
from torch import Tensor

from .file import add_note

EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
WIDE = {ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432}
ALMOST_SQUARE = 0.01
BITS_16 = 2**16 - 1


@dataclass(frozen=True)
class Look:
    """The conversion of each picture of a file.

    `form`: the pixel format that it is converted to. `is_converted`: whether its colours are BT.2020 or P3, to be
    brought to BT.709. `transfer`: of HDR, else empty. `turns`: quarters anticlockwise after it was mirrored.
    `size`: stored width and height. `scaled`: the same for square pixels. `step`: every how many pixels are taken.
    """

    form: str
    is_converted: bool
    transfer: str
    turns: int
    is_mirrored: bool
    size: tuple[int, int]
    aspect: Fraction
    step: int = 1

    @classmethod
    def of(cls, picture: av.VideoFrame, aspect: Fraction | None) -> "Look":
        """Choose the conversion. `picture`: the first of a file. `aspect`: width by height of a stored pixel."""
        transfer = HDR.get(picture.color_trc, "")  # pyright: ignore
        is_converted = bool(transfer) or picture.color_primaries in WIDE
        turns, is_mirrored = orientation(picture)
        if not aspect or abs(aspect - 1) < ALMOST_SQUARE:
            aspect = Fraction(1)
        form, size = form_of(picture, is_converted), (picture.width, picture.height)
        return cls(form, is_converted, transfer, turns, is_mirrored, size, aspect)

    def add_notes(self, notes: list[str]) -> None:
        """Add notes for the user on differences from the file's pictures."""
        if self.transfer:
            add_note(notes, f"HDR ({self.transfer}) was converted to standard colours (BT.709).")

    @property
    def is_on_its_side(self) -> bool:
        return self.turns % 2 == 1

    @property
    def pixel_aspect(self) -> Fraction:
        """Width by height of an upright pixel."""
        return 1 / self.aspect if self.is_on_its_side else self.aspect

    @property
    def width(self) -> int:
        """Pixels of an upright picture."""
        return -(-self.size[self.is_on_its_side] // self.step)

    @property
    def height(self) -> int:
        return -(-self.size[not self.is_on_its_side] // self.step)

    @property
    def is_as_decoded(self) -> bool:
        return not (self.is_converted or self.turns or self.is_mirrored) and self.step == 1

    def thinned(self, step: int) -> "Look":
        """Every `step`-th pixel both ways."""
        return replace(self, step=self.step * step)

    def with_square_pixels(self) -> "Look":
        """Return the size with square pixels. The longer side grows, so nothing is lost."""
        width, height = self.size
        if self.aspect > 1:
            width = round(width * self.aspect)
        elif self.aspect < 1:
            height = round(height / self.aspect)
        return replace(self, size=(width, height), aspect=Fraction(1))

    def tensor(self, picture: av.VideoFrame, reformatter: VideoReformatter) -> Tensor:
        """Return (H, W, 3), or 4 channels with transparency: uint8 where the decoder gives that, or else float32.

        The colours equal ComfyUI's: BT.601 where the file names none. HDR's reference white, 203 nits by ITU-R BT.2408,
        becomes white, and lighter values are clipped in their hue: swscale's own conversion.
        `reformatter`: one for all pictures, because each that PyAV makes for a picture of its own takes a megabyte that
        does not come back.
        """
        width, height = self.size
        colours = {"dst_color_primaries": ColorPrimaries.BT709, "dst_color_trc": ColorTrc.BT709}
        made = reformatter.reformat(
            picture, width, height, self.form, interpolation=EXACT, threads=1, **(colours if self.is_converted else {})
        )
        image = made.to_ndarray()
        if image.dtype == np.uint16:
            image = image.astype(np.float32) / BITS_16
        if self.turns or self.is_mirrored:
            image = np.ascontiguousarray(np.rot90(image[:, ::-1] if self.is_mirrored else image, self.turns))
        return torch.from_numpy(image)[:: self.step, :: self.step]


def form_of(picture: av.VideoFrame, is_converted: bool) -> str:
    """The pixel format of RGB that loses nothing of a picture."""
    alpha = "a" if can_be_transparent(picture) else ""
    if is_converted:
        return f"gbr{alpha}p16le"  # in floats swscale takes another matrix than that of the picture
    if picture.format.has_palette or (picture.format.is_rgb and picture.format.components[0].bits == 8):
        return "rgba" if alpha else "rgb24"
    return f"gbr{alpha}pf32le"


def can_be_transparent(picture: av.VideoFrame) -> bool:
    return picture.format.has_palette or any(part.is_alpha for part in picture.format.components)


def orientation(picture: av.VideoFrame) -> tuple[int, bool]:
    """Quarter turns anticlockwise, and whether the picture is mirrored before: ISO/IEC 14496-12, 8.3.2.

    The matrix takes (x, y) to (a x + c y, b x + d y), y down.
    """
    side_data = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return 0, False
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(side_data, np.int32))  # pyright: ignore
    is_mirrored = a * d - b * c < 0
    if is_mirrored:
        a, b = -a, -b
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), is_mirrored
    return (3 if b > 0 else 1), is_mirrored


def deinterlaced(pictures: Iterator[av.VideoFrame], notes: list[str]) -> Iterator[av.VideoFrame]:
    """Yield the pictures, deinterlaced by FFmpeg's bwdif if the first one is interlaced."""
    graph = None
    for picture in pictures:
        if graph is None and not picture.interlaced_frame:
            yield picture
            yield from pictures
            return
        if graph is None:
            add_note(notes, "The video is interlaced: the two fields of each frame were joined (bwdif).")
            graph = deinterlacer(picture)
        graph.push(picture)
        yield from ready(graph)
    if graph:
        graph.push(None)
        yield from ready(graph)


def deinterlacer(picture: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def ready(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()  # pyright: ignore
        except (NotReady, EndOfFile):
            return


def thin(frame: Tensor, step: int) -> Tensor:
    """Every `step`-th row and column, from the middle of the first `step`, and at least one of each."""
    top, left = (min(step // 2, side - 1) for side in frame.shape[:2])
    return frame[top::step, left::step]
