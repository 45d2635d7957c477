"""Two processes make one video together: each holds half of the tokens, and half of the heads in attention."""

import json
import math
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cosmos_predict25.pipeline.batch.together import own_device
from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.local.many import Wanted, generate_many
from cosmos_predict25.pipeline.local.placement import OneAtATime
from cosmos_predict25.pipeline.local.sizes import DeviceMemory
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.tests.ulysses_worker import CASES, Case, model_with

JOB = {"prompt": "A red circle moves left over blue.", "num_frames": 9, "num_steps": 1, "width": 32, "height": 32}
JOBS = [{"name": "a"}, {"name": "broken", "input_path": "broken.png"}, {"name": "b"}]


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests/ulysses_worker.py has left what it found."""
    folder = tmp_path_factory.mktemp("ulysses")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "jobs.jsonl").write_text("\n".join(json.dumps(JOB | job) for job in JOBS))
    worker = Path(__file__).with_name("ulysses_worker.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={request.param}"]
    run = subprocess.run([*torchrun, str(worker), str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    (folder / "printed.txt").write_text(run.stdout)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """The findings of each process."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def tokens_of(case: Case) -> int:
    return ((case.num_frames - 1) // 4 + 1) * (case.side // 16) ** 2


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As torchrun gives each of its processes: with several, sums are rounded in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_video_of_one(found, one_thread, name):
    expected = CASES[name].frames(model_with(CASES[name].heads), OneAtATime("cpu"))
    assert expected.std() > 0.01
    for rank in found:
        difference = (rank[name]["frames"] - expected).abs().max().item()
        print(f"\nlargest difference {difference:.1e}", end="")
        assert difference <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_each_process_holds_half_of_the_residual_stream_and_sends_as_much_as_documented(found, name):
    """docs/scale.md has the formula."""
    config = model_with(CASES[name].heads).transformer.config
    share = math.ceil(tokens_of(CASES[name]) / 2)
    channels, blocks = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"]
    for rank in found:
        assert rank[name]["residuals"] == [share * channels * 4] * blocks
        assert rank[name]["sent"] == share * (4 * blocks * channels * 4 // 2 + 64 * 4)


def test_all_processes_plan_with_the_memory_of_the_one_that_has_the_least(found):
    assert [rank["memory"] for rank in found] == [DeviceMemory(free=99, ram=math.inf, ranks=2)] * 2


def test_a_number_of_processes_that_does_not_divide_the_heads_is_refused(found):
    for rank in found:
        assert all(part in rank["refusal"] for part in ("2 processes", "3 attention heads", "--nproc_per_node=1"))


def test_the_first_process_exports_and_prints_and_a_failed_job_stops_none(folder, found):
    assert sorted(path.name for path in (folder / "out").glob("*.mp4")) == ["a.mp4", "b.mp4"]
    assert "broken.png" in json.loads((folder / "out" / "failed.jsonl").read_text())["error"]
    printed = (folder / "printed.txt").read_text()
    assert printed.count("2 of 3 videos are in") == printed.count("1 failed") == 1
    assert [rank["exit code"] for rank in found] == [1, 0]


@pytest.mark.parametrize(
    ("options", "gpus", "named"),
    [
        ({"device": "cuda:1"}, 2, "cuda:1"),
        ({"fal": True}, 2, "--fal"),
        ({"ray": "auto"}, 2, "--ray"),
        ({}, 3, "--nproc_per_node=3"),
    ],
    ids=["a device", "fal", "Ray", "too few GPUs"],
)
def test_an_option_that_torchrun_replaces_is_refused_with_its_name(monkeypatch, options, gpus, named):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(InvalidRequestError, match=named):
        own_device(Namespace(**{"device": None, "fal": False, "ray": None, **options}))


def test_an_error_that_other_processes_may_not_have_ends_the_run():
    def broken() -> Any:
        raise MemoryError

    request = GenerationRequest(prompt="A red circle.", num_frames=9, num_inference_steps=1, width=32, height=32)
    wanted = [Wanted(request, broken)]
    with pytest.raises(MemoryError):
        next(generate_many(model_with(None), wanted, faults=(InvalidRequestError,)))
