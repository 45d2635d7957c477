"""What was paid for and is not finished: one small file a job, on disk before the money is spent."""

import asyncio
import enum
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..disk import atomic_write, flush_folder
from ..errors import JobKeptError
from ..observer import Observer
from .queue.job import Job

VERSION = 2
LOCK_PAUSE = 0.1
YEAR_5000 = 95_000_000_000


class State(str, enum.Enum):
    """How far a job got. A job that is done, has failed or was cancelled has no record any more."""

    SUBMITTING = "SUBMITTING"
    SUBMIT_UNKNOWN = "SUBMIT_UNKNOWN"
    SUBMITTED = "SUBMITTED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED_AUTH = "PAUSED_AUTH"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    RESULT_READY = "RESULT_READY"
    DOWNLOADING = "DOWNLOADING"
    EXPIRED = "EXPIRED"


@dataclass
class Record:
    """A job's record. It holds a hash of the input and neither the prompt nor the key.

    `fingerprint`: our name of the job, a hash of endpoint and input. `input_sha256`: of what is sent. `request_sha256`:
    of the same without a seed that was drawn, by which the same request finds its job again. `created`: seconds since
    1970. `result`: what is used of fal's output object.
    """

    fingerprint: str
    endpoint: str
    input_sha256: str
    request_sha256: str
    input_keys: list[str]
    seed: int
    v: int = VERSION
    created: float = field(default_factory=time.time)
    state: State = State.SUBMITTING
    request_id: str | None = None
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    result: dict[str, Any] | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        self.state = State(self.state)
        if self.v != VERSION:
            raise ValueError(f"it is of version {self.v}, and this pack reads version {VERSION}")
        texts = (self.fingerprint, self.endpoint, self.input_sha256, self.request_sha256, *self.input_keys)
        optional = (self.request_id, self.status_url, self.response_url, self.cancel_url, self.error)
        if not (
            all(isinstance(text, str) for text in texts)
            and all(text is None or isinstance(text, str) for text in optional)
            and isinstance(self.result, dict | None)
            and isinstance(self.seed, int)
            and isinstance(self.created, int | float)
            and 0 <= self.created < YEAR_5000
        ):
            raise ValueError("a value in it is not of its kind")

    def set_job(self, job: Job) -> None:
        self.request_id, self.status_url = job.request_id, job.status_url
        self.response_url, self.cancel_url = job.response_url, job.cancel_url


class Journal:
    """A folder of records, readable by its owner alone. Any number of processes may use it at once.

    Whoever works on a job holds the lock of its name; the lock goes with the process that dies. Lock files stay,
    because to delete one while another process waits for it would let both in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.json"

    @asynccontextmanager
    async def claim(self, fingerprint: str, observer: Observer) -> AsyncIterator[None]:
        """Hold the lock of one job. Waits while another run holds it, unless the observer stops that."""
        lock = self._lock(fingerprint)
        while not self._try(lock):
            observer.progress("Another run makes this same video: waiting for it", 0, 1)
            observer.raise_if_stopped()
            await asyncio.sleep(LOCK_PAUSE)
        try:
            yield
        finally:
            lock.release()

    def is_claimed(self, fingerprint: str) -> bool:
        lock = self._lock(fingerprint)
        if not self._try(lock):
            return True
        lock.release()
        return False

    def load(self, fingerprint: str) -> Record | None:
        """Raises `JobKeptError` for a record that cannot be read: a paid job may be behind it."""
        path = self.path_of(fingerprint)
        return self._read(path) if path.exists() else None

    def records(self) -> list[Record]:
        """All that can be read, the oldest first."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(self._read(path))
            except (JobKeptError, FileNotFoundError):
                continue
        return sorted(found, key=lambda record: record.created)

    def save(self, record: Record) -> None:
        """Replace the record on disk, all or nothing, and flush it.

        Raises `JobKeptError` when the disk does not take it.
        """
        with self._usable(), atomic_write(self.path_of(record.fingerprint), mode=0o600) as path:
            path.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")

    def remove(self, record: Record) -> None:
        """A record that cannot be removed is no harm: the next run finds what became of its job."""
        with suppress(OSError):
            self.path_of(record.fingerprint).unlink()
            flush_folder(self.folder)

    def set_aside(self, record: Record) -> None:
        """Keep a record that nothing more can be done with, out of the way of the same request."""
        path = self.path_of(record.fingerprint)
        with suppress(OSError):
            path.replace(path.with_suffix(f".{record.request_id}.expired"))
            flush_folder(self.folder)

    def _lock(self, fingerprint: str) -> FileLock:
        return FileLock(self.path_of(fingerprint).with_suffix(".lock"), timeout=0, thread_local=False)

    def _try(self, lock: FileLock) -> bool:
        with self._usable():
            try:
                lock.acquire()
            except Timeout:
                return False
        return True

    def _read(self, path: Path) -> Record:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            names = {item.name for item in fields(Record)}
            return Record(**{name: value for name, value in values.items() if name in names})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise JobKeptError(
                f"{path} is the record of a job on fal that may be paid for, and it cannot be read ({error}): look for "
                "the job at https://fal.ai/dashboard/requests, then delete the file, and try again.",
                stage="journal",
            ) from None

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """The folder, which is made. Raises `JobKeptError` when the disk does not allow what is done there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            yield
        except OSError as error:
            raise JobKeptError(
                f"The records of jobs in {self.folder} cannot be written ({error.strerror}): make room, or allow "
                "writing there, and run the same again.",
                stage="journal",
            ) from None
