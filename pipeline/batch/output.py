"""The folder that videos go to: each appears there whole, with its values beside it, and is made once."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
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

    def path_of(self, job: Job) -> Path:
        """The finished video."""
        return self.folder / f"{job.name}{self.suffix}"

    def is_finished(self, job: Job) -> bool:
        """Whether the video is there."""
        return self.path_of(job).is_file()

    def claim(self, job: Job) -> "Claim | None":
        """Return the right to make the job, or None where another process has it or the video is there."""
        key = hashlib.sha256(job.name.encode()).hexdigest()[:24]
        make_folder(self.folder / CLAIMS)
        lock = acquire(self.folder / CLAIMS / f"{key}.lock")
        if lock is None:
            return None
        claim = Claim(self.folder / CLAIMS / key, lock)
        if self.is_finished(job):
            claim.release()
            return None
        shutil.rmtree(claim.folder, ignore_errors=True)  # of a process that died
        claim.folder.mkdir()
        return claim

    def publish(self, job: Job, video: Path, values: Mapping[str, Any]) -> Path:
        """Move the finished `video` to its place, after its values. Raises `OSError`."""
        target = self.path_of(job)
        make_folder(target.parent)
        with atomic_write(self.folder / f"{job.name}.json") as file:
            file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        replace(video, target)
        return target

    def values_of(self, job: Job) -> dict[str, Any]:
        """What `publish` has written for the job; empty where there is nothing that can be read."""
        try:
            values = json.loads((self.folder / f"{job.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def check(self, jobs: Iterable[Job]) -> list[str]:
        """Return a sentence for each finished video that was made with other values than its job has."""
        problems = []
        for job in jobs:
            was = self.values_of(job).get("request") if self.is_finished(job) else None
            changed = [key for key, value in asdict(job.request).items() if was and was.get(key, value) != value]
            if changed:
                problems.append(
                    f"{job.place}: {self.path_of(job)} was made with another {changed[0]}: give the job another name, "
                    "or move the video away to have it made again."
                )
        return problems

    def add_failed(self, job: Job, error: Exception) -> None:
        """Note in `failed.jsonl` that the job has failed, and why."""
        line = {"name": job.name, "place": job.place, "error": f"{type(error).__name__}: {error}"}
        make_folder(self.folder)
        with (self.folder / FAILED).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def tidy_failed(self) -> None:
        """Keep in `failed.jsonl` the last line of each name that has no video."""
        file = self.folder / FAILED
        make_folder(self.folder / CLAIMS)
        with FileLock(self.folder / CLAIMS / "failed.lock"):
            if not file.is_file():
                return
            lines = {json.loads(line)["name"]: line for line in file.read_text(encoding="utf-8").splitlines()}
            kept = [line for name, line in lines.items() if not (self.folder / f"{name}{self.suffix}").is_file()]
            with atomic_write(file) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            if not kept:
                file.unlink()


def values_of(job: Job, file: VideoFile) -> dict[str, Any]:
    """Return the job and what its file holds, for the JSON beside it."""
    return {
        "name": job.name,
        "inference_type": job.inference_type,
        "input_path": job.input_path and str(job.input_path),
        "request": asdict(job.request),
        "width": file.width,
        "height": file.height,
        "num_frames": file.num_frames,
        "fps": float(file.fps),
        "file_size": file.file_size,
        "notes": file.notes,
    }
