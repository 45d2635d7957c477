"""What a stage needs to go on after an interruption: its tensors and the steps it has done, in one file."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...pipeline.disk import atomic_write


class Resumable:
    """The steps of one stage. `parts`: name -> object with state_dict; they are filled from `file` if it exists.

    A step must take its randomness from its number alone, so that a resumed run goes on as an uninterrupted one.
    """

    def __init__(self, file: Path, num_steps: int, save_every: int, **parts: Any) -> None:
        self.file, self.num_steps, self.save_every, self.parts = file, num_steps, save_every, parts
        self.done, self.seconds = 0, 0.0
        if file.exists():
            state = torch.load(file, weights_only=True)
            self.done, self.seconds = state.pop("done"), state.pop("seconds")
            for name, part in parts.items():
                part.load_state_dict(state[name])

    def __iter__(self) -> Iterator[int]:
        start = time.monotonic() - self.seconds
        while self.done < self.num_steps:
            yield self.done
            self.done += 1
            self.seconds = time.monotonic() - start
            if self.done % self.save_every == 0 or self.done == self.num_steps:
                self.save()

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic_write(self.file) as temporary:
            torch.save({"done": self.done, "seconds": self.seconds, **state}, temporary)
