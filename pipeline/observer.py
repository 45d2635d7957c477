"""Progress reports of a long task, and the request to stop it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Observer(Protocol):
    """Watches one generation. Both calls come from the thread that generates."""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        """Report the current stage, and that `done` of `total` units of work are finished.

        `latents`: for a preview, the model's current estimate of the clean latents, (1, 16, T, H/8, W/8).
        """

    def raise_if_stopped(self) -> None:
        """Raise an exception that ends the work if the user asked to stop. Called many times per second."""


class NullObserver:
    """An observer that shows nothing and never stops the work."""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        pass

    def raise_if_stopped(self) -> None:
        pass


@dataclass(frozen=True)
class PartObserver:
    """Reports the progress of one segment as part of the whole. `part`: counted from 0. `note`: follows its number."""

    observer: Observer
    part: int
    parts: int
    note: str = ""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        message = f"Part {self.part + 1} of {self.parts}{self.note}: {message}" if self.parts > 1 else message
        self.observer.progress(message, self.part * total + done, self.parts * total, latents)

    def raise_if_stopped(self) -> None:
        self.observer.raise_if_stopped()
