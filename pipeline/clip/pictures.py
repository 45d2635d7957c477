"""The pictures of a video file, decoded as they are asked for, however long it is."""

import copy
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from math import ceil

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from ..errors import InvalidRequestError
from .colours import Colours, chroma_location
from .file import File, decoded, first_video, in_ticks, opened

OPAQUE = 1 - 0.5 / 255
"""What a ProRes decoder gives for opaque is a little less than 1."""
DECODER_THREADS = 2
"""Each holds frames of its own, and the encoder needs the other cores."""
FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG."""
EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


class FileClip:
    """The pictures of a video file, decoded one at a time, anew each time that they are gone through.

    `file`: a path, or all bytes of a file. `start`, `duration`: the part to take, in seconds; 0 is all that follows.
    `frame_rate`: pictures per second to give, as of `in_time`, or for None each picture once.
    `raise_if_stopped`: is called while the pictures are looked at for transparency, where the file can have any.

    `width`, `height`: pixels. `channels`: 4 where some pixel is not opaque, else 3. `num_frames`: as the file says,
    which may be a little off. Raises `InvalidRequestError` when the file cannot be read or has no pictures there.
    """

    def __init__(
        self,
        file: File,
        start: float = 0.0,
        duration: float = 0.0,
        frame_rate: Fraction | None = None,
        raise_if_stopped: Callable[[], None] | None = None,
    ) -> None:
        self._file, self._start, self._duration, self._step = file, start, duration, 1
        self._frame_rate = frame_rate
        with closing(self.pictures()) as pictures:
            first = next(pictures, None)
        if first is None:
            raise InvalidRequestError("The video has no pictures: choose another one, or another part of it.")
        self._first = first
        self.height, self.width = to_tensor(first, VideoReformatter()).shape[:2]
        with opened(file) as container:
            self.num_frames = count_frames(container, start, duration)
        self.channels = 4 if can_be_transparent(first) and not self._is_opaque(raise_if_stopped) else 3

    def thinned(self, step: int) -> "FileClip":
        """Every `step`-th pixel both ways."""
        thinned = copy.copy(self)
        thinned._step = self._step * step
        thinned.height, thinned.width = -(-self.height // step), -(-self.width // step)
        return thinned

    def resampled(self, before: Fraction, after: Fraction) -> "FileClip":
        """At `after` frames per second, fewer than `before`."""
        fewer = copy.copy(self)
        fewer._frame_rate, fewer.num_frames = after, ceil(self.num_frames * after / before)
        return fewer

    def is_in(self, pixel_format: str) -> bool:
        """Whether the pictures can be encoded as they were decoded, in the file's own `colours`."""
        return (
            self._first.format.name == pixel_format
            and self._first.color_range != FULL_RANGE
            and self._first.rotation == 0
            and self._step == 1
        )

    @property
    def colours(self) -> Colours:
        """What the file says of the pictures."""
        first = self._first
        place = chroma_location(first)
        return Colours(first.color_primaries, first.color_trc, first.colorspace, first.color_range, place)

    def frames(self, step: int = 1) -> Generator[Tensor, None, None]:
        """As `Clip.frames`."""
        reformatter = VideoReformatter()
        with closing(self.pictures()) as pictures:
            for picture in pictures:
                yield thin(to_tensor(picture, reformatter)[:: self._step, :: self._step, : self.channels], step)

    def pictures(self) -> Generator[av.VideoFrame, None, None]:
        """As they were decoded, in time."""
        with closing(self._each_picture()) as pictures:
            yield from in_time(pictures, self._frame_rate) if self._frame_rate else pictures

    def _each_picture(self) -> Generator[av.VideoFrame, None, None]:
        size = None
        with opened(self._file) as container:
            stream = first_video(container)
            stream.thread_type, stream.codec_context.thread_count = "AUTO", DECODER_THREADS
            begin = in_ticks(self._start, stream)
            end = in_ticks(self._start + self._duration, stream) if self._duration else None
            if begin:
                container.seek(begin, stream=stream)
            for picture in decoded(container, stream):
                if picture.pts is not None and picture.pts < begin:
                    continue
                if picture.pts is not None and end is not None and picture.pts >= end:
                    return
                size = size or (picture.width, picture.height)
                if (picture.width, picture.height) != size:
                    raise InvalidRequestError(
                        f"The video's size changes from {size[0]}x{size[1]} to {picture.width}x{picture.height}: "
                        "choose one whose size stays."
                    )
                yield picture

    def _is_opaque(self, raise_if_stopped: Callable[[], None] | None) -> bool:
        reformatter = VideoReformatter()
        with closing(self._each_picture()) as pictures:
            for picture in pictures:
                if raise_if_stopped:
                    raise_if_stopped()
                alpha = to_tensor(picture, reformatter)[..., 3]
                if alpha.amin() < (OPAQUE if alpha.is_floating_point() else 255):
                    return False
        return True


def in_time(pictures: Iterable[av.VideoFrame], frame_rate: Fraction) -> Iterator[av.VideoFrame]:
    """So many a second as they are shown: one that stays for longer comes again, and one too many is left out.

    None is off by more than the time of one, so that times which a file rounds, as WebM does, change nothing.
    """
    before, begin, ends, done = None, 0.0, 0.0, 0
    for picture in pictures:
        if picture.time is not None:
            begin = picture.time if before is None else begin
            due = (picture.time - begin) * frame_rate
            while before and due - done > 1:
                yield before
                done += 1
            before, ends = picture, due + (picture.duration or 0) * (picture.time_base or 0) * frame_rate
            if due - done < -1:
                continue
        yield picture
        done += 1
    while before and ends - done > 1:
        yield before
        done += 1


def count_frames(container: InputContainer, start: float, duration: float) -> int:
    stream = first_video(container)
    if stream.frames and not start and not duration:
        return stream.frames
    whole = (stream.duration or 0) * (stream.time_base or 0) or Fraction(container.duration or 0, av.time_base)
    seconds = min(float(whole) - start, duration or float(whole))
    return max(1, round(seconds * (stream.average_rate or 1)))


def can_be_transparent(picture: av.VideoFrame) -> bool:
    return picture.format.has_palette or any(part.is_alpha for part in picture.format.components)


def to_tensor(picture: av.VideoFrame, reformatter: VideoReformatter) -> Tensor:
    """(H, W, 3), or 4 where it can be transparent: upright RGB, uint8 where that is what was decoded, or else float32.

    The colours are those that ComfyUI gives the file: BT.601 where it does not say. `reformatter`: one for all
    pictures, because each that PyAV makes for a picture of its own takes a megabyte that does not come back.
    """
    alpha = can_be_transparent(picture)
    if picture.format.has_palette or (picture.format.is_rgb and picture.format.components[0].bits == 8):
        form = "rgba" if alpha else "rgb24"
    else:
        form = "gbrapf32le" if alpha else "gbrpf32le"
    image = reformatter.reformat(picture, format=form, interpolation=EXACT, threads=1).to_ndarray()
    return torch.from_numpy(np.ascontiguousarray(np.rot90(image, round(picture.rotation // 90))))


def thin(frame: Tensor, step: int) -> Tensor:
    """Every `step`-th row and column, from the middle of the first `step`, and at least one of each."""
    top, left = (min(step // 2, side - 1) for side in frame.shape[:2])
    return frame[top::step, left::step]
