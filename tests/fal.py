"""The client against the stand-in of fal's queue: fixtures, which conftest.py hands to all tests, and helpers."""

import asyncio
import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import Clock, Drip, FalStandIn, Fault, Hang, Stall
from cosmos_predict25.devtools.fal_standin.wire import Response, Wire
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError
from cosmos_predict25.pipeline.fal import Journal, NetworkPolicy, generate
from cosmos_predict25.pipeline.fal.budget import LIMIT_VARIABLE
from cosmos_predict25.pipeline.fal.journal import JobState, Record
from cosmos_predict25.pipeline.fal.queue.policy import RELAY_VARIABLE
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, GenerationRequest
from cosmos_predict25.pipeline.video import RemoteVideo
from cosmos_predict25.tests import fal_worker

PROMPT = "A red cube on a conveyor belt that nobody else would think of."
REQUEST = GenerationRequest(prompt=PROMPT, num_frames=9, seed=7)
INPUT = {
    "prompt": PROMPT,
    "negative_prompt": DEFAULT_NEGATIVE_PROMPT,
    "num_frames": 9,
    "num_inference_steps": 35,
    "guidance_scale": 7.0,
    "seed": 7,
    "sync_mode": False,
    "video_output_type": "X264 (.mp4)",
    "video_quality": "high",
}
"""What is sent for `REQUEST`."""
ENDPOINT = "fal-ai/cosmos-predict-2.5/text-to-video"
APP = "fal-ai/cosmos-predict-2.5"
QUEUE = "https://queue.fal.run"
NO_PLATFORM = "https://127.0.0.1:1/v1"
"""Nobody is there, so that every connection to the stand-in is one of the queue."""
OTHER_KEYS = ("FAL_KEY_ID", "FAL_KEY_SECRET", "ALL_PROXY", "all_proxy", RELAY_VARIABLE, LIMIT_VARIABLE)
T = TypeVar("T")

if importlib.util.find_spec("sniffio") is None:
    # httpcore looks for it at every request, and to find that it is not there takes a sixth of a test's time.
    sys.modules["sniffio"] = None  # pyright: ignore[reportArgumentType]


@pytest.fixture
def fal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[FalStandIn]:
    """A running stand-in, for this process too. After the test no rule of `violations` may be broken, and no part of
    the key and no address of an upload may be in a log record, a journal or a finished file, and no address of a video
    in a log record."""
    for name in OTHER_KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # the home on Windows
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "httpcore")  # its lines on every byte take a fifth of a test's time
    with FalStandIn(tmp_path / "fal", clock=Clock(per_poll=3)) as fal:
        for name, value in fal.environ.items():
            monkeypatch.setenv(name, value)
        yield fal
        assert fal.violations == []
        texts = [str(record.__dict__) for record in caplog.get_records("call")]
        files = [path for folder in folders_of(fal) for path in folder.rglob("*") if path.is_file()]
        for half in fal.key.split(":"):
            assert not [text for text in texts if half in text]
            assert not [path for path in files if half.encode() in path.read_bytes()]
        for job in fal.jobs.values():
            assert not job.media_path or [text for text in texts if job.media_path in text] == []
        for address in fal.uploads:
            assert [text for text in texts if address in text] == []
            assert not [path for path in files if address.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def running_fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalStandIn]:
    """A running stand-in whose jobs go by the world's clock, for a ComfyUI beside it."""
    with FalStandIn(tmp_path_factory.mktemp("fal"), clock=Clock(real=True)) as fal:
        yield fal


class StoppedError(Exception):
    """As ComfyUI's own interruption."""


class Recorder:
    """Keeps what it is told. Stops the work at `stop()`, or by itself at the first message with `stop_at` in it."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.messages: list[str] = []
        self.progresses: list[tuple[int, int]] = []
        self.stopped = False
        self._stop_at = stop_at

    def progress(self, message: str, done: int, total: int, latents: Any = None) -> None:
        self.messages.append(message)
        self.progresses.append((done, total))
        if self._stop_at and self._stop_at in message:
            self.stop()

    def stop(self) -> None:
        self.stopped = True

    def raise_if_stopped(self) -> None:
        if self.stopped:
            raise StoppedError


async def make(fal: FalStandIn, request: GenerationRequest = REQUEST, **options: Any) -> RemoteVideo:
    """`generate` with the stand-in's own folders and the fast policy, unless `options` say otherwise."""
    options = {"folder": videos_of(fal), "journal": journal_of(fal), "policy": FAST, **options}
    return await generate(request, **options)


def run(work: Coroutine[Any, Any, T], seconds: float = 300) -> T:
    """To its end, in a new event loop, which must leave no task behind."""

    async def whole() -> T:
        try:
            return await asyncio.wait_for(work, seconds)
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            # The loop closes httpcore's generators that were not gone through, in tasks of their own.
            assert {type(task.get_coro()).__name__ for task in left} <= {"async_generator_athrow"}

    return asyncio.run(whole())


def videos_of(fal: FalStandIn) -> Path:
    return fal.folder.parent / "videos"


def journal_of(fal: FalStandIn) -> Journal:
    return Journal(fal.folder.parent / "journal")


def folders_of(fal: FalStandIn) -> tuple[Path, Path]:
    return videos_of(fal), journal_of(fal).folder


def records_of(fal: FalStandIn) -> list[Record]:
    """Those on disk whose job is not over; a record that cannot be read is an error."""
    paths = sorted(journal_of(fal).folder.glob("*.json"))
    if len(journal_of(fal).records()) != len(paths):
        raise JobKeptError(f"Not all of {paths} can be read.", stage="journal")
    return journal_of(fal).unfinished()


def record_of(fal: FalStandIn) -> Record:
    """The only one."""
    (record,) = records_of(fal)
    return record


def policy_with(**changes: Any) -> NetworkPolicy:
    return replace(FAST, **changes)


BRIEF = policy_with(wait_limit=0.3)
LOOKING = policy_with(look_time=60)
"""With the look for a job that another run has sent."""


def start(fal: FalStandIn, **order: Any) -> "subprocess.Popen[str]":
    """`make` in a process of its own; see fal_worker.py."""
    request = {"prompt": PROMPT, "num_frames": 9, "seed": 7, **order.pop("request", {})}
    return fal_worker.start(
        {**os.environ, **fal.environ}, folder=str(fal.folder.parent), request=request, policy=asdict(FAST), **order
    )


def failed(fal: FalStandIn, kind: type[FalError], **options: Any) -> Any:
    """What generation raises, of just this kind. Its message names the job, tells a next step, and shows no secret."""
    with pytest.raises(kind) as caught:
        run(make(fal, **options))
    message = str(caught.value)
    assert caught.type is kind or kind is JobKeptError, message
    for request_id in fal.jobs:
        assert request_id in message
        assert caught.value.request_id == request_id
    assert re.search(r"again|dashboard|retry|change", message), message
    assert PROMPT not in message
    assert not [half for half in fal.key.split(":") if half in message]
    assert not list(fal.folder.parent.rglob("*.part"))
    return caught.value


def goes_on(fal: FalStandIn, **options: Any) -> RemoteVideo:
    """The same with nothing in the way: the video of the one job that there is, and nothing else left behind."""
    fal.clear_faults()
    video = run(make(fal, **options))
    assert fal.accepted == 1
    assert len(fal.requests("submit")) == 1
    assert list(videos_of(fal).iterdir()) == [video.path]
    assert records_of(fal) == []
    assert {path.suffix for path in journal_of(fal).folder.iterdir()} <= {".json", ".txt"}
    return video


def check_one_job(fal: FalStandIn) -> None:
    """It was sent once, and there is nothing more to do for it."""
    assert len(fal.requests("submit")) == 1
    assert fal.accepted == 1
    assert records_of(fal) == []


def error_of(fal: FalStandIn, request: GenerationRequest = REQUEST, **options: Any) -> FalError:
    """What a run raises, which shows neither the prompt nor the key."""
    with pytest.raises(FalError) as caught:
        run(make(fal, request, **options))
    shown = f"{caught.value} {caught.value.__dict__}"
    assert not [secret for secret in (request.prompt, *fal.key.split(":")) if secret in shown]
    return caught.value


def texts_of_log(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


class Watcher(Recorder):
    """Calls `look` once, at the first message with `text` in it."""

    def __init__(self, text: str, look: Callable[[], object]) -> None:
        super().__init__()
        self._text = text
        self._look: Callable[[], object] | None = look

    def progress(self, message: str, done: int, total: int, latents: Any = None) -> None:
        super().progress(message, done, total, latents)
        if self._look and self._text in message:
            look, self._look = self._look, None
            look()


def only_id(fal: FalStandIn) -> str:
    (request_id,) = fal.jobs
    return request_id


def goes_on_through(fal: FalStandIn, **options: Any) -> Any:
    """The video at the first try, in spite of the faults."""
    video = run(make(fal, **options))
    assert fal.accepted == 1
    assert records_of(fal) == []
    assert list(videos_of(fal).iterdir()) == [video.path]
    return video


@dataclass(frozen=True)
class Meanwhile(Fault):
    """`fault`, once `what` has happened."""

    what: Callable[[], object]
    fault: Fault = field(default_factory=Fault)

    async def send(self, response: Response, wire: Wire) -> None:
        self.what()
        await self.fault.send(response, wire)


def is_blocked(fal: FalStandIn, **options: Any) -> None:
    """The record is kept, and as long as the user does not delete it, nothing more is paid."""
    record = record_of(fal)
    assert (record.state, record.request_id) == (JobState.EXPIRED, only_id(fal))
    error = failed(fal, JobExpiredError, **options)
    path = journal_of(fal).path_of(record.fingerprint)
    assert f"delete {path} and run the same again" in str(error)
    assert (fal.accepted, len(fal.requests("submit"))) == (1, 1)
    fal.clear_faults()
    path.unlink()
    run(make(fal, **options))
    assert fal.accepted == 2


def policy_for(fault: Fault) -> NetworkPolicy:
    """A side that is silent is given up soon; all others have the time that they need."""
    silent = isinstance(fault, Hang | Stall | Drip)
    return policy_with(connect_timeout=5, api_timeout=5, result_timeout=5) if silent else FAST


def short_name(value: Any) -> str:
    return value.__name__ if callable(value) else str(value)[:40]


async def end_at(fal: FalStandIn, moment: Callable[[Recorder], object], how: str, **options: Any) -> None:
    """Ends a run once `moment` has come."""
    observer = Recorder()
    making = asyncio.ensure_future(make(fal, observer=observer, **options))
    while not moment(observer):
        await asyncio.sleep(0.01)
    observer.stop() if how == "stop" else making.cancel()
    with pytest.raises(StoppedError if how == "stop" else asyncio.CancelledError):
        await making
