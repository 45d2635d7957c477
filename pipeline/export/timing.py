"""The ticks of a file's clock at which it shows its pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av

from ..clip.pictures import FileClip
from ..clip.times import Times
from .encodings import MIN_FPS, Encoding
from .tensors import Clip

FINE = Fraction(1, 90_000)
"""A tick that all but GIF take, where pictures are not evenly spaced."""
JITTER = 0.25
"""Of an interval, by which evenly spaced pictures may be off: files round times, and cameras waver."""
LONG = 3
"""Intervals from which the last picture is held."""


@dataclass(frozen=True)
class Timing:
    """`rate`: frames per second, on average. `interval`: seconds of a tick. `step`: ticks from a picture to the next.

    `begin`, `end`: seconds of the first picture, and of the end of the last one, by the clock of the pictures.
    """

    rate: Fraction
    interval: Fraction
    step: int = 1
    begin: float = 0.0
    end: float = 0.0

    @classmethod
    def of(cls, clip: Clip | FileClip, rate: Fraction, target: Encoding) -> "Timing":
        """That of a file: its own, so that each picture is shown when the file shows it. Else `rate`."""
        rate = min(max(rate, MIN_FPS), Fraction(target.max_fps))
        if not isinstance(clip, FileClip):
            return cls(rate, 1 / rate)
        interval = even_interval(clip.times, rate, target)
        step = max(1, round(usual_interval(clip.times, rate) / interval))
        return cls(rate, interval, step, clip.begin, clip.times.end)

    def shown(self, pictures: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield each picture with its tick. A picture whose tick is taken is dropped, and the last one is held."""
        last, tick = None, -1
        for picture in pictures:
            assert picture.time_base
            seconds = Fraction(picture.pts or 0) * picture.time_base - Fraction(self.begin)
            if (due := round(seconds / self.interval)) <= tick:
                continue
            last, tick = picture, due
            yield tick, picture
        end = round((self.end - self.begin) / self.interval)
        if last and end - tick > LONG * self.step:
            yield end - self.step, last


def even_interval(times: Times, rate: Fraction, target: Encoding) -> Fraction:
    """The seconds between two pictures that are evenly spaced, though some may be missing, or else a fine tick."""
    dense = [Fraction(round(1 / interval)) for interval in sorted(gaps(times))[:1] if interval > 0]
    for possible in (rate, *dense):
        if 0 < possible <= target.max_fps and is_even(times, possible):
            return 1 / possible
    return max(FINE, Fraction(1, target.max_fps)) if target.format.container == "gif" else FINE


def is_even(times: Times, rate: Fraction) -> bool:
    begin, places = times.seconds[0], []
    for seconds in times.seconds:
        place = (seconds - begin) * float(rate)
        places.append(round(place))
        if abs(place - places[-1]) > JITTER:
            return False
    return all(before < after for before, after in pairwise(places))


def usual_interval(times: Times, rate: Fraction) -> float:
    """The median."""
    intervals = sorted(gaps(times))
    return intervals[len(intervals) // 2] if intervals else float(1 / rate)


def gaps(times: Times) -> list[float]:
    return [after - before for before, after in pairwise(times.seconds)]
