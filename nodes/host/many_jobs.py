"""The number of jobs that a run of a graph sends to fal, and their cost so far."""

import math
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...pipeline.errors import FalError, InvalidRequestError
from ...pipeline.extension import DEFAULT_NEW_FRAMES
from ...pipeline.request import NUM_FRAMES, SamplerSettings
from ...pipeline.start import CLIP_FRAMES
from .output import result_on_node

MAX_JOBS = 10
ALLOW = "allow_many_jobs"
GENERATE, EXTEND = "CosmosPredict25GenerateFal", "CosmosPredict25ExtendFal"
NAME = "cosmos_predict25_jobs"
"""Of the attribute of ComfyUI's state of a run, with which it goes."""


@dataclass
class JobsOfRun:
    """The jobs of one run of a graph. `planned`: how many, by node and index in its list. `charges`: dollars."""

    planned: dict[tuple[str, int], int] = field(default_factory=dict)
    done: int = 0
    charges: list[float] = field(default_factory=list)
    today: float = 0.0

    def describe(self) -> str:
        """Return the count and the sum in words, where there is more than one video, or a queue."""
        from ...pipeline.fal.budget import in_dollars

        total, waiting, parts = sum(self.planned.values()), runs_in_queue(), []
        if len(self.planned) > 1:
            parts.append(f"{self.done} of {total}, {in_dollars(sum(self.charges))} in all so far")
        elif waiting and self.today:
            parts.append(f"{in_dollars(self.today)} today")
        if waiting:
            parts.append("1 more run is in the queue" if waiting == 1 else f"{waiting} more runs are in the queue")
        return ", ".join(parts)


class NodeJobs:
    """The jobs of one execution of a node."""

    def __init__(self, run: JobsOfRun, journal: Any) -> None:
        self._run = run
        self._journal = journal
        self._dollars = 0.0

    def add(self, dollars: float) -> None:
        """Count a job that fal has taken."""
        from ...pipeline.fal.budget import spent_today

        self._dollars += dollars
        self._run.charges.append(dollars)
        self._run.today = spent_today(self._journal)

    async def end(self, node_id: str) -> list[str]:
        """Return sentences for the node: what was charged, and which videos were fetched too."""
        from ...pipeline.fal.budget import in_dollars, spent_today
        from ...pipeline.fal.past_jobs import tell_news

        self._run.done += self._run.planned.get((node_id, index_in_list()), 1)
        charged, today = in_dollars(self._dollars), in_dollars(spent_today(self._journal))
        cost = f"Charged {charged}, {today} today." if self._dollars else f"Nothing charged, {today} today."
        return [cost, await tell_news(self._journal)]


def jobs_of_run() -> JobsOfRun:
    """Return the jobs of the run that goes on."""
    return vars(get_progress_state()).setdefault(NAME, JobsOfRun())


def index_in_list() -> int:
    """Return which of its inputs a node that is mapped over a list is at."""
    context = get_executing_context()
    return (context.list_index if context else None) or 0


def is_refused_item(node_id: str, error: FalError) -> bool:
    """Return whether fal has refused one item of a list for good, which must not hold back the others."""
    from ...pipeline.fal.queue.errors import is_lasting

    return is_lasting(error) and sum(name == node_id for name, _ in jobs_of_run().planned) > 1


def refused_item(error: FalError, seed: int | None, notes: list[str]) -> io.NodeOutput:
    """Return no outputs for an item that was refused. ComfyUI shows the message instead of what would use them."""
    message = f"One of the list was refused{'' if seed is None else f', seed {seed}'}, and the others go on: {error}"
    return io.NodeOutput(None, None, None, ui=result_on_node(message, *notes), block_execution=message)


def runs_in_queue() -> int:
    """Return how many runs wait behind this one."""
    queue = getattr(PromptServer.instance, "prompt_queue", None)
    return len(queue.get_current_queue_volatile()[1]) if queue else 0


def check_number_of_jobs(node_id: str, count: int, is_allowed: bool) -> None:
    """Note `count` jobs of a node, and raise `InvalidRequestError` where the run has more than 10 by now.

    ComfyUI asks a node about each item of a list before it works on the first. Other nodes count as the graph shows
    them until they are asked.
    """
    run, graph = jobs_of_run(), get_progress_state().dynprompt.get_original_prompt()
    run.planned[node_id, index_in_list()] = count
    known = {name for name, _ in run.planned}
    others = {name: node for name, node in jobs_in(graph).items() if name not in known}
    total = sum(run.planned.values()) + sum(number_of_jobs(node, graph) for node in others.values())
    is_allowed |= any(node["inputs"].get(ALLOW) is True for node in jobs_in(graph).values())
    if total > MAX_JOBS and not is_allowed:
        raise InvalidRequestError(
            f"This run would send at least {total} jobs to fal, and each is charged. The limit is {MAX_JOBS}. Nothing "
            f"was sent from this node. To send them all, turn on {ALLOW} on it."
        )


def jobs_in(graph: dict[str, Any]) -> dict[str, Any]:
    """Return the nodes that send jobs, but for those to which nothing is connected, which do not run."""
    inputs = [value for node in graph.values() for value in node["inputs"].values()]
    used = {value[0] for value in inputs if isinstance(value, list) and value}
    return {name: node for name, node in graph.items() if node["class_type"] in (GENERATE, EXTEND) and name in used}


def number_of_jobs(node: dict[str, Any], graph: dict[str, Any]) -> int:
    """Return how many jobs a node of a graph sends, as far as its widgets tell."""
    if node["class_type"] == GENERATE:
        return 1
    settings = node["inputs"].get("settings")
    source = graph.get(settings[0], {}) if isinstance(settings, list) else {}
    return number_of_parts(**node["inputs"], num_frames=source.get("inputs", {}).get("num_frames"))


def number_of_parts(
    new_frames: Any = None, overlap: Any = None, num_frames: Any = None, settings: Any = None, **_: Any
) -> int:
    """Return how many jobs an extension is. What is not known counts as the default."""
    if isinstance(settings, SamplerSettings):
        num_frames = settings.num_frames
    defaults = ((new_frames, DEFAULT_NEW_FRAMES), (num_frames, NUM_FRAMES.maximum), (overlap, CLIP_FRAMES))
    added, longest, kept = (value if isinstance(value, int) else default for value, default in defaults)
    return math.ceil(added / max(1, longest - kept))
