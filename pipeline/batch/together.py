"""The processes of torchrun make each video together: the first one decides, exports and prints, the others follow."""

import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from ..errors import CosmosError, InvalidRequestError
from ..local.model import LocalModel
from ..local.ulysses import SharedPlacement, share_videos
from ..observer import NullObserver
from .jobs import Job
from .output import Output
from .progress import Display
from .settings import Settings
from .worker import Worker, make


def run_together(options: Namespace, run: Callable[[Namespace], int]) -> int:
    """Do `run` in the first process and what it leads in the others. Return the exit code. Raises `CosmosError`."""
    device = own_device(options)
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        if dist.get_rank():
            while told := tell(None):
                with suppress(CosmosError):  # the first process raises it, too
                    follow(Team(device), *told)
            return 0
        code = run(options)
        tell(None)
        return code
    finally:
        dist.destroy_process_group()


def own_device(options: Namespace) -> str:
    """Return the device of this process, and make it torch's. Raises `InvalidRequestError`."""
    if options.fal or options.ray is not None:
        raise InvalidRequestError("torchrun is for videos on this machine: leave it out with --fal and --ray.")
    if options.device not in (None, "cpu"):
        raise InvalidRequestError(
            f"--device is {options.device!r}, but torchrun gives each process its own GPU: "
            "leave --device out, or use --device cpu."
        )
    gpus, processes = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
    if options.device == "cpu" or not gpus:
        return "cpu"
    if processes > gpus:
        raise InvalidRequestError(
            f"torchrun started {processes} processes, but this machine has {gpus} GPUs: use --nproc_per_node={gpus}."
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return f"cuda:{torch.cuda.current_device()}"


def tell(value: Any) -> Any:
    """Return the `value` of the first process, in all processes."""
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


@dataclass(frozen=True)
class Team:
    """All processes, as this one on `device` sees them."""

    device: str

    def load(self, settings: Settings) -> LocalModel:
        """Load the checkpoint. If any process cannot, all raise its error."""
        model, error = None, None
        try:
            model = replace(settings, device=self.device).load()
            share_videos(model)
        except CosmosError as raised:
            error = raised
        errors: list[CosmosError | None] = [None] * dist.get_world_size()
        dist.all_gather_object(errors, error)
        for each in filter(None, errors):
            raise each
        assert model
        return model

    def options(self, take: Callable[[int], bool]) -> dict[str, Any]:
        """Return arguments for `make`. `take` of the first process decides.

        An error that is not in all processes ends this one, and torchrun ends the others, which would wait for it.
        """
        return {
            "take": lambda index: tell(take(index)),
            "placement": SharedPlacement(self.device),
            "faults": (CosmosError,),
        }


def lead(jobs: list[Job], output: Output, settings: Settings, display: Display) -> int:
    """Make the videos with all processes, and return how many jobs failed."""
    tell((jobs, settings))
    with display:
        outcomes = Worker(settings, output, Team(settings.device)).work(jobs, display)
        return sum(display.add(outcome) for outcome in outcomes)


def follow(team: Team, jobs: list[Job], settings: Settings) -> None:
    """Do this process's part of each video."""
    model = team.load(settings)
    for _ in make(model, jobs, NullObserver(), **team.options(lambda index: False)):
        pass
