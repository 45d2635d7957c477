"""How long work reports progress and learns that it should stop."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Observer(Protocol):
    """Watches one generation. Both calls come from the thread that generates."""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        """Report that `done` of `total` units of work are finished and what goes on now.

        `latents` is the model's present guess of the clean latents, (1, 16, T, H/8, W/8), for a preview.
        """

    def raise_if_stopped(self) -> None:
        """Raise whatever exception ends the work, when the user asked for that. Called many times a second."""


class NullObserver:
    """An observer that shows nothing and never stops the work."""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        pass

    def raise_if_stopped(self) -> None:
        pass


@dataclass(frozen=True)
class PartObserver:
    """Reports the progress of one of several parts, counted from 0, as that of the whole. `note` follows its number."""

    observer: Observer
    part: int
    parts: int
    note: str = ""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        message = f"Part {self.part + 1} of {self.parts}{self.note}: {message}" if self.parts > 1 else message
        self.observer.progress(message, self.part * total + done, self.parts * total, latents)

    def raise_if_stopped(self) -> None:
        self.observer.raise_if_stopped()
