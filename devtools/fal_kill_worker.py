"""Starts processes that make a video through the fal node's own code, kills them, and starts them again.

    python fal_kill_worker.py < orders.json

The orders: `node`, "generate" or "extend", which makes three parts; `folder`, under which each run has folders of its
own; `runs`, pairs of a seed and the moment of the kill as a fraction of the time that a whole run takes; `at_once`.
Everything is imported once, and each process is a fork.
Printed is {"seconds": of a whole run, "runs": [{"seed", "moment", "killed", "found", "outcome"}]}: `found` is the state
on disk after the kill, and `outcome` what the second process ended with, {"frames": how many} or {"error", "message"}.
"""

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from cosmos_predict25.devtools import comfy_on_cpu  # noqa: F401

# isort: split
import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import reset_progress_state
from server import PromptServer

from cosmos_predict25.nodes.extend_fal import CosmosPredict25ExtendFal
from cosmos_predict25.nodes.generate_fal import CosmosPredict25GenerateFal
from cosmos_predict25.nodes.host import background, clips, output, videos  # noqa: F401
from cosmos_predict25.pipeline.errors import CosmosError
from cosmos_predict25.pipeline.fal import Journal, NetworkPolicy, extension
from cosmos_predict25.pipeline.request import Prompt, SamplerSettings

NODES = {
    "generate": (
        CosmosPredict25GenerateFal,
        {
            "endpoint": {"endpoint": "text-to-video"},
            "video_output_type": "X264 (.mp4)",
            "video_quality": "high",
            "sync_mode": False,
            "store": True,
            "webhook_url": "",
        },
    ),
    "extend": (CosmosPredict25ExtendFal, {"video": torch.full((7, 64, 96, 3), 0.25), "new_frames": 12, "overlap": 5}),
}
TICK = 0.002
WHOLE_RUNS = 3
PROMPT = "A red cube on a conveyor belt that nobody else would think of."
POLICY = NetworkPolicy(poll_intervals=((0, 0.05),), backoff=0.05, backoff_cap=0.1, reconcile_pauses=(0, 0.2, 0.5))
"""As in production but for the pauses."""


class Run:
    """A process that is killed after `seconds`, and then one that is not."""

    def __init__(self, node: str, folder: Path, seed: int, seconds: float = 0.0) -> None:
        self.node = node
        self.folder = folder / str(seed)
        self.seed = seed
        self.seconds = seconds
        self.killed: bool | None = None
        self.found = ""
        self.started = time.monotonic()
        self.pid = self._fork()

    def is_over(self) -> bool:
        passed = time.monotonic() - self.started
        if self.seconds and self.killed is None and passed >= self.seconds:
            os.kill(self.pid, signal.SIGKILL)
            self.seconds = passed
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return False
        if self.killed is None and self.seconds:
            self.killed = os.WIFSIGNALED(status)
            self.found = self._look()
            self._outcome_file.unlink(missing_ok=True)
            self.pid = self._fork()
            return False
        self.seconds = self.seconds or passed
        return True

    @property
    def outcome(self) -> dict[str, Any]:
        return json.loads(self._outcome_file.read_text())

    @property
    def _outcome_file(self) -> Path:
        return self.folder / "outcome.json"

    def _look(self) -> str:
        records = Journal(self.folder / "user" / "__cosmos_predict25" / "fal_jobs").unfinished()
        video = "video" if list(self.folder.glob("output/cosmos_fal/*.mp4")) else "nothing"
        if not records:
            return video
        return "result" if records[0].result else records[0].state.value

    def _fork(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            self._make()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _make(self) -> None:
        folder_paths.set_output_directory(str(self.folder / "output"))
        folder_paths.set_user_directory(str(self.folder / "user"))
        NetworkPolicy.from_environment = staticmethod(lambda: POLICY)  # pyright: ignore[reportAttributeAccessIssue]
        PromptServer(asyncio.new_event_loop())
        extension.SIZE = (96, 64)
        node, inputs = NODES[self.node]
        reset_progress_state("run", DynamicPrompt({"fal": {"class_type": node.__name__}}))
        node = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "fal"}})
        settings = SamplerSettings(num_frames=9, seed=self.seed)
        try:
            video = asyncio.run(node.execute(prompt=Prompt(prompt=PROMPT), settings=settings, **inputs)).args[0]
        except CosmosError as error:
            outcome = {"error": type(error).__name__, "message": str(error)}
        else:
            outcome = {"frames": len(video.get_components().images)}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._outcome_file.write_text(json.dumps(outcome))
        os._exit(0)


def run_all(orders: list[tuple[str, Path, int, float]], at_once: int) -> list[Run]:
    waiting, running, over = list(orders), [], []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(Run(*waiting.pop(0)))
        ended = [run for run in running if run.is_over()]
        over += ended
        running = [run for run in running if run not in ended]
        time.sleep(TICK)
    return over


def main() -> None:
    orders = json.load(sys.stdin)
    node, folder, at_once = orders["node"], Path(orders["folder"]), orders["at_once"]
    whole = run_all([(node, folder, seed, 0.0) for seed in range(WHOLE_RUNS)], at_once)
    assert all("frames" in run.outcome for run in whole), [run.outcome for run in whole]
    seconds = sorted(run.seconds for run in whole)[WHOLE_RUNS // 2]
    kills = [(node, folder, seed, max(TICK, moment * seconds)) for seed, moment in orders["runs"]]
    runs = run_all(kills, at_once)
    report = [
        {"seed": run.seed, "moment": run.seconds, "killed": run.killed, "found": run.found, "outcome": run.outcome}
        for run in runs
    ]
    print(json.dumps({"seconds": seconds, "runs": report}))


if __name__ == "__main__":
    main()
