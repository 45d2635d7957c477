"""The fal node in a real ComfyUI, against the stand-in of fal's queue, whose jobs run by the world's clock here.

The newest ComfyUI has the key in ~/.fal/key, the oldest one in FAL_KEY.
"""

import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import httpx
import numpy
import pytest

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, Message, PromptFailedError, PromptRefusedError, to_api_prompt
from cosmos_predict25.devtools.fal_standin import (
    FIELD_ERROR,
    FOREVER,
    TEXT_ERROR,
    FalStandIn,
    Hang,
    Job,
    Outcome,
    Reset,
    content_policy,
)
from cosmos_predict25.pipeline.fal import Journal
from cosmos_predict25.pipeline.fal.journal import Record
from cosmos_predict25.pipeline.formats import FORMATS
from cosmos_predict25.pipeline.request import VIDEO_OUTPUT_TYPES
from cosmos_predict25.tests.fal import LIMIT_VARIABLE

REPO = Path(__file__).resolve().parents[1]
LOCAL = json.loads((REPO / "workflows" / "NVIDIA Cosmos Text to Video (local).json").read_text(encoding="utf-8"))
TEXT = "A red cube on a conveyor belt that turns slowly."
TEXT_TO_VIDEO, DISTILLED = "text-to-video", "distilled/text-to-video"
SEEDS = itertools.count(1000)
NODES = """
import asyncio
import hashlib
import io
import time
from pathlib import Path

import comfy.model_management
import comfy.utils


class Report:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "test", True

    @classmethod
    def INPUT_TYPES(cls):
        needed = {"video": ("VIDEO",), "images": ("IMAGE",), "fps": ("FLOAT", {"forceInput": True})}
        return {"required": needed, "optional": {"audio": ("AUDIO",)}}

    def run(self, video, images, fps, audio=None):
        file = Path(video.get_stream_source())
        found = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "shape": list(images.shape), "fps": fps}
        return {"ui": {"report": [{**found, "audio": audio is not None, "file": file.name}]}}


class Busy:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "test", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {})}}

    def run(self, seconds):
        bar = comfy.utils.ProgressBar(int(100 * seconds))
        for _ in range(int(100 * seconds)):
            time.sleep(0.01)
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)
        return ()


class Wait(Busy):
    RETURN_TYPES, OUTPUT_NODE = ("FLOAT",), False

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {})}}

    async def run(self, file):
        while not Path(file).exists():
            await asyncio.sleep(0.05)
        return (600.0,)  # for a node that a test stops


class Fail(Wait):
    OUTPUT_NODE = True

    async def run(self, file):
        await super().run(file)
        raise RuntimeError("this node fails")


class Prompts:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_IS_LIST = ("STRING",), "run", "test", (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT", {}), "text": ("STRING", {})}}

    def run(self, count, text):
        return ([f"{text} {number}" for number in range(count)],)


NODE_CLASS_MAPPINGS = {
    "TestReport": Report, "TestBusy": Busy, "TestWait": Wait, "TestFail": Fail, "TestPrompts": Prompts
}
"""
"""Nodes of another pack: one tells what it gets, one keeps the graph's loop busy as core's sampler does, one
only waits for a file, one fails once it is there, one gives a list."""


@pytest.fixture
def fal(running_fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalStandIn]:
    """The stand-in with short jobs. Changes of its switches end with the test."""
    switches = {"queue_seconds": 0.3, "run_seconds": 0.5, "concurrency": 40, "locked": False, "cancelled": "ends"}
    for name, value in switches.items():
        monkeypatch.setattr(running_fal, name, value)
    yield running_fal
    running_fal.clear_faults()
    running_fal.release()
    assert running_fal.violations == []


@pytest.fixture(scope="module")
def running_server(
    running_fal: FalStandIn, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Iterator[ComfyUI]:
    """The newest ComfyUI that is tested, with the key in a file."""
    base = tmp_path_factory.mktemp("comfyui-with-fal")
    shutil.copytree(checkpoint, base / "models" / "diffusers" / checkpoint.name)
    key_file = key_file_of(base)
    key_file.parent.mkdir(parents=True)
    key_file.write_text(running_fal.key)
    key_file.chmod(0o600)
    environ = {**running_fal.environ, "FAL_KEY": "", "HOME": str(key_file.parents[1]), LIMIT_VARIABLE: "1000"}
    with comfyui(environment.NEWEST, base, environ) as server:
        yield server
        save_history(server)


@pytest.fixture
def server(running_server: ComfyUI) -> Iterator[ComfyUI]:
    """With nothing to do after the test, whatever happened in it."""
    yield running_server
    running_server.request("/queue", {"clear": True})
    while running_server.request("/queue")["queue_running"]:
        running_server.interrupt()
        time.sleep(0.2)


@pytest.fixture
def comfyui_oldest(running_fal: FalStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """The oldest ComfyUI that is supported, with FAL_KEY."""
    with comfyui(environment.OLDEST, tmp_path_factory.mktemp("oldest-with-fal"), running_fal.environ) as server:
        yield server
        save_history(server)


def comfyui(release: environment.Release, base: Path, environ: dict[str, str]) -> ComfyUI:
    source = environment.source_folder(release)
    assert source.exists(), f"There is no {source}: run scripts/test, which fetches it."
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "test_nodes.py").write_text(NODES)
    return ComfyUI(source, base, REPO, environ=environ)


def key_file_of(base: Path) -> Path:
    return base / "home" / ".fal" / "key"


def save_history(server: ComfyUI) -> None:
    """Beside its logs, where test_fal_secrets.py looks."""
    (server.base / f"history-{time.time()}.json").write_text(json.dumps(server.request("/history")))


def forget(server: ComfyUI) -> None:
    """ComfyUI keeps no result of a node. It forgets at the end of a run, or before."""
    server.request("/free", {"free_memory": True})
    picture = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
    server.run({"picture": picture, "shown": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}}})


def kill_and_start(server: ComfyUI) -> None:
    """With the same folders, and another log file."""
    save_history(server)
    assert server._process
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    server.stop()
    server.log = server.base / f"comfyui-{time.time()}.log"
    server.start()


Graph = dict[str, dict[str, Any]]


def graph(*seeds: int, text: str = TEXT, settings: dict[str, Any] | None = None, **options: Any) -> Graph:
    """One prompt, and for each seed settings, the fal node `fal...`, and the exporter that saves its file as it is."""
    prompt = {"prompt": {"class_type": "CosmosPredict25Prompt", "inputs": {"prompt": text, "negative_prompt": ""}}}
    sampling = {"num_frames": 9, "num_inference_steps": 35, "guidance_scale": 7.0, "width": 1280, "height": 704}
    fal = {"endpoint": TEXT_TO_VIDEO, "video_output_type": "X264 (.mp4)", "video_quality": "high", "sync_mode": False}
    fal = {**fal, "store": True, "webhook_url": "", "prompt": ["prompt", 0], **options}
    export = {"format": fal["video_output_type"], "quality": "as is", "filename_prefix": "exported/fal"}
    for seed in seeds:
        nodes = {
            f"settings{seed}": ("SamplerSettings", {**sampling, "seed": seed, **(settings or {})}),
            f"fal{seed}": ("GenerateFal", {**fal, "settings": [f"settings{seed}", 0]}),
            f"export{seed}": ("ExportVideo", {**export, "video": [f"fal{seed}", 0]}),
        }
        for name, (kind, inputs) in nodes.items():
            prompt[name] = {"class_type": f"CosmosPredict25{kind}", "inputs": inputs}
    return prompt


def with_local(server: ComfyUI, prompt: Graph, seed: int) -> Graph:
    """`prompt` and the nodes that generate on this machine, from the prompt and the settings of the fal node."""
    shared = {"CosmosPredict25Prompt": "prompt", "CosmosPredict25SamplerSettings": f"settings{seed}"}
    workflow = to_api_prompt(LOCAL, server.object_info())
    names = {name: shared.get(node["class_type"], f"local{name}") for name, node in workflow.items()}
    local = {}
    for name, node in workflow.items():
        inputs = {
            key: [names[value[0]], value[1]] if isinstance(value, list) else value
            for key, value in node["inputs"].items()
        }
        local[names[name]] = {**node, "inputs": inputs}
    return {**local, **prompt}


def new_seeds(count: int = 1) -> list[int]:
    return list(itertools.islice(SEEDS, count))


def jobs_of(fal: FalStandIn, *seeds: int) -> list[Job]:
    return [job for job in fal.jobs.values() if job.input.get("seed") in seeds]


def job_of(fal: FalStandIn, seed: int) -> Job:
    """The only one that was accepted for the seed."""
    (job,) = jobs_of(fal, seed)
    return job


def requests_of(fal: FalStandIn, stage: str, job: Job) -> list[Any]:
    name = job.media_path if stage == "media" else job.request_id
    return [exchange for exchange in fal.requests(stage) if name in exchange.target]


def journal_of(server: ComfyUI) -> Journal:
    return Journal(server.base / "user" / "__cosmos_predict25" / "fal_jobs")


def record_of(server: ComfyUI, seed: int) -> Record | None:
    found = [record for record in journal_of(server).unfinished() if record.seed == seed]
    assert len(found) < 2
    return found[0] if found else None


def events(entry: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [data for name, data in entry["status"]["messages"] if name == kind]


def error_of(server: ComfyUI, prompt: Graph) -> dict[str, Any]:
    with pytest.raises(PromptFailedError) as failed:
        server.run(prompt)
    (error,) = events(failed.value.entry, "execution_error")
    return error


def refusal_of(server: ComfyUI, prompt: Graph, node: str) -> str:
    """ComfyUI repeats what a node's own validation says for each input that it looks at."""
    with pytest.raises(PromptRefusedError) as refused:
        server.queue(prompt)
    return "\n".join(f"{error['message']}: {error['details']}" for error in refused.value.node_errors[node]["errors"])


def served(fal: FalStandIn, job: Job) -> bytes:
    """The job's file as the media origin gives it."""
    context = ssl.create_default_context(cafile=fal.environ["SSL_CERT_FILE"])
    proxy = fal.environ["HTTPS_PROXY"]
    answer = httpx.get(f"https://{fal.media_host}{job.media_path}", proxy=proxy, verify=context, trust_env=False)
    return answer.raise_for_status().content


def made_with(file: Path) -> dict[str, Any]:
    """What the export node says of the video, in the file or beside it."""
    sidecar = file.with_name(f"{file.name}.json")
    if sidecar.exists():
        return json.loads(sidecar.read_text(encoding="utf-8"))["comment"]
    with av.open(str(file)) as container:
        return json.loads({name.lower(): value for name, value in container.metadata.items()}["comment"])


def frames_of(file: Path) -> numpy.ndarray:
    with av.open(str(file)) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def finished_file(server: ComfyUI, seed: int) -> Path:
    (file,) = (server.output / "cosmos_fal").glob(f"cosmos_{seed}_*")
    return file


def with_core_nodes(prompt: Graph, seed: int) -> Graph:
    """The video of a seed goes through core's Get Video Components and Save Video too."""
    link = [f"fal{seed}", 0]
    report = {"video": link, "images": [f"parts{seed}", 0], "audio": [f"parts{seed}", 1], "fps": [f"parts{seed}", 2]}
    save = {"video": link, "filename_prefix": "core/fal", "format": "mp4", "codec": "h264"}
    return {
        **prompt,
        f"parts{seed}": {"class_type": "GetVideoComponents", "inputs": {"video": link}},
        f"report{seed}": {"class_type": "TestReport", "inputs": report},
        f"save{seed}": {"class_type": "SaveVideo", "inputs": save},
    }


def check_video(server: ComfyUI, fal: FalStandIn, entry: dict[str, Any], seed: int, format: str) -> None:
    """The node gave the server's own file, and every other node could use it."""
    content = served(fal, job_of(fal, seed))
    (report,) = entry["outputs"][f"report{seed}"]["report"]
    assert report["sha256"] == hashlib.sha256(content).hexdigest()
    assert report["shape"][:3] == [9, 64, 96]
    assert report["fps"] == pytest.approx(16, abs=0.1)  # a GIF has whole centiseconds
    assert not report["audio"]
    file = finished_file(server, seed)
    assert (file.name, file.suffix) == (report["file"], FORMATS[format].suffix)
    assert file.read_bytes() == content
    outputs = {name: {"outputs": {name: results}} for name, results in entry["outputs"].items()}
    (exported,) = server.saved_files(outputs[f"export{seed}"])
    assert exported.suffix == FORMATS[format].suffix
    assert (frames_of(exported) == frames_of(file)).all()
    assert made_with(exported)["seed"] == seed
    (saved,) = server.saved_files(outputs[f"save{seed}"])
    assert len(frames_of(saved)) == 9


def texts_of(messages: list[Message], node: str) -> list[str]:
    return [message.data["text"] for message in messages if message.type == "text" and message.data["node"] == node]


def bars_of(messages: list[Message], node: str) -> list[tuple[float, float]]:
    """Each change of the node's progress bar: value and end."""
    states = [message.data["nodes"].get(node) for message in messages if message.type == "progress_state"]
    return [(state["value"], state["max"]) for state in states if state]


def stop(server: ComfyUI, prompt_id: str) -> float:
    """Seconds from the request to stop until the run was interrupted, without an error."""
    asked = time.time()
    server.interrupt()
    entry = server.wait(prompt_id)
    assert not events(entry, "execution_error")
    (event,) = events(entry, "execution_interrupted")
    return event["timestamp"] / 1000 - asked


def test_all_four_types_go_through_the_oldest_comfyui(comfyui_oldest, fal):
    seeds = dict(zip(VIDEO_OUTPUT_TYPES, new_seeds(4), strict=True))
    prompt: Graph = {}
    for format, seed in seeds.items():
        prompt.update(with_core_nodes(graph(seed, video_output_type=format), seed))
    fal.concurrency = 0
    messages: list[Message] = []

    def was_queued(seed: int) -> bool:
        return any(text.startswith("Queued at fal") for text in texts_of(messages, f"fal{seed}"))

    for message in comfyui_oldest.follow(prompt):
        messages.append(message)
        if all(map(was_queued, seeds.values())):
            fal.concurrency = 40
    entry = comfyui_oldest.wait(messages[-1].data["prompt_id"])
    assert events(entry, "execution_success")
    for format, seed in seeds.items():
        check_video(comfyui_oldest, fal, entry, seed, format)
        assert was_queued(seed)
        assert (0, 420) in bars_of(messages, f"fal{seed}")
    assert journal_of(comfyui_oldest).unfinished() == []


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_the_video_is_fals_own_file_and_other_nodes_can_use_it(server, fal, format):
    (seed,) = new_seeds()
    entry = server.run(with_core_nodes(graph(seed, video_output_type=format), seed))
    check_video(server, fal, entry, seed, format)
    assert record_of(server, seed) is None


def test_a_video_inside_the_reply_is_used_too(server, fal):
    (seed,) = new_seeds()
    server.run(graph(seed, sync_mode=True))
    assert job_of(fal, seed).input["sync_mode"] is True
    assert len(frames_of(finished_file(server, seed))) == 9
    assert not requests_of(fal, "media", job_of(fal, seed))


def test_the_node_and_the_console_show_queue_position_time_log_and_price(server, fal):
    fal.queue_seconds, fal.run_seconds, fal.concurrency = 0, 60, 0
    (seed,) = new_seeds()
    logged = server.log.stat().st_size
    messages, steps, seconds = [], [], []
    for message in server.follow(graph(seed)):
        messages.append(message)
        for text in texts_of([message], f"fal{seed}"):
            if re.fullmatch(r"Queued at fal, 0 ahead \(\d+ s, \$0\.20 a video\)", text):
                fal.concurrency = 1
            if match := re.fullmatch(r"Running at fal: step (\d+)/35 \((\d+) s, \$0\.20 a video\)", text):
                steps.append(int(match[1]))
                seconds.append(int(match[2]))
        if len(set(steps)) >= 2 and len(set(seconds)) >= 3:
            fal.complete(job_of(fal, seed).request_id)
    bars = bars_of(messages, f"fal{seed}")
    assert fal.concurrency == 1
    assert len(set(steps)) >= 2
    assert steps == sorted(steps)
    assert len(set(seconds)) >= 3
    assert seconds == sorted(seconds)
    (result,) = [
        message.data["output"]["cosmos_predict25"]
        for message in messages
        if message.type == "executed" and message.data["node"] == f"fal{seed}"
    ]
    assert " ".join(result).startswith(f"9 frames, 96 x 64, 0.6 s, seed {seed}.")
    assert {end for _, end in bars if end != 1} == {420}
    assert {1, 2} <= {value for value, _ in bars}
    console = server.log.read_bytes()[logged:].decode()
    for said in (
        f"fal, seed {seed}: Sent to fal, request id {job_of(fal, seed).request_id}",
        f"fal, seed {seed}: Queued at fal",
        f"fal, seed {seed}: Running at fal",
        f"fal, seed {seed}: $0.20 a video",
    ):
        assert said in console


def test_eight_nodes_in_one_graph_run_at_fal_at_once(server, fal):
    """All run at fal before the first has ended."""
    fal.run_seconds = math.inf
    seeds = new_seeds(8)
    prompt_id = server.queue(graph(*seeds))
    fal.wait_for(lambda: [job.state for job in jobs_of(fal, *seeds)] == ["IN_PROGRESS"] * 8)
    for job in jobs_of(fal, *seeds):
        fal.complete(job.request_id)
    assert events(server.wait(prompt_id), "execution_success")
    assert len(jobs_of(fal, *seeds)) == 8


def test_the_job_goes_on_while_a_local_node_keeps_the_graph_busy(server, fal):
    """The job ends at fal when the local generation has begun, which is stopped once the video is here."""
    fal.run_seconds = math.inf
    seed, small = new_seeds(2)
    settings = {"num_frames": 93, "num_inference_steps": 50, "width": 256, "height": 256}
    prompt = with_local(server, graph(seed, settings=settings), seed)
    generate = next(name for name, node in prompt.items() if node["class_type"] == "CosmosPredict25Generate")
    is_over = False
    for message in server.follow(prompt):
        if not is_over and any("Denoising" in text for text in texts_of([message], generate)):
            fal.wait_for(lambda: jobs_of(fal, seed))
            fal.complete(job_of(fal, seed).request_id)
            fal.wait_for(lambda: record_of(server, seed) is None)
            server.interrupt()
            is_over = True
    (stopped,) = events(server.wait(message.data["prompt_id"]), "execution_interrupted")
    assert stopped["node_id"] == generate
    job = job_of(fal, seed)
    assert finished_file(server, seed).read_bytes() == served(fal, job)
    for stage in ("status", "result", "media"):
        assert requests_of(fal, stage, job)
    fal.run_seconds = 0.5
    settings = {"num_frames": 9, "num_inference_steps": 2, "width": 64, "height": 64}
    entry = server.run(with_local(server, graph(small, settings=settings), small))
    assert len(server.saved_files(entry)) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_stop_ends_the_run_and_cancels_every_job(server, fal, count):
    fal.run_seconds = math.inf
    seeds = new_seeds(count)
    prompt_id = server.queue(graph(*seeds))
    fal.wait_for(lambda: [job.state for job in jobs_of(fal, *seeds)] == ["IN_PROGRESS"] * count)
    fal.wait_for(lambda: all(requests_of(fal, "status", job) for job in jobs_of(fal, *seeds)))
    print(f"\n{count} nodes: interrupted {stop(server, prompt_id):.2f} s after Stop", end="")
    fal.wait_for(lambda: all(job.cancelled for job in jobs_of(fal, *seeds)))
    fal.wait_for(lambda: not journal_of(server).unfinished())
    assert [len(requests_of(fal, "cancel", job)) for job in jobs_of(fal, *seeds)] == [1] * count
    assert "Exception" not in server.log.read_text().rpartition("got prompt")[2]


def test_stop_in_the_queue_takes_the_job_out_of_it(server, fal):
    fal.queue_seconds = math.inf
    (seed,) = new_seeds()
    prompt_id = server.queue(graph(seed))
    fal.wait_for(lambda: jobs_of(fal, seed))
    stop(server, prompt_id)
    fal.wait_for(lambda: job_of(fal, seed).cancelled)
    fal.wait_for(lambda: record_of(server, seed) is None)


def test_stop_ends_the_run_at_once_when_fal_does_not_answer(server, fal):
    fal.run_seconds = math.inf
    (seed,) = new_seeds()
    prompt_id = server.queue(graph(seed))
    fal.wait_for(lambda: jobs_of(fal, seed))
    for stage in ("status", "cancel"):
        fal.fault(stage, Hang(), times=FOREVER)
    fal.wait_for(lambda: requests_of(fal, "status", job_of(fal, seed)))
    print(f"\ninterrupted {stop(server, prompt_id):.2f} s after Stop", end="")
    assert len(requests_of(fal, "cancel", job_of(fal, seed))) <= 1  # a second follows when the first is given up
    record = record_of(server, seed)
    assert record
    assert record.request_id == job_of(fal, seed).request_id


def test_stop_while_the_job_is_being_sent_cancels_it_when_its_id_is_known(server, fal):
    fal.run_seconds = math.inf
    fal.fault("submit", Hang(accept=True))
    (seed,) = new_seeds()
    prompt_id = server.queue(graph(seed))
    fal.wait_for(lambda: jobs_of(fal, seed))
    print(f"\ninterrupted {stop(server, prompt_id):.2f} s after Stop", end="")
    record = record_of(server, seed)
    assert record
    assert record.request_id is None
    fal.release()
    fal.wait_for(lambda: job_of(fal, seed).cancelled)
    fal.wait_for(lambda: record_of(server, seed) is None)


def test_after_stop_the_same_graph_is_a_new_job(server, fal):
    fal.run_seconds = math.inf
    (seed,) = new_seeds()
    prompt_id = server.queue(graph(seed))
    fal.wait_for(lambda: jobs_of(fal, seed))
    stop(server, prompt_id)
    fal.run_seconds = 0.5
    server.run(graph(seed))
    cancelled, made = jobs_of(fal, seed)
    assert cancelled.cancelled
    assert finished_file(server, seed).read_bytes() == served(fal, made)


def test_stop_cancels_the_job_beside_a_local_generation(server, fal):
    fal.run_seconds = math.inf
    (seed,) = new_seeds()
    settings = {"num_frames": 17, "num_inference_steps": 50, "width": 256, "height": 256}
    prompt = with_local(server, graph(seed, settings=settings), seed)
    stopped_at = 0.0
    for message in server.follow(prompt):
        if message.type == "preview" and jobs_of(fal, seed) and not stopped_at:
            stopped_at = time.monotonic()
            server.interrupt()
    print(f"\ninterrupted {time.monotonic() - stopped_at:.2f} s after Stop", end="")
    entry = server.wait(message.data["prompt_id"])
    assert events(entry, "execution_interrupted")
    fal.wait_for(lambda: job_of(fal, seed).cancelled)
    fal.wait_for(lambda: record_of(server, seed) is None)


@pytest.mark.parametrize("delay", [0.5, 0.53, 0.56])
def test_stop_cancels_the_job_beside_a_node_that_takes_the_flag_down_at_once(server, fal, tmp_path, delay):
    """As core's sampler, which looks at each layer: it ends the run at once and takes the flag down with it."""
    fal.run_seconds = math.inf
    (seed,) = new_seeds()
    prompt, begin = graph(seed), tmp_path / "begin"
    prompt["wait"] = {"class_type": "TestWait", "inputs": {"file": str(begin)}}
    prompt["busy"] = {"class_type": "TestBusy", "inputs": {"seconds": ["wait", 0]}}
    asked = 0.0
    for message in server.follow(prompt):
        if any("Running at fal" in text for text in texts_of([message], f"fal{seed}")):
            begin.touch()
        if message.type == "progress" and message.data["node"] == "busy" and not asked:
            time.sleep(delay)
            asked = time.monotonic()
            server.interrupt()
    print(f"\ninterrupted {time.monotonic() - asked:.2f} s after Stop", end="")
    assert events(server.wait(message.data["prompt_id"]), "execution_interrupted")
    fal.wait_for(lambda: job_of(fal, seed).cancelled)


def fail_once(server: ComfyUI, fal: FalStandIn, seed: int, begin: Path, is_time: Callable[[], object]) -> None:
    """Runs the graph of a seed, in which another node fails once `is_time`."""
    failing = {**graph(seed), "fail": {"class_type": "TestFail", "inputs": {"file": str(begin)}}}
    prompt_id = server.queue(failing)
    fal.wait_for(is_time)
    begin.touch()
    (error,) = events(server.wait(prompt_id), "execution_error")
    assert error["node_id"] == "fail"


def test_after_another_node_failed_the_next_run_takes_the_job_up(server, fal, tmp_path):
    fal.run_seconds = math.inf
    (seed,) = new_seeds()
    fail_once(server, fal, seed, tmp_path / "begin", lambda: (record := record_of(server, seed)) and record.request_id)
    record = record_of(server, seed)
    assert record
    assert record.request_id == job_of(fal, seed).request_id
    fal.complete(record.request_id)
    server.run(graph(seed))
    job = job_of(fal, seed)
    assert finished_file(server, seed).read_bytes() == served(fal, job)
    assert not requests_of(fal, "cancel", job)
    assert record_of(server, seed) is None


def test_a_job_that_was_being_sent_when_another_node_failed_is_taken_up(server, fal, tmp_path):
    fal.fault("submit", Hang(accept=True))
    (seed,) = new_seeds()
    fail_once(server, fal, seed, tmp_path / "begin", lambda: jobs_of(fal, seed))
    fal.release()
    server.run(graph(seed))
    job = job_of(fal, seed)
    assert finished_file(server, seed).read_bytes() == served(fal, job)
    assert not requests_of(fal, "cancel", job)


def test_a_lost_answer_is_found_again_in_fals_list(server, fal):
    fal.fault("submit", Reset(accept=True))
    (seed,) = new_seeds()
    server.run(graph(seed))
    assert finished_file(server, seed).read_bytes() == served(fal, job_of(fal, seed))


def test_the_same_graph_again_comes_from_comfyuis_cache(server, fal):
    (seed,) = new_seeds()
    server.run(graph(seed))
    nothing_sent = untouched(fal)
    (cached,) = events(server.run(graph(seed)), "execution_cached")
    assert f"fal{seed}" in cached["nodes"]
    assert nothing_sent()


def test_a_file_that_was_deleted_is_fetched_again_without_paying_once_comfyui_forgets_the_result(server, fal):
    (seed,) = new_seeds()
    server.run(graph(seed))
    finished_file(server, seed).unlink()
    forget(server)
    server.run(graph(seed))
    assert finished_file(server, seed).read_bytes() == served(fal, job_of(fal, seed))


def test_after_a_kill_jobs_are_fetched_or_taken_up_and_a_finished_file_is_used(server, fal):
    finished, left, unfinished = new_seeds(3)
    server.run(graph(finished))
    fal.run_seconds = math.inf
    server.queue(graph(left, unfinished))
    for seed in (left, unfinished):
        fal.wait_for(lambda seed=seed: (record := record_of(server, seed)) and record.request_id)
    kill_and_start(server)

    fal.complete(job_of(fal, left).request_id)
    fal.wait_for(lambda: record_of(server, left) is None)
    assert finished_file(server, left).read_bytes() == served(fal, job_of(fal, left))
    fal.wait_for(lambda: left in [record.seed for record in journal_of(server).news()])

    nothing_sent = untouched(fal)
    messages = list(server.follow(graph(finished)))
    assert nothing_sent()
    assert any(text.startswith("Made before, nothing to pay") for text in texts_of(messages, f"fal{finished}"))
    told = said(server.wait(messages[-1].data["prompt_id"]), finished)
    assert re.search(rf"that you paid for before (was|were) fetched too \(seeds? .*{left}", told)

    prompt_id = server.queue(graph(unfinished))
    fal.complete(job_of(fal, unfinished).request_id)
    server.wait(prompt_id)
    assert finished_file(server, unfinished).read_bytes() == served(fal, job_of(fal, unfinished))
    assert record_of(server, unfinished) is None
    for seed in (finished, left):
        job_of(fal, seed)


def test_a_content_policy_refusal_names_field_and_request_and_does_not_say_the_prompt_again(server, fal):
    fal.fail_next(content_policy)
    (seed,) = new_seeds()
    error = error_of(server, graph(seed))
    said = error["exception_message"]
    assert error["node_id"] == f"fal{seed}"
    assert error["exception_type"] == "cosmos_predict25.FalError"
    assert "(prompt): The content could not be processed" in said
    assert "HTTP 422, content_policy_violation" in said
    assert "The same prompt will be refused again" in said
    assert f"Request id: {job_of(fal, seed).request_id}" in said
    assert TEXT not in said
    assert record_of(server, seed) is None


def test_one_refused_of_a_list_does_not_hold_back_the_others(server, fal):
    fal.fail_next(lambda body: content_policy(body) if "cube 1" in body["prompt"] else Outcome(), times=3)
    (seed,) = new_seeds()
    prompt = graph(seed)
    prompt["texts"] = {"class_type": "TestPrompts", "inputs": {"count": 3, "text": "A cube"}}
    prompt["prompt"]["inputs"]["prompt"] = ["texts", 0]
    entry = server.run(prompt)
    assert len(jobs_of(fal, seed)) == 3
    assert len(server.saved_files(entry)) == 2
    said = " ".join(entry["outputs"][f"fal{seed}"]["cosmos_predict25"])
    assert f"One of the list was refused, seed {seed}, and the others go on:" in said
    assert "content_policy_violation" in said


def test_a_field_error_names_the_field_and_the_request(server, fal):
    fal.fail_next(FIELD_ERROR)
    (seed,) = new_seeds()
    said = error_of(server, graph(seed))["exception_message"]
    assert "(num_frames): Input should be less than or equal to 93 (HTTP 422, less_than_equal)" in said
    assert f"Request id: {job_of(fal, seed).request_id}" in said


def test_a_failure_that_may_pass_says_that_a_new_try_can_help(server, fal):
    fal.fail_next(replace(TEXT_ERROR, headers={"x-fal-retryable": "true"}))
    (seed,) = new_seeds()
    said = error_of(server, graph(seed))["exception_message"]
    assert "A retry is likely to help" in said
    assert f"Request id: {job_of(fal, seed).request_id}" in said
    server.run(graph(seed))
    assert len(jobs_of(fal, seed)) == 2


def test_a_key_that_fal_does_not_know_is_told_with_where_to_get_one(server, fal, monkeypatch):
    monkeypatch.setattr(fal, "key", "00000000-1111-4222-8333-444444444444:0123456789abcdef0123456789abcdef")
    (seed,) = new_seeds()
    said = error_of(server, graph(seed))["exception_message"]
    assert "No user found for Key ID and Secret (HTTP 401)" in said
    assert "https://fal.ai/dashboard/keys" in said
    assert not jobs_of(fal, seed)
    assert record_of(server, seed) is None


def test_a_locked_account_is_told_with_where_to_unlock_it(server, fal):
    fal.locked = True
    (seed,) = new_seeds()
    said = error_of(server, graph(seed))["exception_message"]
    assert "User is locked. Reason: Exhausted balance" in said
    assert "https://fal.ai/dashboard/billing" in said
    assert record_of(server, seed) is None
    fal.locked = False
    server.run(graph(seed))


def untouched(fal: FalStandIn) -> Callable[[], bool]:
    """Whether nothing has been asked for since, but for what is fetched of jobs of before."""

    def asked() -> int:
        return len([exchange for exchange in fal.journal if exchange.stage not in ("status", "result", "media")])

    before = asked()
    return lambda: asked() == before


def test_without_a_key_one_sentence_says_what_to_set_before_any_traffic(server, fal):
    nothing_sent = untouched(fal)
    (seed,) = new_seeds()
    key_file = key_file_of(server.base)
    hidden = key_file.rename(key_file.with_name("hidden"))
    try:
        error = error_of(server, graph(seed))
    finally:
        hidden.rename(key_file)
    said = error["exception_message"]
    assert (error["node_id"], error["executed"]) == (f"fal{seed}", [])
    assert said.startswith("There is no fal key")
    assert "FAL_KEY" in said
    assert "https://fal.ai/dashboard/keys" in said
    assert nothing_sent()
    server.run(graph(seed))


@pytest.mark.parametrize("half", [0, 1])
def test_a_prompt_with_half_of_the_key_in_it_is_not_sent(server, fal, half):
    (seed,) = new_seeds()
    secret = fal.key.split(":")[half]
    refusal = refusal_of(server, graph(seed, text=f"A cube, {secret}, turns."), "prompt")
    assert "prompt contains your fal key" in refusal
    assert not jobs_of(fal, seed)
    assert not [exchange for exchange in fal.requests("submit") if secret.encode() in exchange.body]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"endpoint": DISTILLED, "endpoint.num_inference_steps": 35}, "Value 35 bigger than max of 20"),
        ({"video_output_type": "AV1 (.mkv)"}, "Value not in list: video_output_type"),
    ],
    ids=str,
)
def test_what_fals_schema_forbids_is_refused_before_any_traffic(server, fal, options, says):
    nothing_sent = untouched(fal)
    (seed,) = new_seeds()
    assert says in refusal_of(server, graph(seed, **options), f"fal{seed}")
    assert nothing_sent()


def test_an_endpoint_that_there_is_not_is_refused_before_any_traffic(server, fal):
    nothing_sent = untouched(fal)
    (seed,) = new_seeds()
    error = error_of(server, graph(seed, endpoint="audio-to-video"))
    assert error["node_id"] == f"fal{seed}"
    assert error["exception_message"].strip() == "endpoint must be text-to-video or distilled/text-to-video."
    assert nothing_sent()


@pytest.mark.parametrize("webhook_url", ["http://example.com/", "https://me:secret@example.com/"])
def test_a_webhook_that_fal_may_not_call_ends_in_an_error_before_anything_is_sent_to_the_queue(
    server, fal, webhook_url
):
    (seed,) = new_seeds()
    submitted = len(fal.requests("submit"))
    error = error_of(server, graph(seed, webhook_url=webhook_url))
    assert error["node_id"] == f"fal{seed}"
    assert error["exception_type"] == "cosmos_predict25.InvalidRequestError"
    assert f"webhook_url is '{webhook_url}', but must be https://host/... without a user" in error["exception_message"]
    assert len(fal.requests("submit")) == submitted
    assert record_of(server, seed) is None


COMMON = {
    "prompt": TEXT,
    "negative_prompt": "",
    "num_frames": 9,
    "sync_mode": False,
    "video_output_type": "X264 (.mp4)",
    "video_quality": "high",
}


def test_distilled_sends_its_own_steps_and_no_guidance(server, fal):
    (seed,) = new_seeds()
    settings = {"guidance_scale": 3.0, "num_inference_steps": 50}
    server.run(graph(seed, settings=settings, endpoint=DISTILLED, **{"endpoint.num_inference_steps": 12}))
    job = job_of(fal, seed)
    assert job.endpoint == "fal-ai/cosmos-predict-2.5/distilled/text-to-video"
    assert job.input == {**COMMON, "num_inference_steps": 12, "seed": seed}


def test_the_full_endpoint_gets_every_field(server, fal):
    (seed,) = new_seeds()
    server.run(graph(seed, settings={"guidance_scale": 3.0, "num_inference_steps": 50}, webhook_url="https://a.b/c"))
    job = job_of(fal, seed)
    assert job.endpoint == "fal-ai/cosmos-predict-2.5/text-to-video"
    assert job.input == {**COMMON, "num_inference_steps": 50, "guidance_scale": 3.0, "seed": seed}
    assert job.webhook == "https://a.b/c"


def said(entry: dict[str, Any], seed: int) -> str:
    return " ".join(entry["outputs"][f"fal{seed}"]["cosmos_predict25"])


def with_start(prompt: Graph, seed: int, name: str, batch: int = 1, color: int = 0x2C54E0) -> Graph:
    """`prompt` with the fal node of a seed starting from plain pictures of this colour, connected to `name`."""
    prompt["drawn"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 200, "height": 300, "batch_size": batch, "color": color},
    }
    prompt["clip"] = {"class_type": "CreateVideo", "inputs": {"images": ["drawn", 0], "fps": 16.0}}
    prompt[f"fal{seed}"]["inputs"][name] = ["clip" if name == "video" else "drawn", 0]
    return prompt


@pytest.mark.parametrize(
    ("name", "batch", "endpoint", "kind", "count"),
    [
        ("image", 1, "image-to-video", "image/png", 1),
        ("image", 7, "video-to-video", "video/mp4", 5),
        ("video", 7, "video-to-video", "video/mp4", 5),
        ("video", 3, "image-to-video", "image/png", 1),
    ],
)
def test_a_video_at_fal_starts_from_a_picture_or_the_end_of_a_clip(server, fal, name, batch, endpoint, kind, count):
    (seed,) = new_seeds()
    before = set(fal.uploads)
    entry = server.run(with_start(graph(seed), seed, name, batch))
    job = job_of(fal, seed)
    assert job.endpoint.endswith(f"/{endpoint}")
    (address,) = set(fal.uploads) - before
    sent_as, content = fal.uploads[address]
    assert sent_as == kind
    with av.open(io.BytesIO(content)) as container:
        sent = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands", "encoder"}
    assert [frame.shape for frame in sent] == count * [(704, 1280, 3)]
    assert numpy.abs(sent[0][0, 0] - numpy.array([0x2C, 0x54, 0xE0])).max() < 4
    assert job.input[f"{endpoint.partition('-')[0]}_url"].endswith(address)
    assert "does not begin" not in said(entry, seed)

    again = with_start(graph(seed), seed, name, batch)
    again["drawn"]["inputs"]["height"] = 301  # another picture with the same pixels after the crop
    server.run(again)
    assert len(jobs_of(fal, seed)) == 1


def test_a_video_of_fals_that_does_not_begin_with_what_was_sent_is_told(server, fal, monkeypatch):
    monkeypatch.setattr(fal, "keeps_start", False)
    (seed,) = new_seeds()
    entry = server.run(with_start(graph(seed), seed, "image", color=0x808080))
    assert "does not begin with the frames that were sent" in said(entry, seed)


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (
            ("image",),
            {"endpoint": DISTILLED, "endpoint.num_inference_steps": 10},
            "makes videos from text only: choose text-to-video, or disconnect image",
        ),
        (
            ("video",),
            {"endpoint": DISTILLED, "endpoint.num_inference_steps": 10},
            "makes videos from text only: choose text-to-video, or disconnect video",
        ),
        (("image", "video"), {}, "Both image and video are connected"),
    ],
)
def test_a_start_that_fal_cannot_take_is_refused_before_any_traffic(server, fal, names, options, says):
    (seed,) = new_seeds()
    prompt = graph(seed, **options)
    for name in names:
        with_start(prompt, seed, name)
    before = len(fal.journal)
    assert says in error_of(server, prompt)["exception_message"]
    assert len(fal.journal) == before


def extending(seed: int, new_frames: int) -> Graph:
    """Goes on from 7 plain pictures, with at most 9 frames a part."""
    prompt = with_start(graph(seed), seed, "image", batch=7)
    node = prompt[f"fal{seed}"]
    node["class_type"] = "CosmosPredict25ExtendFal"
    inputs = {name: node["inputs"][name] for name in ("prompt", "settings")}
    node["inputs"] = {**inputs, "video": ["drawn", 0], "new_frames": new_frames, "overlap": 5}
    prompt[f"export{seed}"]["inputs"]["quality"] = "high"
    return prompt


def test_a_video_is_extended_at_fal_in_parts_that_are_paid_for_once(server, fal):
    seed, *others = new_seeds(3)
    messages = list(server.follow(extending(seed, 12)))
    entry = server.request(f"/history/{messages[-1].data['prompt_id']}")[messages[-1].data["prompt_id"]]
    jobs = [job_of(fal, each) for each in (seed, *others)]
    assert all(job.endpoint.endswith("/video-to-video") for job in jobs)
    scaling, first, *_ = texts_of(messages, f"fal{seed}")
    assert scaling == "Scaling the source"
    assert "Part 1 of 3, $0.60 in all" in first
    outputs = {name: {"outputs": {name: results}} for name, results in entry["outputs"].items()}
    (exported,) = server.saved_files(outputs[f"export{seed}"])
    frames = frames_of(exported)
    assert frames.shape == (7 + 12, 704, 1280, 3)
    assert numpy.abs(frames[:7].mean((0, 1, 2)) - [0x2C, 0x54, 0xE0]).max() < 4
    assert made_with(exported)["num_frames"] == 19
    again = extending(seed, 12)
    again["drawn"]["inputs"]["height"] = 301
    server.run(again)
    assert len(jobs_of(fal, seed, *others)) == 3


def test_more_than_five_parts_are_refused_before_any_traffic(server, fal):
    (seed,) = new_seeds()
    before = len(fal.journal)
    message = error_of(server, extending(seed, 21))["exception_message"]
    assert "takes 6 paid videos, but the limit is 5" in message
    assert "with num_frames 9, that is 20 frames" in message
    assert len(fal.journal) == before


def with_list(prompt: Graph, count: int) -> Graph:
    """The fal nodes of `prompt` make a video of each of as many prompts."""
    prompt["list"] = {"class_type": "TestPrompts", "inputs": {"count": count, "text": TEXT}}
    prompt["prompt"]["inputs"]["prompt"] = ["list", 0]
    return prompt


@pytest.mark.parametrize(
    "many",
    [
        lambda seed: with_list(graph(seed), 11),
        lambda seed: graph(*range(seed, seed + 11)),
        lambda seed: {**extending(seed, 20), **extending(seed + 10, 20), **graph(seed + 20)},
        lambda seed: with_list(graph(seed, seed + 1), 6),
    ],
    ids=["list", "nodes", "parts", "two lists"],
)
def test_more_than_ten_jobs_of_a_run_are_refused_before_the_first_is_sent(server, fal, many):
    (seed,) = new_seeds()
    new_seeds(40)
    before = fal.accepted
    said = error_of(server, many(seed))["exception_message"]
    assert re.search(r"would send at least 1[12] jobs to fal, and each is charged\. The limit is 10\.", said)
    assert "turn on allow_many_jobs" in said
    sent = {job.seed for job in list(fal.jobs.values())[before:]}
    assert len(sent) <= 1  # of the first of two lists, which is not too long


def test_a_list_shows_how_many_are_there_and_what_all_have_cost(server, fal):
    """The jobs run until the node has shown that all are there."""
    fal.run_seconds, shown = math.inf, set()
    (seed,) = new_seeds()
    for message in server.follow(with_list(graph(seed, allow_many_jobs=True), 11)):
        shown |= {text.rpartition("\n")[2] for text in texts_of([message], f"fal{seed}")}
        if "0 of 11, $2.20 in all so far" in shown:
            for job in jobs_of(fal, seed):
                job.run_seconds = 5
    assert any(re.fullmatch(r"[1-9]\d? of 11, \$2\.20 in all so far", text) for text in shown)
    assert len(jobs_of(fal, seed)) == 11


def test_when_it_is_over_the_node_says_what_it_cost(server, fal):
    (seed,) = new_seeds()
    assert re.search(r"Charged \$0\.20, \$[\d.]+ today\.", said(server.run(graph(seed)), seed))
    other = graph(seed)
    other["prompt"]["inputs"]["negative_prompt"] = "x"
    server.run(other)
    forget(server)
    assert re.search(r"Nothing charged, \$[\d.]+ today\.", said(server.run(graph(seed)), seed))


def test_after_stop_the_node_says_how_many_runs_are_in_the_queue(server, fal):
    fal.run_seconds = math.inf
    seeds = new_seeds(3)
    texts: list[str] = []
    queued: list[str] = []
    for message in server.follow(graph(seeds[0])):
        if message.type != "text":
            continue
        texts.append(message.data["text"])
        if "Running at fal" in texts[-1] and not queued:
            queued += [server.queue(graph(seed)) for seed in seeds[1:]]
        if "2 more runs are in the queue" in texts[-1]:
            server.request("/queue", {"delete": queued[1:]})
            server.interrupt()
    assert any(text.startswith("Stopped") and "1 more run is in the queue" in text for text in texts)
