"""Videos per minute of ComfyUI's queue, of a loop of `generate`, and of the batch's command, with the demo checkpoint.

    .demo/env/bin/python benchmarks/batch.py          # the three ways
    .demo/env/bin/python benchmarks/batch.py --ray    # 1, 2 and 4 Ray workers of one thread

Each way makes the same videos, one way after the other, in processes of its own. The rate counts from the first video
to the last one, without the start of ComfyUI, Ray and Python. So do the CPU seconds, which other programs on the
machine change little. RSS is the sum over all processes, so shared pages count in each of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from cosmos_predict25.devtools.comfyui import ComfyUI, to_api_prompt
from cosmos_predict25.devtools.environment import NEWEST, REPO, source_folder
from cosmos_predict25.devtools.report import publish

TEMPLATE = REPO / "workflows" / "Cosmos Text to Video (demo).json"
PROMPT = "A large red circle moves left over a blue background."
REQUEST = {"num_frames": 25, "num_inference_steps": 20, "guidance_scale": 2, "width": 96, "height": 96}
HEADER = ("", "videos per minute", "CPU s per video", "s to the first video", "peak RSS, MiB")
Way = Callable[[Path, int], None]


class Watch:
    """The CPU seconds and the memory of all processes that this one has started, while it is entered."""

    def __init__(self) -> None:
        self.peak_mib, self._cpu, self._seconds = 0.0, {}, []

    def __enter__(self) -> "Watch":
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            size = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error), process.oneshot():
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                    size += process.memory_info().rss
            self.peak_mib = max(self.peak_mib, size / 2**20)
            self._seconds.append((time.time(), sum(self._cpu.values())))

    def cpu_seconds(self, begin: float, end: float) -> float:
        """CPU seconds between two times."""
        within = [seconds for moment, seconds in self._seconds if begin <= moment <= end]
        return within[-1] - within[0]


@contextmanager
def jobs_file(count: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "jobs.jsonl")
        file.write_text(json.dumps({"name": "a", "prompt": PROMPT, "seeds": count, **REQUEST}), encoding="utf-8")
        yield file


def queue_of_comfyui(folder: Path, count: int) -> None:
    """The demo's template, queued with one seed after the other."""
    graph = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    with ComfyUI(source_folder(NEWEST), folder, REPO) as server:
        prompt = to_api_prompt(graph, server.object_info())
        nodes = {node["class_type"]: node["inputs"] for node in prompt.values()}
        nodes["CosmosPredict25Prompt"]["prompt"] = PROMPT
        ids = []
        for seed in range(count):
            nodes["CosmosPredict25SamplerSettings"] |= {**REQUEST, "seed": seed}
            ids.append(server.queue(prompt))
        for each in ids:
            server.wait(each)


def loop_of_generate(folder: Path, count: int) -> None:
    subprocess.run([sys.executable, __file__, "--loop", str(folder), "--count", str(count)], check=True)


def generate_and_export(folder: Path, count: int) -> None:
    """The program of docs/python.md in a loop."""
    from cosmos_predict25.pipeline import DEMO_FOLDER, GenerationRequest, generate, load_pipeline_folder
    from cosmos_predict25.pipeline.export import export

    model, values = load_pipeline_folder(DEMO_FOLDER), dict[str, Any](REQUEST)
    for seed in range(count):
        video = generate(model, GenerationRequest(prompt=PROMPT, seed=seed, **values))
        export(video.frames, folder / f"{seed}.mp4", fps=video.fps)


def command(*options: str) -> Way:
    def run(folder: Path, count: int) -> None:
        with jobs_file(count) as file:
            program = [sys.executable, "-m", "cosmos_predict25.batch", str(file), str(folder), *options]
            subprocess.run(program, check=True, stdout=subprocess.DEVNULL)

    return run


def ray_workers(count: int) -> Way:
    return command("--ray", "local", "--workers", str(count))


THREE: dict[str, Way] = {
    "ComfyUI's queue": queue_of_comfyui,
    "a loop of `generate`": loop_of_generate,
    "`cosmos_predict25.batch`": command(),
}
ON_RAY: dict[str, Way] = {f"{count} Ray workers": ray_workers(count) for count in (1, 2, 4)}


def measure(way: Way, count: int) -> list[float]:
    """The figures of `HEADER`."""
    with tempfile.TemporaryDirectory() as folder, Watch() as watch:
        begun = time.time()
        way(Path(folder), count)
        ends = sorted(path.stat().st_mtime for path in Path(folder).rglob("*.mp4") if "input" not in path.parts)
    assert len(ends) == count
    cpu = watch.cpu_seconds(ends[0], ends[-1]) / (count - 1)
    return [60 * (count - 1) / (ends[-1] - ends[0]), cpu, ends[0] - begun, watch.peak_mib]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true", help="1, 2 and 4 Ray workers of one thread")
    parser.add_argument("--count", type=int, default=40, help="videos of each way")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        return generate_and_export(options.loop, options.count)
    figures = {name: measure(way, options.count) for name, way in (ON_RAY if options.ray else THREE).items()}
    rates = [rate for rate, *_ in figures.values()]
    rows = [[name, *(f"{value:.1f}" for value in values)] for name, values in figures.items()]
    ratios = " and ".join(f"{rates[-1] / rate:.2f}" for rate in rates[:-1])
    publish(HEADER, rows, f"The last way makes {ratios} times as many videos per minute as the others.")
    return None


if __name__ == "__main__":
    main()
