"""How long the steps that are left will take, by those that are done."""

import time
from collections.abc import Callable

LEAST_SECONDS = 10
"""Less is not worth a word."""
STEPS_MEASURED = 2
"""The first step also loads and compiles, so that it takes longer than those that follow."""
SECONDS_SHOWN, MINUTES_SHOWN = 90, 90


class TimeLeft:
    """Counts the steps of one loop. `clock`: of seconds."""

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._left = steps
        self._done = 0
        self._clock = clock
        self._begin = 0.0

    def after_a_step(self) -> str:
        """Return ", about 4 min left", or nothing where too few steps are done to tell, or too little is left."""
        self._left -= 1
        self._done += 1
        if self._done == 1:
            self._begin = self._clock()
        if self._done <= STEPS_MEASURED:
            return ""
        seconds = self._left * (self._clock() - self._begin) / (self._done - 1)
        return f", about {in_words(seconds)} left" if seconds >= LEAST_SECONDS else ""


def in_words(seconds: float) -> str:
    """Return a duration as "40 s", "4 min" or "2.5 h"."""
    if seconds < SECONDS_SHOWN:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < MINUTES_SHOWN else f"{minutes / 60:.1f} h"
