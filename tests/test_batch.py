"""A file of jobs becomes a folder of videos: each made once, whatever happens on the way."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy
import psutil
import pytest
import torch
from filelock import FileLock

from cosmos_predict25.pipeline import DEMO_FOLDER, GenerationRequest, generate, load_pipeline_folder
from cosmos_predict25.pipeline.batch import command
from cosmos_predict25.pipeline.batch.jobs import read_jobs
from cosmos_predict25.pipeline.batch.output import Output
from cosmos_predict25.pipeline.local.load.find import DEMO_LORA_FILE
from cosmos_predict25.pipeline.local.many import Wanted, generate_many
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.tests import batch_worker

SMALL = {"num_frames": 9, "num_steps": 2, "guidance": 2, "width": 32, "height": 32}
PROMPT = "A red circle moves left over blue."
HERE = ("--device", "cpu", "--workers", "1")
SLOW = {**SMALL, "num_steps": 20, "width": 64, "height": 64}


def write_jobs(folder: Path, *jobs: dict, like: dict = SMALL) -> Path:
    file = folder / "jobs.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": PROMPT, **like, **job}) for job in jobs), encoding="utf-8")
    return file


def run(file: Path, out: Path, *options: str) -> int:
    return command.main([str(file), str(out), *HERE, *options])


def start_command(file: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "cosmos_predict25.batch", str(file), str(out), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def videos(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*.mp4"))
        if ".claims" not in path.parts
    }


def pictures(file: Path) -> numpy.ndarray:
    with av.open(str(file)) as container:
        return numpy.stack([picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)])


@pytest.fixture(scope="module")
def model():
    return load_pipeline_folder(DEMO_FOLDER)


def test_many_videos_are_those_that_are_made_one_by_one(model):
    clip = torch.linspace(0, 1, 5 * 32 * 32 * 3).reshape(5, 32, 32, 3)
    requests = [
        GenerationRequest(prompt=PROMPT, num_frames=9, num_inference_steps=2, width=32, height=32, seed=seed)
        for seed in (1, 2, 3)
    ]
    wanted = [requests[0], Wanted(requests[1], lambda: Start(clip)), requests[2]]
    results = list(generate_many(model, wanted))
    assert [result.index for result in results] == [0, 1, 2]
    for result, request, start in zip(results, requests, [None, Start(clip), None], strict=True):
        expected = generate(model, request, start=start)
        assert result.video.seed == request.seed
        torch.testing.assert_close(result.video.frames, expected.frames, rtol=0, atol=1e-3)


def test_an_error_of_one_video_is_its_result_and_the_others_are_made(model):
    def broken() -> Start:
        raise OSError("the clip is gone")

    request = GenerationRequest(prompt=PROMPT, num_frames=9, num_inference_steps=1, width=32, height=32, seed=1)
    first, second = generate_many(model, [Wanted(request, broken), request])
    assert (first.video, str(first.error)) == (None, "the clip is gone")
    assert second.video is not None


def test_equal_prompts_are_encoded_once(model, monkeypatch):
    encoded = []
    forward = type(model.text_encoder.language_model).forward
    monkeypatch.setattr(
        type(model.text_encoder.language_model),
        "forward",
        lambda *args, **kw: encoded.append(1) or forward(*args, **kw),
    )
    requests = [
        GenerationRequest(prompt=PROMPT, num_frames=9, num_inference_steps=1, width=32, height=32, seed=seed)
        for seed in (1, 2, 3)
    ]
    assert len(list(generate_many(model, requests))) == 3
    assert len(encoded) == 2  # the prompt and the negative prompt


def test_each_job_becomes_a_video_with_its_values_beside_it(tmp_path, capsys):
    file, out = write_jobs(tmp_path, {"name": "a", "seed": 5}, {"name": "sub/b", "seeds": 2}), tmp_path / "out"
    assert run(file, out, "--contact-sheet") == 0
    assert set(videos(out)) == {"a.mp4", "sub/b_0.mp4", "sub/b_1.mp4"}
    values = json.loads((out / "a.json").read_text())
    assert values["request"]["seed"] == 5
    assert (values["num_frames"], values["width"], values["fps"]) == (9, 32, 16)
    assert len(values["checkpoint_sha256"]) == 64
    assert values["seconds"] > 0
    assert values["versions"]["torch"]
    assert pictures(out / "a.mp4").shape == (9, 32, 32, 3)
    page = (out / "contact-sheet.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert 'href="sub/b_1.mp4"' in page
    assert "3 of 3 videos" in capsys.readouterr().out


def test_a_schedule_that_does_not_suit_the_checkpoint_is_noted(tmp_path, capsys):
    distilled = {"schedule": "distilled", "guidance": 1}
    assert run(write_jobs(tmp_path, {"name": "a", **distilled}, {"name": "b"}), tmp_path / "out") == 0
    says = "is for a distilled checkpoint or LoRA"
    assert capsys.readouterr().err.count(says) == 1
    notes = [json.loads((tmp_path / "out" / f"{name}.json").read_text())["notes"] for name in "ab"]
    assert [says in "".join(each) for each in notes] == [True, False]


def test_a_finished_video_is_not_made_again(tmp_path):
    file, out = write_jobs(tmp_path, {"name": "a"}, {"name": "b"}), tmp_path / "out"
    assert run(file, out) == 0
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    (out / "b.mp4").unlink()
    assert run(file, out) == 0
    assert {path for path in times if path.stat().st_mtime_ns == times[path]} == {out / "a.mp4"}


def test_a_finished_video_of_other_values_is_refused_before_anything_is_made(tmp_path, capsys):
    file, out = write_jobs(tmp_path, {"name": "a", "seed": 1}), tmp_path / "out"
    assert run(file, out) == 0
    write_jobs(tmp_path, {"name": "a", "seed": 2}, {"name": "b"})
    assert run(file, out) == 2
    assert "was made with another seed" in capsys.readouterr().err
    assert not (out / "b.mp4").exists()


def test_two_shards_together_make_what_one_run_makes(tmp_path):
    file = write_jobs(tmp_path, {"name": "a", "seeds": 3}, {"name": "b", "prompt": "A green square moves right."})
    prores = ("--format", "PRORES4444 (.mov)", "--quality", "low")
    for options, out in (((), "whole"), (("--shard", "0/2"), "parts"), (("--shard", "1/2"), "parts")):
        assert run(file, tmp_path / out, *prores, *options) == 0
    whole, parts = (
        {path.name: pictures(path).tobytes() for path in (tmp_path / out).glob("*.mov")} for out in ("whole", "parts")
    )
    assert whole == parts
    assert len(whole) == 4


def test_a_failed_job_is_noted_and_does_not_stop_the_others(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    file, out = write_jobs(tmp_path, {"name": "a", "input_path": "broken.png"}, {"name": "b"}), tmp_path / "out"
    assert run(file, out) == 1
    assert set(videos(out)) == {"b.mp4"}
    (failed,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert failed["name"] == "a"
    assert "broken.png" in failed["error"]
    assert "1 failed" in capsys.readouterr().out
    write_jobs(tmp_path, {"name": "a"}, {"name": "b"})
    assert run(file, out) == 0
    assert not (out / "failed.jsonl").exists()


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(tmp_path, capsys):
    assert run(write_jobs(tmp_path, {"name": "a"}, {"name": "b"}), tmp_path / "out", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "2 videos would be made, 18 frames" in text
    assert "1 x cpu" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--device", "cuda:99"), ("--checkpoint", "nowhere"), ("--shard", "2/2")])
def test_what_cannot_be_used_is_refused_with_its_name(tmp_path, capsys, option):
    file = write_jobs(tmp_path, {"name": "a"})
    assert command.main([str(file), str(tmp_path / "out"), "--device", "cpu", *option]) == 2
    assert option[1] in capsys.readouterr().err


def test_a_single_file_and_a_lora_with_its_strength_make_the_video(tmp_path):
    (file,) = (DEMO_FOLDER / "transformer").glob("*.safetensors")
    jobs = write_jobs(tmp_path, {"name": "a", "seed": 1})
    parts = ("--checkpoint", str(file), "--base", str(DEMO_FOLDER))
    loras = {"none": (), "off": ("--lora", f"{DEMO_LORA_FILE}:0"), "on": ("--lora", f"{DEMO_LORA_FILE}:1.5")}
    for name, options in loras.items():
        assert run(jobs, tmp_path / name, *parts, *options) == 0
    none, off, on = (pictures(tmp_path / name / "a.mp4").astype(float) for name in loras)
    # x264 writes the first of several tiny videos in a process otherwise than the next.
    assert abs(off - none).mean() < 2 < abs(on - none).mean()
    made_by = json.loads((tmp_path / "on" / "a.json").read_text())["checkpoint"]
    assert made_by == f"{file.name} + {DEMO_LORA_FILE.name}:1.5"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--vae", str(DEMO_LORA_FILE)), "--vae is for a single file"),
        (("--lora", "nowhere.safetensors:0.5"), "--lora is 'nowhere.safetensors', but there is no such file"),
        (("--checkpoint", str(DEMO_LORA_FILE)), "has no vae: give --vae, or in --base"),
        (("--checkpoint", str(DEMO_LORA_FILE), "--base", str(DEMO_FOLDER)), "is not Cosmos-Predict2.5"),
    ],
)
def test_wrong_files_of_a_checkpoint_are_refused_with_the_option(tmp_path, capsys, options, says):
    assert run(write_jobs(tmp_path, {"name": "a"}), tmp_path / "out", *options) == 2
    assert says in capsys.readouterr().err


def test_a_long_video_is_made_in_segments_beside_short_ones(tmp_path, capsys):
    long = {"enable_autoregressive": True, "num_frames": 20, "chunk_size": 9, "chunk_overlap": 5}
    file = write_jobs(tmp_path, {"name": "a", "seed": 1, **long}, {"name": "b", "seed": 1}, like=SMALL)
    assert run(file, tmp_path / "out") == 0
    first, short = pictures(tmp_path / "out" / "a.mp4"), pictures(tmp_path / "out" / "b.mp4")
    assert (len(first), len(short)) == (20, 9)
    assert abs(first[:9].astype(float) - short).mean() < 8
    write_jobs(tmp_path, {"name": "a", "seed": 1, **long, "num_frames": 21})
    assert run(file, tmp_path / "out") == 2
    assert "was made with another num_frames" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_share_one_folder_and_make_each_video_once(tmp_path, capsys):
    file, out = write_jobs(tmp_path, {"name": "a", "seeds": 6}), tmp_path / "out"
    assert run(file, out, "--workers", "2") == 0
    assert len(videos(out)) == 6
    lines = [line for line in capsys.readouterr().out.splitlines() if " of 6, " in line]
    assert len({line.split(", ")[1].split(":")[0] for line in lines}) == len(lines) == 6


def options_of(*arguments: str) -> argparse.Namespace:
    return command.parser().parse_args(["jobs", "out", *arguments])


def test_a_small_model_has_a_process_for_each_core_and_a_large_one_has_all_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [each.threads for each in command.processes_of(options_of(), 9)] == [1, 1, 1, 1]
    assert [each.threads for each in command.processes_of(options_of(), 3)] == [1, 1, 1]
    assert [each.threads for each in command.processes_of(options_of("--workers", "2"), 9)] == [2, 2]
    file = tmp_path / "large.safetensors"
    with file.open("wb") as content:
        content.truncate(command.SMALL_BYTES)
    assert [each.threads for each in command.processes_of(options_of("--checkpoint", str(file)), 9)] == [None]


def test_a_job_that_another_process_holds_is_left_to_it(tmp_path):
    file = write_jobs(tmp_path, {"name": "a"}, {"name": "b"})
    first, second = read_jobs(file)
    output = Output(tmp_path / "out", ".mp4")
    claim = output.claim(first)
    assert claim
    claimed = threading.Event()

    def other() -> None:
        assert Output(tmp_path / "out", ".mp4").claim(first) is None
        mine = Output(tmp_path / "out", ".mp4").claim(second)
        assert mine
        mine.release()
        claimed.set()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert claimed.is_set()
    claim.release()
    assert output.claim(first)


def kill_a_copy(file: Path, out: Path) -> None:
    """Start the command, and kill it when a video is finished."""
    process, printed = batch_worker.start(file, out, *HERE)
    while "left" not in printed.recv():
        printed.send(None)
    process.kill()
    process.join()


def kill_the_command(file: Path, out: Path, chance: random.Random) -> None:
    """Start the command with two processes, and kill it after any line that it prints."""
    process = start_command(file, out, "--workers", "2")
    assert process.stdout
    for line in process.stdout:
        if "left" in line and chance.random() < 0.5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()


def finished_in(out: Path) -> dict[Path, tuple[int, bytes]]:
    """The videos, each of which must be whole and have its values beside it."""
    found = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("*.mp4")}
    for path, (_, content) in found.items():
        assert content[4:8] == b"ftyp"
        assert path.with_suffix(".json").is_file()
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    file, out = write_jobs(tmp_path, {"name": "a", "seeds": 6}), tmp_path / "out"
    kill_a_copy(file, out)
    before = finished_in(out)
    assert 1 <= len(before) < 6
    assert run(file, out) == 0
    after = finished_in(out)
    assert len(after) == 6
    assert before.items() <= after.items()
    assert FileLock(out / ".claims" / "failed.lock", timeout=0).acquire()


@pytest.mark.exhaustive
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_twenty_kills_lose_no_video_and_make_none_twice(tmp_path):
    file, out = write_jobs(tmp_path, {"name": "a", "seeds": 62}), tmp_path / "out"
    chance, seen = random.Random(1), {}
    for _ in range(20):
        kill_the_command(file, out, chance)
        assert seen.items() <= finished_in(out).items()
        seen = finished_in(out)
    assert run(file, out) == 0
    assert len(finished_in(out)) == 62
    assert seen.items() <= finished_in(out).items()


def ray_workers() -> list[int]:
    """The actors of this machine that are at work or wait for it."""
    running = psutil.process_iter(["cmdline"])
    return [process.pid for process in running if "ray::RayWorker" in "".join(process.info["cmdline"] or ())]


@pytest.mark.exhaustive
def test_a_ray_cluster_makes_all_videos_though_a_worker_dies(tmp_path):
    file, out = write_jobs(tmp_path, {"name": "a", "seeds": 6}, like=SLOW), tmp_path / "out"
    process = start_command(file, out, "--ray", "local", "--workers", "2")
    assert process.stdout
    lines = []
    for line in process.stdout:
        if " of 6, " in line:
            lines.append(line)
            if len(lines) == 1:
                os.kill(ray_workers()[0], signal.SIGKILL)
    assert process.wait() == 0
    assert len(videos(out)) == 6
    made = [line.split(", ")[1].split(":")[0] for line in lines]
    assert sorted(made) == sorted(set(made))
