"""The times at which the pictures of a clip are shown. A container's rate is only a hint."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
from av.container import InputContainer

from ..request import FPS
from .file import SEEK_MARGINS, first_video, last_audio, packets, seek

TOLERANCE = 0.02
"""By which share a file's rate may be off from its times."""
ROUNDING = 0.006
"""Seconds by which times are rounded in a file: half of a hundredth in a GIF, and of a thousandth in a WebM."""
EARLY = 1e-6
MAX_DENOMINATOR = 1001


@dataclass(frozen=True)
class Times:
    """`seconds`: of each picture, ascending, by the file's own clock. `end`: when the last one is over."""

    seconds: tuple[float, ...]
    end: float

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def span(self) -> float:
        """Seconds between the first picture and the last."""
        return self.seconds[-1] - self.seconds[0]

    def rate(self, header: Fraction | None) -> Fraction:
        """Frames per second: those of the file's `header` where its times agree, or else of the times."""
        if len(self) == 1:
            return header or measured_rate(1 / (self.end - self.seconds[0]))
        intervals = len(self) - 1
        if header and abs(intervals / header - self.span) <= TOLERANCE * self.span + ROUNDING:
            return header
        measured = intervals / self.span
        usual = [rate for whole in (round(measured), math.ceil(measured)) for rate in usual_rates(whole)]
        return next((rate for rate in usual if abs(intervals / rate - self.span) <= ROUNDING), measured_rate(measured))

    def moments(self, fps: int = FPS) -> list[float]:
        """Those 1 / `fps` s apart, up to the last picture."""
        count = math.floor(self.span * fps + EARLY * fps) + 1
        return [self.seconds[-1] - back / fps for back in reversed(range(count))]

    def earlier(self, seconds: float) -> "Times":
        return Times(tuple(second - seconds for second in self.seconds), self.end - seconds)

    def within(self, begin: float, end: float) -> "Times":
        """Those from `begin` on and before `end`."""
        kept = tuple(second for second in self.seconds if begin - EARLY <= second < end - EARLY)
        return Times(kept, min(self.end, end))


def usual_rates(whole: int) -> list[Fraction]:
    """A whole number of frames per second, and the same as of NTSC."""
    return [Fraction(whole), Fraction(1000 * whole, 1001)] if whole else []


def measured_rate(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(MAX_DENOMINATOR)


def shown_at(moments: list[float], pictures: Iterator[av.VideoFrame], rate: Fraction) -> Iterator[av.VideoFrame]:
    """For each of the `moments` the picture that is shown, or the next one where that is nearer.

    None comes more than 1/32 s early, where pictures stay for long.
    """
    lead = min(float(1 / rate), 1 / FPS) / 2 + EARLY
    waiting, shown = iter([*moments, math.inf]), None
    moment = next(waiting)
    for picture in pictures:
        while shown is not None and picture.time is not None and moment + lead < picture.time:
            yield shown
            moment = next(waiting)
        shown = picture
        if moment == math.inf:
            return
    while shown is not None and moment != math.inf:
        yield shown
        moment = next(waiting)


def times_in_packets(
    container: InputContainer, begin: float | None, end: float, notes: list[str], raise_if_stopped: Callable[[], None]
) -> tuple[Times | None, float]:
    """The times of the pictures from `begin` or somewhat earlier to `end`, and when all that was read ends.

    Without times where the packets do not tell. Nothing is decoded.
    """
    video, audio = first_video(container), last_audio(container)
    if begin is not None:
        seek(container, video, begin - SEEK_MARGINS[-1])
    lengths: dict[float, float] = {}
    last = 0.0
    for packet in packets(container, [video, *([audio] if audio else [])], notes):
        raise_if_stopped()
        unit = packet.stream.time_base or Fraction(0)
        if packet.is_discard or not packet.size:
            continue
        if packet.dts is not None:
            last = max(last, float((packet.dts + (packet.duration or 0)) * unit))
            if packet.stream is video and packet.dts * unit > end:
                break
        if packet.stream is video:
            if packet.pts is None:
                return None, last
            lengths[float(packet.pts * unit)] = float((packet.duration or 0) * unit)
    return times_from(lengths), last


def times_in_pictures(pictures: Iterator[av.VideoFrame], raise_if_stopped: Callable[[], None]) -> Times | None:
    """The times of all pictures, which are decoded for it."""
    seconds: dict[float, float] = {}
    for picture in pictures:
        raise_if_stopped()
        seconds[picture.time or 0.0] = float((picture.duration or 0) * (picture.time_base or 0))
    return times_from(seconds)


def times_from(lengths: dict[float, float]) -> Times | None:
    """`lengths`: for each time how long the picture stays, 0 where that is not known."""
    if not lengths:
        return None
    seconds = tuple(sorted(lengths))
    usual = sorted(after - before for before, after in pairwise(seconds))[len(seconds) // 2 - 1 :][:1] or [1 / FPS]
    return Times(seconds, seconds[-1] + max(lengths[seconds[-1]], usual[0]))
