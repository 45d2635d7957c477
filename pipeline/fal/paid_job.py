"""The paid job: sent once, found again, followed to its file, cancelled on Stop."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio

from ..errors import FalError, InvalidRequestError, JobExpiredError, JobKeptError, OutcomeUnknownError
from ..observer import Observer
from ..video import RemoteVideo
from .display import Display
from .endpoints import is_same_input
from .journal import Journal, Record, State
from .media.download import DownloadError, MediaGoneError, MediaRefusedError, announced_numbers, is_data_uri, video_url
from .media.probe import notes_on, probe
from .media.save import save_video
from .queue.client import RUN_AGAIN, FalClient
from .queue.job import Job, is_request_id, job_from
from .queue.status import InProgress, Queued, Status
from .redaction import hide_prompts
from .submission import Submission

STOP_TICK = 0.1
SHOW_TICK = 1.0
SYNC_MODE_BYTES = 256 * 2**20
LISTING_MARGIN = timedelta(minutes=1)
HAS_RESULT = (State.RESULT_READY, State.DOWNLOADING)
STATES = {Queued: State.QUEUED, InProgress: State.RUNNING}

log = logging.getLogger("cosmos_predict25.fal")


class JobCancelledError(Exception):
    """The job was ended by a cancellation, so there is no video and nothing more to wait for."""


class PaidJob:
    """The work on one submission, from where its record says that it stopped. The journal's claim on it is held."""

    def __init__(
        self,
        client: FalClient,
        journal: Journal,
        submission: Submission,
        observer: Observer,
        options: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._journal = journal
        self._submission = submission
        self._observer = observer
        self._options = options
        self._display = Display(observer, submission.endpoint.typical_seconds, submission.seed)
        client.on_trouble = self._display.announce
        self._record = journal.load(submission.fingerprint)
        self._sending: asyncio.Task[None] | None = None
        self._is_new = False
        self._is_stopping = False

    async def run(self) -> RemoteVideo:
        if self._submission.target.exists():
            return await self._take_finished()
        self._observer.raise_if_stopped()
        work = asyncio.ensure_future(self._make())
        watch = asyncio.ensure_future(self._watch())
        price = asyncio.ensure_future(self._ask_price())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await cancel_and_wait(work)
                await self._abandon()
                watch.result()
            return work.result()
        except asyncio.CancelledError:
            await cancel_and_wait(work)
            await self._settle_submission()
            raise
        finally:
            await cancel_and_wait(watch, price)

    async def _take_finished(self) -> RemoteVideo:
        """The file is there, so it was paid for and is complete."""
        target, record = self._submission.target, self._record
        try:
            video = await asyncio.to_thread(
                probe, target, self._submission.format, self._client.policy.max_pixels, self._submission.seed
            )
        except MediaRefusedError as refusal:
            then = "downloaded again, without paying again" if record else "made again, which is to be paid for again"
            job = f" Request id: {record.request_id}." if record else ""
            raise FalError(
                f"{target} is not the video that belongs there: {refusal}. Move it away to have it {then}.{job}",
                stage="download",
                request_id=record and record.request_id,
            ) from None
        if record:
            self._journal.remove(record)
        self._display.announce(f"Made before, nothing to pay: {target.name}")
        return video

    async def _make(self) -> RemoteVideo:
        while True:
            try:
                if self._record is None:
                    self._sending = asyncio.ensure_future(self._submit())
                    await asyncio.shield(self._sending)
                if not self._job:
                    await self._reconcile()
                return await self._finish()
            except JobCancelledError:
                self._display.announce("The job of before was cancelled, so a new one is sent")

    async def _submit(self) -> None:
        """Leave a record with the job, or of an unknown outcome, or none when nothing was taken.

        Raises as `FalClient.submit` does. When it is cancelled, it ends as soon as no request is on its way.
        """
        record = self._record = self._submission.new_record()
        self._journal.save(record)
        self._display.announce("Sending the job to fal")
        try:
            job = await self._client.submit(self._submission.endpoint.id, self._submission.sent, **self._options)
        except OutcomeUnknownError as error:
            record.state, record.error = State.SUBMIT_UNKNOWN, str(error)
            self._journal.save(record)
            log.warning("%s", error)
        except (FalError, InvalidRequestError, asyncio.CancelledError) as error:
            hide_prompts(error, self._submission.sent)
            self._forget()
            raise
        else:
            self._is_new = True
            self._adopt(job)

    def _adopt(self, job: Job) -> None:
        record = self._record_on_disk
        record.set_job(job)
        record.state, record.error = State.SUBMITTED, None
        try:
            self._journal.save(record)
        except JobKeptError as error:
            raise JobKeptError(
                f"{error} fal has taken the job. Request id: {job.request_id}.",
                stage="journal",
                request_id=job.request_id,
            ) from None
        self._display.announce(f"Sent to fal, request id {job.request_id}")

    async def _reconcile(self) -> None:
        """Find the job whose reply was lost in fal's own list.

        Raises `OutcomeUnknownError` unless there is exactly one.
        """
        record = self._record_on_disk
        found = ""
        for pause in self._client.policy.reconcile_pauses:
            self._display.announce("Looking for the job, as fal's answer was lost")
            await asyncio.sleep(pause)
            try:
                matches = await self._matching_requests(record)
            except FalError as error:
                found = found or str(error)
                continue
            if len(matches) == 1:
                return self._adopt(self._client.job(record.endpoint, matches.pop()))
            number = f"{len(matches)} jobs like it, so which is not clear" if matches else "no job like it, or not yet"
            found = f"fal's list shows {number}."
        raise OutcomeUnknownError(
            f"The job was sent to fal and the answer was lost, so it may be running and be paid for. {found} Run the "
            "same again to look once more, without paying. Or look at "
            "https://fal.ai/dashboard/requests: if the job is not there, delete "
            f"{self._journal.path_of(record.fingerprint)} to have it sent again. Another seed makes another job.",
            stage="submit",
        )

    async def _matching_requests(self, record: Record) -> set[str]:
        """Request ids of jobs with the record's input that no other record claims. Raises `FalError`."""
        sent_at = datetime.fromtimestamp(record.created, timezone.utc)
        end = sent_at + timedelta(seconds=self._client.policy.wait_limit) + LISTING_MARGIN
        items = await self._client.requests(record.endpoint, sent_at - LISTING_MARGIN, end)
        claimed = {other.request_id for other in self._journal.records()}
        return {
            item["request_id"]
            for item in items
            if is_request_id(item.get("request_id"))
            and item["request_id"] not in claimed
            and is_same_input(self._submission.endpoint, item.get("json_input"), record.input_keys, record.input_sha256)
        }

    async def _finish(self) -> RemoteVideo:
        """From an accepted job to the file. Raises `JobCancelledError` when an earlier cancellation had its effect."""
        record = self._record_on_disk
        try:
            return await self._download(await self._result())
        except JobExpiredError as error:
            if record.state is State.CANCEL_REQUESTED:
                self._forget()
                raise JobCancelledError from None
            record.state, record.error = State.EXPIRED, str(error)
            self._journal.save(record)
            self._journal.set_aside(record)
            raise
        except JobKeptError as error:
            if error.status in (401, 403) and record.state is not State.CANCEL_REQUESTED:
                record.state = State.PAUSED_AUTH
            record.error = str(error)
            self._journal.save(record)
            raise
        except FalError as error:
            hide_prompts(error, self._submission.sent)
            was_cancelled = error.status == 499 or error.error_type == "client_cancelled"
            was_asked = record.state is State.CANCEL_REQUESTED
            self._forget()
            if was_cancelled and was_asked:
                raise JobCancelledError from None
            self._display.announce("fal could not make the video")
            raise

    async def _result(self) -> dict[str, Any]:
        """fal's output with a URL in it: that of the record, or the one that is awaited."""
        record = self._record_on_disk
        if record.result and video_url(record.result):
            return record.result
        job = self._job
        assert job
        async for status in self._client.follow(job, is_new=self._is_new):
            if not self._is_stopping:
                self._display.show_status(status)
            self._keep_state(status)
        return await self._read_result(job)

    def _keep_state(self, status: Status) -> None:
        state = STATES.get(type(status))
        if state and self._record_on_disk.state not in (state, State.CANCEL_REQUESTED):
            self._set_state(state)

    async def _read_result(self, job: Job) -> dict[str, Any]:
        """Kept in the record, unless it is the video itself, which `sync_mode` brings."""
        record = self._record_on_disk
        max_bytes = SYNC_MODE_BYTES if self._submission.request.sync_mode else None
        result = await self._client.result(job, max_bytes=max_bytes)
        url = video_url(result)
        if not url:
            raise JobKeptError(
                f"fal has finished the job and names no video. {RUN_AGAIN} Request id: {job.request_id}.",
                stage="result",
                request_id=job.request_id,
            )
        if not is_data_uri(url):
            record.result = {"video": {"url": url, **announced_numbers(result)}}
            self._set_state(State.RESULT_READY)
        return result

    async def _download(self, result: dict[str, Any]) -> RemoteVideo:
        """Only when the file is in place the record goes. Raises `JobKeptError` and `JobExpiredError`."""
        target = self._submission.target
        if not self._is_stopping:
            self._display.announce("Downloading the video")
        self._set_state(State.DOWNLOADING)
        try:
            result, video = await self._save(result)
        except MediaRefusedError as refusal:
            raise self._not_saved(
                f"The file that fal made is not used, because {refusal}. Look at it at "
                "https://fal.ai/dashboard/requests; another seed makes another video."
            ) from None
        except DownloadError as broken:
            raise self._not_saved(f"The finished video was not brought: {broken}. {RUN_AGAIN}") from None
        self._forget()
        found = notes_on(video, announced_numbers(result), self._submission.request.num_frames)
        for note in found:
            log.warning("%s: %s.", target.name, note)
        return replace(video, notes=found)

    async def _save(self, result: dict[str, Any]) -> tuple[dict[str, Any], RemoteVideo]:
        """Where the address leads nowhere any more, the result is read again, which may name a new one."""
        record = self._record_on_disk
        try:
            return result, await self._save_once(result)
        except MediaGoneError:
            job = self._job
            assert job
            result = await self._read_result(job)
        try:
            return result, await self._save_once(result)
        except MediaGoneError as gone:
            raise JobExpiredError(
                f"The finished video is not to be had at its address any more ({gone}). Look for it at "
                "https://fal.ai/dashboard/requests. To run the same again makes a new job, which is to be paid for. "
                f"Request id: {record.request_id}.",
                stage="download",
                request_id=record.request_id,
            ) from None

    def _not_saved(self, message: str) -> JobKeptError:
        self._set_state(State.RESULT_READY)
        request_id = self._record_on_disk.request_id
        return JobKeptError(f"{message} Request id: {request_id}.", stage="download", request_id=request_id)

    async def _save_once(self, result: dict[str, Any]) -> RemoteVideo:
        wanted, policy = self._submission, self._client.policy
        return await save_video(result["video"]["url"], wanted.target, wanted.format, policy, wanted.seed)

    async def _abandon(self) -> None:
        """After Stop: cancel at fal, and learn what came of it. What cannot be learnt now stays in the record."""
        self._is_stopping = True
        await self._settle_submission()
        record, job = self._record, self._job
        if not record or not job or record.state in HAS_RESULT:
            return  # nothing was taken, or it is not known; or it is too late, and the video is to be downloaded
        self._set_state(State.CANCEL_REQUESTED)
        self._display.announce("Stopped, cancelling the job at fal")
        try:
            answer = await self._client.cancel(job)
            log.info("Asked fal to cancel job %s: %s.", job.request_id, answer.value)
            with anyio.fail_after(self._client.policy.cancel_wait):
                video = await self._finish()
            self._display.announce(f"Stopped, but fal had finished: {video.path.name}")
        except JobCancelledError:
            self._display.announce("Stopped, and cancelled at fal")
        except TimeoutError:
            log.warning("What came of cancelling job %s is not known yet: its record is kept.", job.request_id)
        except FalError as error:
            log.warning("%s", error)

    async def _settle_submission(self) -> None:
        """End a submission. When its request is on its way, that is when its job is in the record."""
        if self._sending:
            await cancel_and_wait(self._sending)

    async def _watch(self) -> None:
        """Runs until the observer stops it. Keeps the elapsed time on the display."""
        shown = time.monotonic()
        while True:
            self._observer.raise_if_stopped()
            if time.monotonic() - shown >= SHOW_TICK:
                self._display.refresh()
                shown = time.monotonic()
            await asyncio.sleep(STOP_TICK)

    async def _ask_price(self) -> None:
        self._display.set_price(await self._client.price(self._submission.endpoint.id))

    @property
    def _job(self) -> Job | None:
        """The record's job. Its URLs are checked again: the key goes with them."""
        known = asdict(self._record) if self._record else {}
        return job_from(known, self._client.policy.queue_url, self._submission.endpoint.id)

    def _set_state(self, state: State) -> None:
        self._record_on_disk.state = state
        self._journal.save(self._record_on_disk)

    def _forget(self) -> None:
        self._journal.remove(self._record_on_disk)
        self._record = None

    @property
    def _record_on_disk(self) -> Record:
        assert self._record
        return self._record


async def cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they are over. What they raise is left aside."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
