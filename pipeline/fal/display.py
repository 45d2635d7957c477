"""What a person sees of a job while it is followed."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import FalError
from ..observer import Observer
from .queue.status import Completed, InProgress, Queued, Status

SEED = re.compile(r" Seed: \d+\.$")
MAX_PROGRESS = 0.95
"""Of the progress bar, while fal has not finished."""

log = logging.getLogger("cosmos_predict25.fal")


class Display:
    """A line of text with the time that has passed and the price, and a bar scaled by the typical duration."""

    def __init__(self, observer: Observer, typical_seconds: float, seed: int) -> None:
        self._observer = observer
        self._typical_seconds = typical_seconds
        self._seed = seed
        self._text = "Looking for the job"
        self._price = ""
        self._start = time.monotonic()
        self._running_since: float | None = None
        self._last: type[Status] | None = None

    def announce(self, text: str) -> None:
        """Show a text that is news, and write it to the log."""
        log.info("fal, seed %d: %s", self._seed, text)
        self.show(with_seed(text, self._seed))

    def show(self, text: str) -> None:
        """Show a text."""
        self._text = text
        self.refresh()

    def show_status(self, status: Status) -> None:
        """Show a state with its newest log line; the first of its kind goes to the log too."""
        if isinstance(status, InProgress) and self._running_since is None:
            self._running_since = time.monotonic()
        is_news, self._last = type(status) is not self._last, type(status)
        if is_news:
            self.announce(status_text(status))
        else:
            self.show(status_text(status))

    def set_price(self, price: str) -> None:
        """Show the price, in words, from now on."""
        self._price = f", {price}"
        log.info("fal, seed %d: %s", self._seed, price)

    def refresh(self) -> None:
        now = time.monotonic()
        running = 0.0 if self._running_since is None else now - self._running_since
        done = min(running, MAX_PROGRESS * self._typical_seconds)
        self._observer.progress(
            f"{self._text} ({now - self._start:.0f} s{self._price})", int(done), int(self._typical_seconds)
        )


def with_seed(text: str, seed: int) -> str:
    """Return a text for the user with the seed at its end, where it says to run the same again."""
    return f"{re.sub(SEED, '', text).removesuffix('.')}. Seed: {seed}." if "un the same again" in text else text


@contextmanager
def naming_seed(seed: int) -> Iterator[None]:
    """Name the seed in an error of fal's that says to run the same again."""
    try:
        yield
    except FalError as error:
        error.args = (with_seed(str(error), seed),)
        raise


def status_text(status: Status) -> str:
    if isinstance(status, Queued):
        ahead = "" if status.position is None else f", {status.position} ahead"
        return f"Queued at fal{ahead}"
    if isinstance(status, Completed):
        return "fal has finished"
    return f"Running at fal: {status.logs[-1]}" if status.logs else "Running at fal"
