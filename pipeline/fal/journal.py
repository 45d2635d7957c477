"""The records of paid jobs: one small file per video, on disk before the money is spent."""

import asyncio
import enum
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock

from ..disk import atomic_write, flush_folder, make_folder
from ..errors import JobKeptError
from ..lock import acquire, release
from ..observer import Observer
from .endpoints import documented_price

if TYPE_CHECKING:
    from .queue.job import Job

VERSION = 2
LATER_FIELDS = ("charges", "suffix", "sync_mode", "refusal", "is_news", "listed_for", "is_shared")
"""Written only where they say something: a record without them is as the first packs of version 2 wrote it."""
BLOCK = 4096
"""Bytes that a file of any size takes on the disk."""
LOCK_PAUSE = 0.1
YEAR_5000 = 95_000_000_000
DAY = 86400


class JobState(str, enum.Enum):
    """The progress of a video."""

    ENDED = "ENDED"
    """No job: none was sent, or the last one was refused, failed or was cancelled."""
    SUBMIT_UNKNOWN = "SUBMIT_UNKNOWN"
    """A job is being sent, or was sent and its reply was lost."""
    SUBMITTED = "SUBMITTED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    """fal has confirmed the cancellation."""
    EXPIRED = "EXPIRED"
    """fal no longer has anything of the job. Only the user can have it sent again."""
    DONE = "DONE"
    """The file was saved. If it is gone, fal may still have it."""


OVER = (JobState.ENDED, JobState.DONE)
STATES_OF_VERSION_1 = {
    "SUBMITTING": JobState.SUBMIT_UNKNOWN,
    **dict.fromkeys(("QUEUED", "RUNNING", "PAUSED_AUTH", "RESULT_READY", "DOWNLOADING"), JobState.SUBMITTED),
    "CANCEL_REQUESTED": JobState.SUBMITTED,  # fal may not have confirmed it
}


@dataclass(frozen=True)
class Charge:
    """The price of one job.

    `at`: seconds since 1970 when it was sent. `price`: dollars. `priced`: when fal was asked for the price.
    `request_id`: None as long as it is not known whether fal took the job.
    """

    at: float
    price: float
    priced: float
    request_id: str | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Charge":
        """Return a charge of a record, which a later version may have written."""
        return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})

    def __post_init__(self) -> None:
        if not all(isinstance(value, int | float) for value in (self.at, self.price, self.priced)):
            raise ValueError("a charge in it is not a number")


@dataclass
class Record:
    """The record of one video. It holds a hash of the input and neither the prompt nor the key.

    `fingerprint`: a hash of endpoint and input, and the file's name. `input_sha256`: of what is sent.
    `request_sha256`: of the same without a seed that was drawn, by which the same request finds its job again.
    `created`: seconds since 1970 when the job was sent. `clock_offset`: seconds that fal's clock was ahead by then, if
    that is known. `past_ids`: the jobs of before, which are over. `is_adopted`: the job was found in fal's list.
    `result`: what is used of fal's output object. `charges`: of all jobs. `suffix`: of the video's file. `sync_mode`:
    the video comes inside fal's reply. `refusal`: fal's last word on this input, see `PaidJob`. `is_news`: the video
    was fetched, and no run has said so yet. `listed_for`: the account whose list at fal shows the job, as
    `FalKey.account`, None where none does or that is not known. `is_shared`: another run has sent the job.
    """

    fingerprint: str
    endpoint: str
    input_sha256: str
    request_sha256: str
    input_keys: list[str]
    seed: int
    v: int = VERSION
    created: float = field(default_factory=time.time)
    clock_offset: float | None = None
    state: JobState = JobState.ENDED
    past_ids: list[str] = field(default_factory=list)
    is_adopted: bool = False
    request_id: str | None = None
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    result: dict[str, Any] | None = None
    charges: list[Charge] = field(default_factory=list)
    suffix: str = ""
    sync_mode: bool = False
    refusal: dict[str, Any] | None = None
    is_news: bool = False
    listed_for: str | None = None
    is_shared: bool = False

    def __post_init__(self) -> None:
        if self.v == 1:
            self.v, self.state = VERSION, STATES_OF_VERSION_1.get(self.state, self.state)
        self.state = JobState(self.state)
        self.charges = [Charge.of(charge) if isinstance(charge, dict) else charge for charge in self.charges]
        if self.v != VERSION:
            raise ValueError(f"it is of version {self.v}, and this pack reads version {VERSION}")
        texts = (self.fingerprint, self.endpoint, self.input_sha256, self.request_sha256, self.suffix)
        texts = (*texts, *self.input_keys, *self.past_ids)
        optional = (self.request_id, self.status_url, self.response_url, self.cancel_url, self.listed_for)
        if not (
            all(isinstance(text, str) for text in texts)
            and all(text is None or isinstance(text, str) for text in optional)
            and isinstance(self.result, dict | None)
            and isinstance(self.refusal, dict | None)
            and isinstance(self.is_shared, bool)
            and isinstance(self.seed, int)
            and isinstance(self.created, int | float)
            and 0 <= self.created < YEAR_5000
            and isinstance(self.clock_offset, int | float | None)
            and abs(self.clock_offset or 0) < YEAR_5000
        ):
            raise ValueError("a value in it has the wrong type")

    def check_name(self, fingerprint: str) -> None:
        if self.fingerprint != fingerprint:
            raise ValueError("it belongs to another video")

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    def to_json(self) -> str:
        values = asdict(self)
        return json.dumps({name: values[name] for name in values if values[name] or name not in LATER_FIELDS}, indent=1)

    def add_charge(self, charge: Charge) -> None:
        """Note the price of a job that is about to be sent. One that fal never took makes way for it."""
        self.charges = [*self._charges_of_jobs(), charge]

    def all_charges(self) -> list[Charge]:
        """Return the charges, at the documented price for jobs of before records had prices."""
        if self.charges or self.is_shared:
            return self.charges
        current = [self.request_id] if self.request_id or self.state is JobState.SUBMIT_UNKNOWN else []
        price = documented_price(self.endpoint)
        return [Charge(self.created, price, 0, request_id) for request_id in [*self.past_ids, *current]]

    def _charges_of_jobs(self) -> list[Charge]:
        return [charge for charge in self.charges if charge.request_id]

    def set_job(self, job: "Job", is_adopted: bool = False) -> None:
        self.charges = [replace(one, request_id=one.request_id or job.request_id) for one in self.charges]
        self.state, self.is_adopted = JobState.SUBMITTED, is_adopted
        self.request_id, self.status_url = job.request_id, job.status_url
        self.response_url, self.cancel_url = job.response_url, job.cancel_url

    def end_job(self, state: JobState) -> None:
        """Forget a job that is over. Its id is kept, so that it is never taken for another one."""
        if self.request_id:
            self.past_ids.append(self.request_id)
        self.request_id = self.status_url = self.response_url = self.cancel_url = self.result = None
        self.state, self.is_adopted, self.is_shared = state, False, False
        if state is JobState.ENDED:
            self.charges = self._charges_of_jobs()


class Journal:
    """A folder of records, readable only by its owner. Any number of processes may use it at once.

    Whoever works on a video holds a lock in the journal and one beside the video's file, which other journals respect
    too. The locks go with the process that dies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def starts(self) -> Path:
        """Return the folder of the pictures and clips that jobs started from."""
        return self.folder / "starts"

    def path_of(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.json"

    def end_of(self, fingerprint: str) -> Path:
        """Return the file with the last frames of a part that another part follows."""
        return self.folder / "ends" / f"{fingerprint}.mkv"

    def set_aside(self, request_id: str) -> None:
        """Note that the user may have another video than that of this job, which then is not taken up again."""
        if request_id not in self.ids_set_aside():
            with suppress(OSError), self._aside.open("a", encoding="utf-8") as file:
                file.write(f"{request_id}\n")

    def ids_set_aside(self) -> set[str]:
        with suppress(OSError, UnicodeError):
            return set(self._aside.read_text(encoding="utf-8").split())
        return set()

    @property
    def _aside(self) -> Path:
        return self.folder / "set_aside.txt"

    def how_to_send_again(self, record: Record) -> str:
        """Return the step that leads to another paid job, which only the user may take."""
        return f"delete {self.path_of(record.fingerprint)} and run the same again"

    @asynccontextmanager
    async def claim(self, fingerprint: str, target: Path, observer: Observer, limit: float) -> AsyncIterator[None]:
        """Hold the locks of one video. Waits while another run holds them, for `limit` seconds at most.

        The observer is told so and may stop it. Raises `JobKeptError`, also where the folder of `target` cannot be
        written, before anything is paid.
        """
        with ExitStack() as held:
            for folder, what, path in (
                (self.folder, "The records of jobs", self._lock_of(fingerprint)),
                (target.parent, "Videos", target.with_name(f".{target.name}.lock")),
            ):
                with writable(folder, what):
                    held.callback(release, await wait_for_lock(path, observer, limit))
            yield

    def is_claimed(self, fingerprint: str) -> bool:
        with writable(self.folder, "The records of jobs"):
            lock = acquire(self._lock_of(fingerprint))
        if lock:
            release(lock)
        return lock is None

    def load(self, fingerprint: str) -> Record | None:
        """Return the record of a video, or None if there is none.

        Raises `JobKeptError` for one that cannot be read: a paid job may be behind it.
        """
        path = self.path_of(fingerprint)
        return self._read(path) if path.exists() else None

    def has_job(self, fingerprint: str) -> bool:
        """Return whether there is a record of a job that is not over, or of a finished one."""
        try:
            record = self.load(fingerprint)
        except JobKeptError:
            return True
        return record is not None and record.state is not JobState.ENDED

    def records(self, since: float = 0) -> list[Record]:
        """Return the readable records, the oldest first. `since`: only records written then or later."""
        found = []
        for path in self.folder.glob("*.json"):
            with suppress(JobKeptError, OSError):
                if not since or path.stat().st_mtime >= since:
                    found.append(self._read(path))
        return sorted(found, key=lambda record: record.created)

    def unfinished(self) -> list[Record]:
        """Return the records of jobs that are not over, the oldest first."""
        over = tuple(f'"state": "{state.value}"' for state in OVER)
        return [record for record in self._records_with("", but_for=over) if not record.is_over]

    def news(self) -> list[Record]:
        """Return the records of videos that were fetched without a run that asked for them, the oldest first."""
        return [record for record in self._records_with('"is_news": true') if record.is_news]

    def charges(self, since: float) -> list[Charge]:
        """Return the charges of jobs that were sent from `since` on, in seconds since 1970."""
        records = self.records(since - DAY)  # for a drive with another clock
        return [charge for record in records for charge in record.all_charges() if charge.at >= since]

    def save(self, record: Record) -> None:
        """Replace the record on disk, all or nothing, and flush it.

        Raises `JobKeptError` when the disk does not take it.
        """
        with (
            writable(self.folder, "The records of jobs"),
            atomic_write(self.path_of(record.fingerprint), mode=0o600) as path,
        ):
            path.write_text(record.to_json(), encoding="utf-8")

    def overwrite(self, record: Record) -> bool:
        """Write over the record on disk in the room that it has there, and return whether that was possible.

        For a full disk, which takes no new file. Not all or nothing, but for what fits into one block.
        """
        content = record.to_json().encode()
        with suppress(OSError), self.path_of(record.fingerprint).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if len(content) <= max(size, BLOCK):
                file.write(content.ljust(size))
                file.flush()
                os.fsync(file.fileno())
                return True
        return False

    def remove(self, record: Record) -> None:
        """Remove a record. If it cannot be removed, it stays as last saved."""
        with suppress(OSError):
            self.path_of(record.fingerprint).unlink()
            flush_folder(self.folder)

    def _records_with(self, mark: str, but_for: tuple[str, ...] = ()) -> list[Record]:
        """Return the records whose text has `mark` and none of `but_for`, without parsing the thousands of others."""
        found = []
        for path in self.folder.glob("*.json"):
            with suppress(JobKeptError, OSError, ValueError):
                text = path.read_text(encoding="utf-8")
                if mark in text and not any(other in text for other in but_for):
                    found.append(self._read(path))
        return sorted(found, key=lambda record: record.created)

    def _lock_of(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.lock"

    def _read(self, path: Path) -> Record:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            names = {item.name for item in fields(Record)}
            record = Record(**{name: value for name, value in values.items() if name in names})
            record.check_name(path.stem)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            reason, advice = error, "look for the job at https://fal.ai/dashboard/requests."
            if isinstance(error, OSError):  # then the record itself may be whole
                reason = error.strerror
                advice = (
                    "allow reading it, or close the program that uses it, and run the same again. If nothing helps, "
                    f"{advice}"
                )
            raise JobKeptError(
                f"{path} is the record of a job on fal that may be charged, and it cannot be read ({reason}): "
                f"{advice} Once it is over, delete the file and run the same again for a new video, which is a new "
                "charge.",
                stage="journal",
            ) from None
        return record


async def wait_for_lock(path: Path, observer: Observer, limit: float) -> BaseFileLock:
    """Return a lock that is held. Raises `JobKeptError` after `limit` seconds."""
    start = time.monotonic()
    while not (lock := acquire(path)):
        waited = time.monotonic() - start
        if waited > limit:
            raise JobKeptError(
                f"Another run has been making this same video for {limit / 60:.0f} minutes. Run the same again when it "
                f"is over; if there is none, delete {path}.",
                stage="journal",
            )
        observer.progress(f"Another run makes this same video: waiting for it, {waited:.0f} s", 0, 1)
        observer.raise_if_stopped()
        await asyncio.sleep(LOCK_PAUSE)
    return lock


@contextmanager
def writable(folder: Path, what: str) -> Iterator[None]:
    """Make the folder, and raise `JobKeptError` when the disk does not allow the work that is done there."""
    try:
        make_folder(folder, mode=0o700 if what.startswith("The records") else 0o777)
        yield
    except OSError as error:
        raise JobKeptError(
            f"{what} in {folder} cannot be written ({error.strerror}): make room, or allow writing there, and run the "
            "same again.",
            stage="journal",
        ) from None
