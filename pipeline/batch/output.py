"""The folder that videos go to: each appears there whole, with its values beside it, and is made once."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from ..disk import atomic_write, make_folder, replace
from ..lock import acquire
from ..video import VideoFile
from .jobs import Job

CLAIMS = ".claims"
FAILED = "failed.jsonl"


@dataclass(frozen=True)
class Claim:
    """The right to make one job, until `release`. `folder`: empty, to work in."""

    folder: Path
    lock: BaseFileLock

    def release(self) -> None:
        """Give the job back."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.release()


@dataclass(frozen=True)
class Output:
    """A folder of finished videos, `NAME` + `suffix` with `NAME.json` beside it.

    Several processes and machines may share it: a job belongs to whoever holds its lock in `.claims`, which the system
    gives back when a process dies. A video is there exactly when it is finished.
    """

    folder: Path
    suffix: str

    def __str__(self) -> str:
        return str(self.folder)

    def path_of(self, name: str) -> Path:
        """Where this machine has the video of a job with this name."""
        return self.folder / f"{name}{self.suffix}"

    def has(self, name: str) -> bool:
        """Whether the video is finished."""
        return self.path_of(name).is_file()

    def finished(self, jobs: Iterable[Job]) -> set[str]:
        """Return the names of the jobs whose video is finished."""
        return {job.name for job in jobs if self.has(job.name)}

    @contextmanager
    def video_of(self, job: Job) -> Iterator[Path]:
        """Yield the finished video, to be read."""
        yield self.path_of(job.name)

    def close(self) -> None:
        """End the use of the output in the process that made it."""

    def claim(self, job: Job) -> "Claim | None":
        """Return the right to make the job, or None where another process has it or the video is there."""
        key = hashlib.sha256(job.name.encode()).hexdigest()[:24]
        make_folder(self.folder / CLAIMS)
        lock = acquire(self.folder / CLAIMS / f"{key}.lock")
        if lock is None:
            return None
        claim = Claim(self.folder / CLAIMS / key, lock)
        if self.has(job.name):
            claim.release()
            return None
        shutil.rmtree(claim.folder, ignore_errors=True)  # of a process that died
        claim.folder.mkdir()
        return claim

    def publish(self, job: Job, video: Path, values: Mapping[str, Any]) -> None:
        """Move the finished `video` to its place, after its values. Raises `OSError`."""
        target = self.path_of(job.name)
        make_folder(target.parent)
        with atomic_write(self.folder / f"{job.name}.json") as file:
            file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        replace(video, target)

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Return what `publish` has written for each name, where it can be read."""
        found = {}
        for name in names:
            with suppress(OSError, ValueError):
                found[name] = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        return found

    def check(self, jobs: Iterable[Job], finished: Iterable[str]) -> list[str]:
        """Return a sentence for each of the `finished` videos that was made with other values than its job has."""
        problems, values = [], self.values(finished)
        for job in jobs:
            was = values[job.name].get("request") if isinstance(values.get(job.name), dict) else None
            changed = [key for key, value in request_of(job).items() if was and was.get(key, value) != value]
            if changed:
                problems.append(
                    f"{job.place}: {job.name}{self.suffix} in {self} was made with another {changed[0]}: give the job "
                    "another name, or move the video away to have it made again."
                )
        return problems

    def write(self, name: str, text: str) -> str:
        """Write a text, and return its place."""
        make_folder(self.folder)
        with atomic_write(self.folder / name) as file:
            file.write_text(text, encoding="utf-8")
        return str(self.folder / name)

    def remove(self, name: str) -> None:
        """Delete a text, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def add_failed(self, job: Job, error: str) -> None:
        """Note in `failed.jsonl` that the job has failed, and why."""
        line = {"name": job.name, "place": job.place, "error": error}
        make_folder(self.folder)
        with (self.folder / FAILED).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def failed_lines(self) -> list[str]:
        """Return the lines of `failed.jsonl`."""
        with suppress(FileNotFoundError):
            return (self.folder / FAILED).read_text(encoding="utf-8").splitlines()
        return []

    def tidy_failed(self) -> None:
        """Keep in `failed.jsonl` the last line of each name that has no video."""
        make_folder(self.folder / CLAIMS)
        with FileLock(self.folder / CLAIMS / "failed.lock"):
            lines = {json.loads(line)["name"]: line for line in self.failed_lines()}
            kept = [line for name, line in lines.items() if not self.has(name)]
            if kept:
                self.write(FAILED, "".join(f"{line}\n" for line in kept))
            elif lines:
                self.remove(FAILED)


def request_of(job: Job) -> dict[str, Any]:
    """Return all values that determine the video."""
    return {**asdict(job.request), "num_frames": job.num_frames, "chunk_size": job.request.num_frames}


def values_of(job: Job, file: VideoFile) -> dict[str, Any]:
    """Return the job and what its file holds, for the JSON beside it."""
    return {
        "name": job.name,
        "inference_type": job.inference_type,
        "input_path": job.input_path and str(job.input_path),
        "request": request_of(job),
        "width": file.width,
        "height": file.height,
        "num_frames": file.num_frames,
        "fps": float(file.fps),
        "file_size": file.file_size,
        "notes": file.notes,
    }
