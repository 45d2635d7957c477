"""The pictures of a video file of any length, decoded on demand."""

import copy
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from functools import cached_property

import av
from av.video.reformatter import VideoReformatter
from torch import Tensor

from ..errors import InvalidRequestError
from .colours import Colours, chroma_location
from .file import File, add_note, decoded_from, first_video, length_of, name_of, opened, start_of
from .look import Look, can_be_transparent, deinterlaced, thin
from .sound import FileSound
from .times import EARLY, Times, shown_at, times_in_packets, times_in_pictures

OPAQUE = 1 - 0.5 / 255
"""What a ProRes decoder gives for opaque is a little less than 1."""
FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG."""
DISCONTINUITY = 1.0
"""Seconds back from which times begin anew, as where two recordings were joined."""
CUT_SHORT = 0.5
"""Seconds that may be missing at the end of a file."""


def nothing() -> None:
    pass


class FileClip:
    """The pictures of a video file, decoded one at a time, and again for each iteration.

    `file`: a path, or all bytes of a file. `start`, `duration`: the part to read, in seconds; a negative start counts
    from the end, and a duration of 0 means the rest. `raise_if_stopped`: called while the file is scanned.

    `width`, `height`: of an upright picture, in pixels. `pixel_aspect`: width by height of a pixel. `notes`: sentences
    for the user; reading adds to them. Raises `InvalidRequestError` if the file cannot be read or has no pictures in
    that part.
    """

    def __init__(
        self,
        file: File,
        start: float = 0.0,
        duration: float = 0.0,
        raise_if_stopped: Callable[[], None] = nothing,
    ) -> None:
        self._file, self._raise_if_stopped = file, raise_if_stopped
        self._begin, self._end, self._delay = None, math.inf, Fraction(0)
        self._reformatter = VideoReformatter()
        self.notes: list[str] = []
        with opened(file) as container:
            stream = first_video(container)
            self._rate_in_header = stream.average_rate
            self._length = length_of(container)
            aspect, is_avi = stream.sample_aspect_ratio, container.format.name == "avi"
            self._origin = float(start_of(stream))
            if stream.codec_context.name == "gif":
                self._rate_in_header = None  # it is that of the shortest delay
        self._first = self._first_picture()
        if is_avi:
            # It counts in the order of decoding, so that its pictures seem to be late where that is not their order.
            self._delay = Fraction(self._first.time or 0) - Fraction(self._origin)
            self._first = self._first_picture()
        if start < 0:
            start = max(0.0, (float(self._length) if self._length else self.times.end - self._origin) + start)
        if start or duration:
            self._begin = self._origin + start if start else None
            self._end = self._origin + start + duration if duration else math.inf
            self._first = self._first_picture()
        self._look = Look.of(self._first, aspect)
        self._look.add_notes(self.notes)

    def _first_picture(self) -> av.VideoFrame:
        with closing(self.pictures()) as pictures:
            first = next(pictures, None)
        if first is None:
            raise InvalidRequestError(
                f"{name_of(self._file)} has no pictures in this part: choose another file, or another part of it."
            )
        return first

    @property
    def width(self) -> int:
        return self._look.width

    @property
    def height(self) -> int:
        return self._look.height

    @property
    def pixel_aspect(self) -> Fraction:
        return self._look.pixel_aspect

    @property
    def begin(self) -> float:
        """When the first picture is shown, in seconds of the file's own clock."""
        return float(self._first.time or 0)

    @cached_property
    def times(self) -> Times:
        """When the pictures are shown. The file is read once, and decoded only where its packets do not tell."""
        with opened(self._file) as container:
            begin, end, stop = self._begin, self._end, self._raise_if_stopped
            times, last = times_in_packets(container, begin, end, self.notes, stop)
        if times:
            times = times.earlier(float(self._delay))
            self._note_missing_end(max(last, times.end))
            times = times.within(-math.inf if begin is None else begin, end)
        if not times or not times.seconds:
            with closing(self.pictures()) as pictures:
                times = times_in_pictures(pictures, stop)
        assert times
        return times

    def _note_missing_end(self, end: float) -> None:
        """Note where a file says that it is longer than what it holds."""
        length, seconds = float(self._length or 0), end - self._origin
        if math.isinf(self._end) and length - seconds > CUT_SHORT:
            add_note(self.notes, f"The file ends early, after {seconds:.1f} of {length:.1f} seconds.")

    @property
    def num_frames(self) -> int:
        return len(self.times)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, on average."""
        return self.times.rate(self._rate_in_header)

    @cached_property
    def channels(self) -> int:
        """4 where some pixel is not opaque, else 3."""
        return 4 if can_be_transparent(self._first) and not self._is_opaque() else 3

    def sound(self) -> FileSound | None:
        """The sound from the first picture on, or None where there is none."""
        return FileSound.of(self._file, self.begin, self._end, self.notes)

    def thinned(self, step: int) -> "FileClip":
        """Every `step`-th pixel both ways."""
        return self._seen_as(self._look.thinned(step))

    def with_square_pixels(self) -> "FileClip":
        """Scaled to the shape in which a player shows it."""
        return self._seen_as(self._look.with_square_pixels())

    def _seen_as(self, look: Look) -> "FileClip":
        clip = copy.copy(self)
        clip._look = look
        return clip

    def last(self, seconds: float) -> "FileClip":
        """The end of a clip that is longer, else all of it."""
        end = min(float(self._length or 0) + self._origin, self._end)
        if end - seconds <= self.begin:
            return self
        clip = copy.copy(self)
        clip.__dict__.pop("times", None)
        clip._begin = end - seconds
        try:
            clip._first = clip._first_picture()
        except InvalidRequestError:
            return self
        return clip

    def is_in(self, pixel_format: str) -> bool:
        """Whether the pictures can be encoded as they were decoded, in the file's own `colours`."""
        return (
            self._first.format.name == pixel_format
            and self._first.color_range != FULL_RANGE
            and self._look.is_as_decoded
        )

    @property
    def colours(self) -> Colours:
        """What the file says of the pictures."""
        first = self._first
        place = chroma_location(first)
        return Colours(first.color_primaries, first.color_trc, first.colorspace, first.color_range, place)

    def frames(self, step: int = 1) -> Generator[Tensor, None, None]:
        """As `Clip.frames`."""
        with closing(self.pictures()) as pictures:
            for picture in pictures:
                yield thin(self.tensor(picture), step)

    def frames_at(self, moments: list[float]) -> Generator[Tensor, None, None]:
        """The frame that is shown at each of the moments, which ascend."""
        before, frame = None, None
        with closing(self.pictures()) as pictures:
            for picture in shown_at(moments, pictures, self.frame_rate):
                if frame is None or picture is not before:
                    before, frame = picture, self.tensor(picture)
                yield frame

    def tensor(self, picture: av.VideoFrame) -> Tensor:
        """(H, W, 3 or 4) of one of the `pictures`, as of `Look.tensor`."""
        return self._look.tensor(picture, self._reformatter)[..., : self.channels]

    def pictures(self) -> Generator[av.VideoFrame, None, None]:
        """As they were decoded, each with its time."""
        with closing(self._all_pictures()) as pictures:
            for picture in pictures:
                time = picture.time or 0.0
                if self._begin is not None and time < self._begin - EARLY:
                    continue
                if time >= self._end - EARLY:
                    return
                yield picture

    def _all_pictures(self) -> Generator[av.VideoFrame, None, None]:
        """Of one size, from `_begin` or an earlier picture on."""
        size, begin = None, None if self._begin is None else self._begin + float(self._delay)
        frames = decoded_from(self._file, first_video, begin, self.notes)
        with closing(frames):
            for picture in deinterlaced(in_order(frames, self._rate_in_header, self._delay), self.notes):
                size = size or (picture.width, picture.height)
                if (picture.width, picture.height) != size:
                    raise InvalidRequestError(
                        f"The video's size changes from {size[0]}x{size[1]} to {picture.width}x{picture.height}: "
                        "choose one with a constant size."
                    )
                yield picture

    def _is_opaque(self) -> bool:
        with closing(self.pictures()) as pictures:
            for picture in pictures:
                self._raise_if_stopped()
                alpha = self._look.tensor(picture, self._reformatter)[..., 3]
                if alpha.amin() < (OPAQUE if alpha.is_floating_point() else 255):
                    return False
        return True


def in_order(pictures: Iterator[av.VideoFrame], rate: Fraction | None, delay: Fraction) -> Iterator[av.VideoFrame]:
    """The same with times that ascend, `delay` seconds earlier: where there are none they are counted."""
    last, shift = None, None
    for picture in pictures:
        unit = picture.time_base or Fraction(1, 1000)
        step = picture.duration or max(1, round(1 / ((rate or 25) * unit)))
        if shift is None:
            shift = -round(delay / unit)
        pts = (last + step if last is not None else 0) if picture.pts is None else picture.pts + shift
        if last is not None and pts <= last:
            if last - pts > DISCONTINUITY / unit:
                shift += last + step - pts
                pts = last + step
            else:
                pts = last + 1
        picture.time_base, picture.pts, last = unit, pts, pts
        yield picture
