"""The same jobs on a Ray cluster: an actor for each GPU, which gets some jobs at a time until none is left."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import CosmosError, MissingDependencyError
from .jobs import Job
from .output import Output
from .progress import Display

if TYPE_CHECKING:
    from .progress import Outcome
    from .settings import Settings

MAX_JOBS_AT_ONCE = 8
"""Given to an actor together, whose prompts are encoded before the first video."""
RESTARTS = 4
"""Of an actor that dies, and of its task. A video that is finished by then is not made again."""


class RayWorker:
    """A `Worker` in an actor. It stands in a module of the pack, which must be installed on every node."""

    def __init__(self, settings: "Settings", output: Output) -> None:
        from .worker import Worker

        self._worker = Worker(settings, output)

    def ready(self) -> None:
        """Answer when the checkpoint is loaded."""

    def work(self, jobs: list[Job]) -> "list[Outcome]":
        from ..observer import NullObserver

        return list(self._worker.work(jobs, NullObserver()))


def make_on_ray(
    jobs: list[Job], output: Output, settings: "Settings", address: str, workers: int | None, display: Display
) -> int:
    """Make the jobs on the cluster at `address`, "local" for one on this machine alone.

    They are made on GPUs if `settings.device` says so or the cluster has any. Return how many failed.
    Raises `MissingDependencyError` without Ray, and `CosmosError` where no cluster answers.
    """
    ray: Any = import_ray()
    connect(ray, address, workers)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
    on_gpus = settings.device.startswith("cuda") or (not settings.device and gpus > 0)
    actor = ray.remote(num_gpus=int(on_gpus), num_cpus=1, max_restarts=RESTARTS, max_task_retries=RESTARTS)
    settings = replace(settings, device="cuda" if on_gpus else "cpu")
    actors = [actor(RayWorker).remote(settings, output) for _ in range(min(workers, len(jobs)))]
    failed = 0
    with display:
        for outcomes in finished(ray, actors, batches(jobs, len(actors))):
            failed += sum(display.add(outcome) for outcome in outcomes)
    return failed


def connect(ray: Any, address: str, workers: int | None) -> None:
    """Connect to a cluster, or start one on this machine, with a CPU for each of `workers`. Raises `CosmosError`."""
    own = {"num_cpus": workers} if address == "local" and workers else {}
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, **own)
    except Exception as error:  # Ray raises any
        raise CosmosError(f"Ray does not answer at {address}: {str(error).splitlines()[0]}") from error


def batches(jobs: list[Job], workers: int) -> list[list[Job]]:
    """Jobs that are given to an actor together: so few that all actors end at about the same time."""
    size = min(MAX_JOBS_AT_ONCE, max(1, math.ceil(len(jobs) / (4 * workers))))
    return [jobs[begin : begin + size] for begin in range(0, len(jobs), size)]


def finished(ray: Any, actors: list[Any], left: list[list[Job]]) -> "Iterator[list[Outcome]]":
    """Yield what came of each of `left`. An actor gets work when it is up, as those of a growing cluster come late."""
    work: dict[Any, list[Job]] = {}
    waiting = {actor.ready.remote(): actor for actor in actors}
    while left or any(work.values()):
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        actor, jobs = waiting.pop(done), work.pop(done, [])
        try:
            outcomes = ray.get(done)
        except ray.exceptions.RayActorError as error:
            if not waiting:
                raise CosmosError(f"The last worker died: {str(error).splitlines()[0]}") from error
            left.append(jobs)
            continue
        if left:
            task = actor.work.remote(jobs := left.pop(0))
            waiting[task], work[task] = actor, jobs
        if outcomes:
            yield outcomes


def import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError('--ray needs Ray: pip install "cosmos-predict25[ray]"') from error
    return ray
