"""What is seen of a batch: a bar in a terminal, lines elsewhere."""

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..errors import CosmosError
from .jobs import Job
from .output import Output

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """A job that is over. `error`: the reason why it failed. `memory`: of the process, as text."""

    job: Job
    seconds: float
    error: str | None = None
    memory: str = ""


def reason(error: Exception) -> str:
    """Return an error as text, with its type where its message may not stand alone."""
    return str(error) if isinstance(error, CosmosError) else f"{type(error).__name__}: {error}"


class Display:
    """Shows the videos that are done, the rate, the time left, and what goes on now. An observer, too."""

    def __init__(self, total: int, output: Output) -> None:
        self._output = output
        self._total, self._done, self._begun = total, 0, time.monotonic()
        self._bar: Any = tqdm(total=total, unit="video", dynamic_ncols=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        if self._bar:
            self._bar.set_postfix_str(f"{message}, {memory_in_use()}")

    def raise_if_stopped(self) -> None:
        pass

    def add(self, outcome: Outcome) -> bool:
        """Show what came of one job, note why it failed, and return whether it did."""
        if outcome.error:
            self._output.add_failed(outcome.job, outcome.error)
        self._done += 1
        text = f"{outcome.job.name}: {f'failed, {outcome.error}' if outcome.error else f'{outcome.seconds:.1f} s'}"
        if self._bar:
            self._bar.write(text)
            self._bar.update()
        else:
            minutes = (time.monotonic() - self._begun) / self._done * (self._total - self._done) / 60
            parts = [f"{self._done} of {self._total}", text, f"{minutes:.0f} min left", outcome.memory]
            print(", ".join(filter(None, parts)), flush=True)
        return outcome.error is not None


def memory_in_use() -> str:
    """Return the peak of the GPU's memory, or of the process where there is no GPU."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of VRAM"
    try:
        import resource
    except ImportError:  # Windows
        return "on the CPU"
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return f"{kilobytes / 2**20:.1f} GiB of RAM"
