"""Jobs and videos at URLs: a finished file is seen when it is whole, and made once."""

import itertools
import json

import fsspec
import pytest
from PIL import Image

from cosmos_predict25.pipeline.batch import command
from cosmos_predict25.pipeline.batch.files import upload
from cosmos_predict25.pipeline.batch.jobs import InvalidJobsError, read_jobs
from cosmos_predict25.pipeline.batch.remote import RemoteOutput
from cosmos_predict25.pipeline.errors import InvalidRequestError, MissingDependencyError

NUMBERS = itertools.count()
JOB = {"prompt": "A red circle.", "num_frames": 9, "num_steps": 1, "guidance": 1, "width": 32, "height": 32}


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path) -> str:
    """An empty folder of a real file system of fsspec."""
    return f"memory://batch-{next(NUMBERS)}" if request.param == "memory" else f"file://{tmp_path}/remote"


def write(url: str, name: str, content: bytes) -> str:
    with fsspec.open(f"{url}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)  # pyright: ignore[reportAttributeAccessIssue]
    return f"{url}/{name}"


def write_jobs(url: str, *jobs: dict) -> str:
    return write(url, "in/jobs.jsonl", "\n".join(json.dumps({**JOB, **job}) for job in jobs).encode())


def names_in(url: str) -> set[str]:
    system, root = fsspec.core.url_to_fs(f"{url}/out")
    return {name.removeprefix(root).lstrip("/") for name in system.find(root)}


def run(jobs: str, url: str, *options: str) -> int:
    return command.main([jobs, f"{url}/out", "--device", "cpu", "--workers", "1", *options])


def test_jobs_at_a_url_become_videos_at_a_url_and_are_made_once(url, tmp_path, capsys):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    write(url, "in/red.png", (tmp_path / "red.png").read_bytes())
    jobs = write_jobs(url, {"name": "a"}, {"name": "sub/b", "input_path": "red.png"})
    assert run(jobs, url, "--contact-sheet") == 0
    assert names_in(url) == {"a.mp4", "a.json", "sub/b.mp4", "sub/b.json", "contact-sheet.html"}
    with fsspec.open(f"{url}/out/contact-sheet.html") as page:
        assert page.read().count(b"data:image/jpeg") == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert run(jobs, url) == 0
    assert "2 of them finished before" in capsys.readouterr().out
    assert run(write_jobs(url, {"name": "a", "num_frames": 13}), url) == 2
    assert "was made with another num_frames" in capsys.readouterr().err


def test_a_failure_at_a_url_is_noted_until_it_is_mended(url):
    write(url, "in/broken.png", b"no picture")
    assert run(write_jobs(url, {"name": "a", "input_path": "broken.png"}), url) == 1
    with fsspec.open(f"{url}/out/failed.jsonl") as file:
        assert json.loads(file.read())["name"] == "a"  # pyright: ignore[reportAttributeAccessIssue]
    assert run(write_jobs(url, {"name": "a"}), url) == 0
    assert names_in(url) == {"a.mp4", "a.json"}


def test_a_file_at_a_url_is_seen_when_it_is_whole(url, tmp_path, monkeypatch):
    (tmp_path / "video.mp4").write_bytes(bytes(10_000_000))
    seen = []
    monkeypatch.setattr("shutil.copyfileobj", lambda source, target, size: (
        target.write(source.read(1_000_000)), seen.append(names_in(url)), target.write(source.read()),
    ))  # fmt: skip
    upload(tmp_path / "video.mp4", f"{url}/out/video.mp4")
    assert seen == [set()]
    assert names_in(url) == {"video.mp4"}

    def broken(source, target, size):
        target.write(source.read(1_000_000))
        raise OSError("the network is gone")

    monkeypatch.setattr("shutil.copyfileobj", broken)
    with pytest.raises(OSError, match="network"):
        upload(tmp_path / "video.mp4", f"{url}/out/other.mp4")
    assert names_in(url) == {"video.mp4"}


def test_a_video_that_another_shard_has_finished_is_not_claimed(url):
    (job,) = read_jobs(write_jobs(url, {"name": "a"}))
    output = RemoteOutput.at(f"{url}/out", ".mp4")
    claim = output.claim(job)
    assert claim
    claim.release()
    write(url, "out/a.mp4", b"video")
    assert output.claim(job) is None
    output.close()
    assert not output.folder.exists()


def test_a_folder_of_prompts_at_a_url_is_read(url):
    write(url, "in/b.txt", b"two")
    write(url, "in/a.txt", b"one")
    assert [(job.name, job.request.prompt) for job in read_jobs(f"{url}/in")] == [("a", "one"), ("b", "two")]


def test_a_url_that_cannot_be_used_is_refused_with_the_reason(tmp_path, capsys, monkeypatch):
    with pytest.raises(InvalidJobsError, match="cannot be read"):
        read_jobs("memory://nowhere/jobs.jsonl")
    with pytest.raises(InvalidRequestError, match="nonsense"):
        read_jobs("nonsense://a/jobs.jsonl")
    with pytest.raises(MissingDependencyError, match="s3fs"):
        read_jobs("s3://bucket/jobs.jsonl")
    assert run(write_jobs("memory://fal", {"name": "a"}), "memory://fal", "--fal") == 2
    assert "with --fal it must be a folder" in capsys.readouterr().err
