"""What the pack adds to ComfyUI's start.

    .demo/env/bin/python benchmarks/start.py

Loads ComfyUI's own nodes as its start does, then the pack as ComfyUI loads it, in a fresh process each time.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cosmos_predict25.benchmarks.report import publish

REPO = Path(__file__).resolve().parents[1]
COMFYUI = REPO / ".demo" / "ComfyUI-0.30.0"
ROUNDS = 7
LIMIT_SECONDS = 0.15


def load_once(base: str) -> None:
    """Load the pack in this process and print the seconds and the modules that came with it as JSON."""
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
    print(json.dumps({"loaded": loaded, "seconds": seconds, "modules": modules, "all": sorted(sys.modules)}))


def load_in_a_fresh_process() -> dict:
    with tempfile.TemporaryDirectory() as base:
        command = [sys.executable, __file__, base]
        output = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    if len(sys.argv) == 2:
        return load_once(sys.argv[1])
    seconds = [load_in_a_fresh_process()["seconds"] for _ in range(ROUNDS)]
    median = statistics.median(seconds)
    publish(["median, s", "least, s", "most, s", "limit, s"],
            [[f"{value:.3f}" for value in (median, min(seconds), max(seconds), LIMIT_SECONDS)]])  # fmt: skip
    return None


if __name__ == "__main__":
    main()
