"""How long the steps that are left will take: by the card's rate at first, then by the steps that are done."""

import time
from collections.abc import Callable

LEAST_SECONDS = 10
"""Less is not worth a word."""
LEFT = ", about {} left"
BY_RATE = ", about {} by this card's rate"
LEFT_BY_RATE = ", about {} left by this card's rate"
SECONDS_SHOWN, MINUTES_SHOWN = 90, 90


class TimeLeft:
    """Counts the steps of one loop.

    `expected`: the seconds of all steps by the card's rate, or None if it is not known. `clock`: of seconds.
    """

    def __init__(self, steps: int, expected: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._expected = expected
        self._done = 0
        self._clock = clock
        self._begin = 0.0

    def before_the_steps(self) -> str:
        """Return ", about 20 min by this card's rate", or nothing if the rate is not known or the time is short."""
        return about(self._expected, BY_RATE)

    def after_a_step(self) -> str:
        """Return ", about 4 min left", or nothing if it cannot be told yet, or too little is left.

        The first step also loads and compiles. So it is not measured, and after it the card's rate tells the time.
        """
        self._done += 1
        left = self._steps - self._done
        if self._done == 1:
            self._begin = self._clock()
            return about(self._expected and self._expected * left / self._steps, LEFT_BY_RATE)
        return about(left * (self._clock() - self._begin) / (self._done - 1), LEFT)


def about(seconds: float | None, words: str) -> str:
    return words.format(in_words(seconds)) if seconds and seconds >= LEAST_SECONDS else ""


def in_words(seconds: float) -> str:
    """Return a duration as "40 s", "4 min" or "2.5 h"."""
    if seconds < SECONDS_SHOWN:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < MINUTES_SHOWN else f"{minutes / 60:.1f} h"
