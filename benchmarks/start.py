"""What the pack adds to ComfyUI's start, and where the seconds go between the first Run and the first step.

    .demo/env/bin/python benchmarks/start.py
    .demo/env/bin/python benchmarks/start.py --first-run

Loads ComfyUI's own nodes as its start does, then the pack as ComfyUI loads it, in a fresh process each time. The first
run is that of the demo: what the nodes import, the checkpoint, the prompts, and the first step. If a page
shows a Model Loader, ComfyUI has done the imports before.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from cosmos_predict25.devtools.report import publish

REPO = Path(__file__).resolve().parents[1]
COMFYUI = REPO / ".demo" / "ComfyUI-0.30.0"
ROUNDS = 7
LIMIT_SECONDS = 0.15
STAGES = ("imports", "loading", "encoding", "first step")


def load_once(base: str, runs: bool, with_page: bool) -> None:
    """Load the pack in this process and print the seconds and the modules that came with it as JSON.

    `runs`: also make a first video and print the seconds of its stages. `with_page`: after what a page asks for.
    """
    sys.path.insert(0, str(COMFYUI))
    sys.argv = ["main.py", "--cpu", "--base-directory", base, "--disable-api-nodes"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import nodes

    async def load() -> tuple[bool, float, list[str]]:
        await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
        before = set(sys.modules)
        start = time.perf_counter()
        loaded = await nodes.load_custom_node(str(REPO))
        return loaded, time.perf_counter() - start, sorted(set(sys.modules) - before)

    loaded, seconds, modules = asyncio.run(load())
    report = {"loaded": loaded, "seconds": seconds, "modules": modules, "all": sorted(sys.modules)}
    print(json.dumps({**report, "stages": first_run(with_page) if runs else {}}))


def first_run(with_page: bool) -> dict[str, float]:
    """Seconds of each stage, in a process in which the pack has been loaded."""
    from cosmos_predict25.nodes.host.preload import import_local

    if with_page:
        import_local()
    ends = [time.perf_counter()]
    import_local()
    from cosmos_predict25.nodes.host.memory import HostedModel
    from cosmos_predict25.pipeline.local.generate import generate
    from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
    from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
    from cosmos_predict25.pipeline.observer import NullObserver
    from cosmos_predict25.pipeline.request import GenerationRequest

    class Watcher(NullObserver):
        def progress(self, message, done, total, latents=None):
            if message == "Denoising" or (latents is not None and len(ends) < len(STAGES) + 1):
                ends.append(time.perf_counter())

    ends.append(time.perf_counter())
    hosted = HostedModel(load_pipeline_folder(DEMO_FOLDER), guardrail=False)
    ends.append(time.perf_counter())
    request = GenerationRequest(prompt="A red circle moves left.", num_frames=25, width=96, height=96, seed=0)
    generate(hosted.model, request, placement=hosted, observer=Watcher())
    return dict(zip(STAGES, (later - earlier for earlier, later in pairwise(ends)), strict=True))


def load_in_a_fresh_process(*options: str) -> dict:
    with tempfile.TemporaryDirectory() as base:
        command = [sys.executable, __file__, "--load", base, *options]
        output = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-run", action="store_true", help="where the seconds go until the first step")
    parser.add_argument("--load", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--with-page", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        return load_once(options.load, options.first_run, options.with_page)
    if options.first_run:
        rows = []
        for row, extra in (("without a page", ()), ("after a page showed the graph", ("--with-page",))):
            stages = [load_in_a_fresh_process("--first-run", *extra)["stages"] for _ in range(ROUNDS)]
            medians = [statistics.median(each[name] for each in stages) for name in STAGES]
            rows.append([row, *(f"{value:.2f}" for value in (*medians, sum(medians)))])
        publish(["seconds", *STAGES, "in all"], rows)
        return None
    seconds = [load_in_a_fresh_process()["seconds"] for _ in range(ROUNDS)]
    median = statistics.median(seconds)
    publish(["median, s", "least, s", "most, s", "limit, s"],
            [[f"{value:.3f}" for value in (median, min(seconds), max(seconds), LIMIT_SECONDS)]])  # fmt: skip
    return None


if __name__ == "__main__":
    main()
