"""Fetch videos of earlier paid jobs that no run asks for any more, without sending a job."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import FalError, JobExpiredError, JobKeptError
from ..formats import FORMATS, VideoFormat, format_of_suffix
from ..lock import acquire, release
from ..observer import NullObserver
from ..video import RemoteVideo
from .client import FalClient
from .display import Display
from .journal import JobState, Journal, Record
from .lost_job import NotTakenError
from .media.download import is_data_uri, video_url
from .paid_job import PaidJob
from .queue.policy import NetworkPolicy
from .queue.retry import jittered
from .queue.status import Completed
from .submission import submission_of

log = logging.getLogger("cosmos_predict25.fal")


def past_jobs(journal: Journal) -> list[Record]:
    """Return the records of jobs that may still give a video, the oldest first."""
    return [record for record in journal.unfinished() if may_give_a_video(record)]


def may_give_a_video(record: Record) -> bool:
    return not record.is_over and record.state is not JobState.EXPIRED


async def fetch_past_jobs(
    journal: Journal,
    folder: Path,
    key: str | None = None,
    policy: NetworkPolicy | None = None,
    announce: Callable[[str], object] = log.info,
) -> list[RemoteVideo]:
    """Fetch the videos of all unfinished jobs without a run into `folder`, and return them. Sends no job.

    Jobs are polled in turn until all are over, or up to the policy's `wait_limit`. A job is locked only for a poll or a
    download, so a run that asks for it gets it at once. Returns at once if another process is doing this, and makes no
    request if there is nothing to fetch. Raises `MissingKeyError`.
    """
    waiting, found = [record.fingerprint for record in past_jobs(journal)], []
    only_one = acquire(journal.folder / "past_jobs.lock") if waiting else None
    if not only_one:
        return found
    try:
        async with FalClient(key, policy, on_trouble=log.info) as client:
            past, start = PastJobs(client, journal, folder, announce), time.monotonic()
            while waiting:
                waiting = [each for each in waiting if not await past.is_settled(each)]
                waited = time.monotonic() - start
                if not waiting or waited > client.policy.wait_limit:
                    return past.found
                await asyncio.sleep(jittered(client.policy.poll_interval(waited)))
            return past.found
    finally:
        release(only_one)


class PastJobs:
    """Looks at jobs of before, one at a time. `found`: the videos so far."""

    def __init__(self, client: FalClient, journal: Journal, folder: Path, announce: Callable[[str], object]) -> None:
        self.found: list[RemoteVideo] = []
        self._client = client
        self._journal = journal
        self._folder = folder
        self._announce = announce

    async def is_settled(self, fingerprint: str) -> bool:
        """Look at a job, and return whether there is nothing more to wait for."""
        record = None
        try:
            record = self._journal.load(fingerprint)
            if not record or not may_give_a_video(record):
                return True
            if not (format := await self._format_of(record)):
                return False
            return await self._is_fetched(record, format)
        except JobKeptError as error:
            return error.stage not in ("journal", "status")  # another run has it, or fal does not answer
        except NotTakenError:
            return True
        except FalError as error:
            seed = record and record.seed
            self._announce(f"An earlier job that you paid for, with seed {seed}, gave no video. {error}")
            return True

    async def _is_fetched(self, record: Record, format: VideoFormat) -> bool:
        submission = submission_of(record, self._folder, format)
        async with self._journal.claim(record.fingerprint, submission.target, NullObserver(), limit=0):
            found = self._journal.load(record.fingerprint)
            if not found or not may_give_a_video(found):  # by now, another run may have fetched it
                return True
            display = Display(NullObserver(), submission.endpoint.typical_seconds, record.seed)
            job = PaidJob(self._client, self._journal, submission, NullObserver(), display, {"store": True})
            if video := await job.take_up():
                self._tell(video, record.fingerprint)
            return video is not None

    def _tell(self, video: RemoteVideo, fingerprint: str) -> None:
        self.found.append(video)
        self._announce(f"A video that you paid for before was fetched: {video.path.name}, seed {video.seed}.")
        if record := self._journal.load(fingerprint):
            record.is_news = True
            self._journal.save(record)

    async def _format_of(self, record: Record) -> VideoFormat | None:
        """Return the kind of the video's file, None while that is not known: records of before do not name it."""
        format, result = format_of_suffix(record.suffix), record.result or {}
        if not format and record.request_id and not video_url(result):
            job = self._client.job(record.endpoint, record.request_id)
            with suppress(JobExpiredError):
                if not isinstance(await self._client.status(job), Completed):
                    return None
                result = await self._client.result(job)
        return format or format_of_url(video_url(result) or "")


def format_of_url(url: str) -> VideoFormat:
    """Return the kind of the file at an address or in a data URI, MP4 where it does not tell."""
    if is_data_uri(url):
        return next((one for one in FORMATS.values() if url[5:].startswith(one.content_type)), FORMATS["X264 (.mp4)"])
    return format_of_suffix(Path(urlsplit(url).path).suffix) or FORMATS["X264 (.mp4)"]


async def tell_news(journal: Journal) -> str:
    """Return a sentence on the videos that were fetched since the last one, and tell them no more. Else nothing."""
    told = []
    for record in journal.news():
        with suppress(JobKeptError):
            path = journal.path_of(record.fingerprint)
            async with journal.claim(record.fingerprint, path, NullObserver(), limit=0):
                if (found := journal.load(record.fingerprint)) and found.is_news:
                    found.is_news = False
                    journal.save(found)
                    told.append(record.seed)
    if not told:
        return ""
    seeds = ", ".join(map(str, told))
    if len(told) == 1:
        return f"1 video that you paid for before was fetched too (seed {seeds})."
    return f"{len(told)} videos that you paid for before were fetched too (seeds {seeds})."
