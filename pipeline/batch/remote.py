"""The output at a URL: a finished file is uploaded once, and nothing is locked there."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import local_copy, opened, read, upload
from .jobs import Job
from .output import FAILED, Output


@dataclass(frozen=True)
class RemoteOutput(Output):
    """An `Output` at `url`. `folder`: on this machine, for files until they are uploaded.

    Object stores have no locks: only processes with the same `folder` never make a job twice.
    """

    url: str = field(kw_only=True)

    @classmethod
    def at(cls, url: str, suffix: str) -> "RemoteOutput":
        """Return the output at `url`, with a new folder for files on the way there."""
        return cls(Path(tempfile.mkdtemp(prefix="cosmos-batch-")), suffix, url=url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def has(self, name: str) -> bool:
        system, path = opened(self.url_of(f"{name}{self.suffix}"))
        system.invalidate_cache()
        return system.exists(path)

    def finished(self, jobs: Iterable[Job]) -> set[str]:
        system, root = opened(self.url)
        system.invalidate_cache()
        with suppress(FileNotFoundError):
            there = {path.removeprefix(root).lstrip("/") for path in system.find(root)}
            return {job.name for job in jobs if f"{job.name}{self.suffix}" in there}
        return set()

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        system, root = opened(self.url)
        paths = {f"{root}/{name}.json": name for name in names}
        found = system.cat(list(paths), on_error="omit") if paths else {}
        values = {}
        for path, content in found.items():
            with suppress(ValueError):
                values[paths[path]] = json.loads(content)
        return values

    def publish(self, job: Job, video: Path, values: Mapping[str, Any]) -> None:
        super().publish(job, video, values)
        for name in (f"{job.name}.json", f"{job.name}{self.suffix}"):
            upload(self.folder / name, self.url_of(name))
            (self.folder / name).unlink()

    @contextmanager
    def video_of(self, job: Job) -> Iterator[Path]:
        with local_copy(self.url_of(f"{job.name}{self.suffix}")) as copy:
            yield copy

    def write(self, name: str, text: str) -> str:
        """Upload a text."""
        file = Path(super().write(name, text))
        upload(file, self.url_of(name))
        file.unlink()
        return self.url_of(name)

    def failed_lines(self) -> list[str]:
        before: list[str] = []
        with suppress(FileNotFoundError):
            before = read(self.url_of(FAILED)).decode().splitlines()
        return before + super().failed_lines()

    def remove(self, name: str) -> None:
        super().remove(name)
        system, path = opened(self.url_of(name))
        with suppress(FileNotFoundError):
            system.rm_file(path)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
