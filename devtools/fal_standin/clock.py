"""The time that jobs run by."""

import time


class Clock:
    """Seconds since the epoch.

    Virtual by default: it stands still but for `advance` and the `per_poll` seconds of each status poll, so that a test
    need not sleep. `real`: it goes by itself, `scale` times as fast as the world's.
    """

    def __init__(self, per_poll: float = 1.0, *, real: bool = False, scale: float = 1.0) -> None:
        self.per_poll = per_poll
        self.real = real
        self.scale = scale
        self._began = time.time()
        self._advanced = 0.0

    def now(self) -> float:
        passed = (time.time() - self._began) * self.scale if self.real else 0.0
        return self._began + passed + self._advanced

    def advance(self, seconds: float) -> None:
        self._advanced += seconds

    def poll(self) -> None:
        """A status poll has come."""
        if not self.real:
            self._advanced += self.per_poll

    def go_on(self, moment: float) -> None:
        """A virtual clock stood still from `moment` on, when the jobs were saved, until now, when they are loaded."""
        if not self.real:
            self._advanced += moment - self.now()
