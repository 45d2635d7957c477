"""One process for each device, on one folder: each takes the next job that nobody has."""

import multiprocessing
import queue
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING

from ..errors import CosmosError
from .jobs import Job
from .output import Output
from .progress import Display
from .worker import Outcome, Settings, Worker

if TYPE_CHECKING:
    from torch import Tensor

PAUSE = 0.5


class OrphanedError(Exception):
    """The process that this one works for is gone."""


class Child:
    """The observer of a process: it stops when the parent is gone."""

    def progress(self, message: str, done: int, total: int, latents: "Tensor | None" = None) -> None:
        pass

    def raise_if_stopped(self) -> None:
        parent = multiprocessing.parent_process()
        if parent and not parent.is_alive():
            raise OrphanedError


def work(settings: Settings, output: Output, jobs: list[Job], outcomes: "Queue[Outcome | CosmosError]") -> None:
    """Do what a process does."""
    import torch

    if settings.device == "cpu":
        torch.set_num_threads(1)
    try:
        for outcome in Worker(settings, output).work(jobs, Child()):
            outcomes.put(outcome)
    except CosmosError as error:
        outcomes.put(error)


def make_in_processes(jobs: list[Job], output: Output, settings: list[Settings], display: Display) -> int:
    """Return how many jobs failed. Raises the `CosmosError` of a process that could not begin."""
    context = multiprocessing.get_context("spawn")
    outcomes = context.Queue()
    processes = [context.Process(target=work, args=(each, output, jobs, outcomes), daemon=True) for each in settings]
    for process in processes:
        process.start()
    failed = 0
    with display:
        while True:
            alive = any(process.is_alive() for process in processes)
            try:
                outcome = outcomes.get(timeout=PAUSE)
            except queue.Empty:
                if not alive:
                    return failed
                continue
            if isinstance(outcome, CosmosError):
                raise outcome
            failed += display.add(outcome)
