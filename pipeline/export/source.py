"""A video file as what is to be exported: pictures and sound, decoded as they are asked for, however long it is."""

import copy
import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import InvalidDataError
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from ..errors import InvalidRequestError
from .file import as_invalid_request
from .tensors import thin
from .yuv import Colours

File = str | os.PathLike[str] | io.BytesIO

OPAQUE = 1 - 0.5 / 255
"""What a ProRes decoder gives for opaque is a little less than 1."""
DECODER_THREADS = 2
"""Each holds frames of its own, and the encoder needs the other cores."""
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
"""By the number of channels of a sound."""
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


class FileSound:
    """The sound of a video file from `start`, in seconds, decoded anew each time that it is gone through.

    `sample_rate`: samples per second. `channels`: how many, `in_file`: of how many in the file: more than 5.1 has are
    mixed down to it.
    """

    def __init__(self, file: File, start: float, sample_rate: int, in_file: int) -> None:
        self._file, self._start, self.sample_rate, self.in_file = file, start, sample_rate, in_file
        self.channels = min(in_file, max(LAYOUTS))

    @classmethod
    def of(cls, file: File, start: float = 0.0) -> "FileSound | None":
        """The last that can be decoded, which is ComfyUI's choice too. None where there is no sound."""
        with opened(file) as container:
            streams = decodable_audio(container)
            return cls(file, start, streams[-1].rate, len(streams[-1].layout.channels)) if streams else None

    def chunks(self) -> Generator[np.ndarray, None, None]:
        """(channels, samples), float32 in -1..1, from the first picture on: silence where the sound begins later."""
        begun = False
        with opened(self._file) as container:
            stream, begin = decodable_audio(container)[-1], max(self._start, first_time(container))
            if self._start:
                container.seek(in_ticks(self._start, stream), stream=stream)
            layout = stream.layout if self.channels == self.in_file else LAYOUTS[self.channels]
            resampler = av.AudioResampler("fltp", layout, self.sample_rate)
            for frame in decoded(container, stream):
                for part in resampler.resample(frame):
                    samples = part.to_ndarray()
                    if not begun:
                        late = 0 if part.time is None else round((part.time - begin) * self.sample_rate)
                        if late > 0:
                            yield np.zeros((self.channels, late), np.float32)
                        samples = samples[:, max(0, -late) :]
                        begun = samples.shape[1] > 0
                    yield samples


@contextmanager
def opened(file: File) -> Iterator[InputContainer]:
    """A file in memory may be open several times at once. Raises `InvalidRequestError` for one that cannot be read."""
    name, source = file, file
    if isinstance(file, io.BytesIO):
        name, source = "The video", io.BytesIO(file.getvalue())
    with as_invalid_request(name), av.open(source) as container:
        yield container


def first_video(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise InvalidRequestError("The file has no video: choose another one.")
    return container.streams.video[0]


def first_time(container: InputContainer) -> float:
    """When the file's first picture is shown, in seconds: a stream that was cut out of another may begin late."""
    stream = first_video(container)
    return float((stream.start_time or 0) * (stream.time_base or 0))


def decodable_audio(container: InputContainer) -> list[av.AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def in_ticks(seconds: float, stream: av.VideoStream | av.AudioStream) -> int:
    assert stream.time_base
    return int(seconds / stream.time_base)


def decoded(container: InputContainer, stream: av.VideoStream | av.AudioStream) -> Iterator:
    """All frames of the stream but those that are broken, which ComfyUI leaves out too."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError:
            continue


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
