"""Several processes on one folder, for several GPUs or the cores of a CPU: each takes the next job that nobody has."""

import multiprocessing
import sys
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, cast

from ..errors import CosmosError
from .jobs import Job
from .output import Output
from .progress import Display
from .settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

WORKER = f"{__package__}.worker"


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


def work(settings: Settings, output: Output, jobs: list[Job], outcomes: Connection) -> None:
    """Do what a process does, and send each outcome, or the `CosmosError` that stands in its way."""
    import torch

    from .worker import Worker

    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        for outcome in Worker(settings, output).work(jobs, Child()):
            outcomes.send(outcome)
    except CosmosError as error:
        outcomes.send(error)


def context_for(settings: list[Settings]) -> Any:
    """Return how processes are started: copies of one that has imported torch, or new ones for GPUs.

    A copy begins at once and shares the memory of what was imported. CUDA does not survive a copy.
    """
    if sys.platform != "linux" or any(each.device != "cpu" for each in settings):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", WORKER])
    return context


def make_in_processes(jobs: list[Job], output: Output, settings: list[Settings], display: Display) -> int:
    """Return how many jobs failed and processes died. Raises the `CosmosError` of a process that could not begin."""
    context = context_for(settings)
    processes: dict[Connection, Any] = {}
    for each in settings:
        outcomes, sender = context.Pipe(duplex=False)  # of its own: a killed process may hold the lock of a queue
        process = context.Process(target=work, args=(each, output, jobs, sender), daemon=True)
        process.start()
        sender.close()
        processes[outcomes] = process
    failed = 0
    with display:
        while processes:
            for outcomes in cast("list[Connection]", wait(list(processes))):
                try:
                    outcome = outcomes.recv()
                except EOFError:
                    failed += died(processes.pop(outcomes))
                    continue
                if isinstance(outcome, CosmosError):
                    raise outcome
                failed += display.add(outcome)
    return failed


def died(process: Any) -> bool:
    """Return whether a process that has ended was killed or crashed, after a line that says so."""
    process.join()
    if process.exitcode:
        print(f"A process died (exit code {process.exitcode}). Run the same again for its job.", file=sys.stderr)
    return bool(process.exitcode)
