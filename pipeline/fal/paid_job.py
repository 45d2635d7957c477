"""The paid job: sent once, found again, followed to its file, cancelled on Stop."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, NoReturn

import anyio

from ..errors import FalError, JobExpiredError, JobKeptError, OutcomeUnknownError
from ..observer import Observer
from ..video import RemoteVideo
from .budget import Quote, day_limit, quote, save_with_charge, told_price
from .client import FalClient
from .display import Display
from .endpoints import sha256_of
from .journal import JobState, Journal
from .lost_job import NotTakenError, find_lost_job, find_same_job
from .media.download import (
    DownloadError,
    MediaGoneError,
    MediaRefusedError,
    checked_url,
    is_data_uri,
    video_url,
)
from .media.probe import probe
from .media.save import save_video
from .queue.errors import RUN_AGAIN, JobCancelledError, is_lasting
from .queue.job import Cancellation, Job, job_from
from .queue.retry import jittered
from .queue.status import Completed
from .queue.verdict import Answer, Attempts, Stage, Verdict
from .submission import Submission

STOP_TICK = 0.1
SHOW_TICK = 1.0
SYNC_MODE_BYTES = 256 * 2**20
"""Of a reply with the video in it, held in memory: 192 MiB of file, where ProRes 4444 of 93 frames has 64 MB or so."""

log = logging.getLogger("cosmos_predict25.fal")


class PaidJob:
    """The work on one submission, from where its record says that it stopped. The journal's claim on it is held."""

    def __init__(
        self,
        client: FalClient,
        journal: Journal,
        submission: Submission,
        observer: Observer,
        display: Display,
        options: Mapping[str, Any],
        on_charge: Callable[[float], object] = log.debug,
    ) -> None:
        self._client = client
        self._journal = journal
        self._submission = submission
        self._observer = observer
        self._display = display
        self._options = options
        self._on_charge = on_charge
        self._price: Quote | None = None  # of the job that was sent in this run
        self._record = journal.load(submission.fingerprint) or submission.new_record()
        # Its URLs are checked again, once: the key goes with them.
        self._job = job_from(asdict(self._record), client.policy.queue_url, submission.endpoint.id)
        self._sending: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def run(self) -> RemoteVideo:
        """Return the finished video. Raises the error that its job ended with."""
        if self._submission.target.exists():
            return await self._take_finished()
        self._observer.raise_if_stopped()
        work = asyncio.ensure_future(self._make())
        watch = asyncio.ensure_future(self._watch())
        asking = asyncio.ensure_future(self._ask_price())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await cancel_and_wait(work)
                await self._abandon()
                watch.result()
            return work.result()
        except asyncio.CancelledError:
            await cancel_and_wait(work)
            await self._settle_sending()
            raise
        finally:
            await cancel_and_wait(watch, asking)

    async def take_up(self) -> RemoteVideo | None:
        """Fetch the video of a job that was sent before, None while fal works on it. Sends no job.

        Raises as `run` does.
        """
        if self._submission.target.exists():
            return await self._take_finished()
        if not self._job:
            await self._find_lost_job()
        assert self._job
        if not self._record.result:
            with suppress(JobExpiredError):  # which `_finish` finds out too, and keeps
                if not isinstance(await self._client.status(self._job), Completed):
                    return None
        return await self._finish()

    async def _take_finished(self) -> RemoteVideo:
        """Return the video of a file that is there, so that it was paid for and is complete."""
        submission, record = self._submission, self._record
        target = submission.target
        try:
            video = await asyncio.to_thread(probe, target, submission.format, submission.seed)
        except PermissionError as error:
            raise FalError(
                f"{target} cannot be read ({error.strerror}): close what holds it, or allow reading it, and run "
                "the same again. The video is finished, and costs nothing more.",
                stage="download",
                request_id=record.request_id,
            ) from None
        except MediaRefusedError as refusal:
            is_paid = record.state is not JobState.ENDED
            then = "download it again, at no charge" if is_paid else "regenerate it; this is a new charge"
            raise FalError(
                f"{target} is not the video that belongs there: {refusal}. Move it away and run again to {then}.",
                stage="download",
                request_id=record.request_id,
            ) from None
        if record.state not in (JobState.DONE, JobState.ENDED):
            self._set_state(JobState.DONE)
        self._display.announce(f"Made before, nothing to pay: {target.name}")
        return video

    async def _make(self) -> RemoteVideo:
        while True:
            if self._record.state is JobState.ENDED:
                self._raise_if_refused()
            if self._record.state is JobState.ENDED and not await self._share_job():
                self._sending = asyncio.ensure_future(self._send())
                await asyncio.shield(self._sending)
            if not self._job:
                try:
                    await self._find_lost_job()
                except NotTakenError as error:
                    self._display.announce(f"{error} Sending it again")
                    self._end_job(JobState.ENDED)
                    continue
            try:
                return await self._finish()
            except JobCancelledError:
                self._display.announce("The job of before was cancelled, so a new one is sent")

    async def _share_job(self) -> bool:
        """Go on with a job that another run has sent for the same, if there is one. It is not cancelled on Stop."""
        if not self._options["store"]:  # then fal's list shows none
            return False
        job = await find_same_job(self._client, self._journal, self._submission)
        if job:
            self._display.announce("fal has a job with the same values, sent by another run: no new one is sent")
            self._record.is_shared = True
            self._take_job(job)
        return job is not None

    async def _send(self) -> None:
        """Leave a record with the job, or of an unknown outcome, or none when nothing was taken.

        Raises as `FalClient.submit` does. When it is cancelled, it ends as soon as no request is on its way.
        """
        price = await quote(self._client, self._journal, self._submission.endpoint)
        self._display.set_price(str(price))
        arguments = await self._upload()
        request = self._client.prepare(self._submission.endpoint.id, arguments, **self._options)
        record = self._record
        is_listed = self._options["store"] and not arguments["sync_mode"]
        record.listed_for = self._client.account if is_listed else None
        record.created, record.clock_offset = time.time(), self._client.clock_offset
        record.input_sha256, record.sync_mode = sha256_of(arguments), arguments["sync_mode"]
        await save_with_charge(self._journal, record, price)
        self._price = price
        try:
            self._display.announce("Sending the job to fal")
            job = await self._client.send(request, self._note_try)
        except OutcomeUnknownError as error:
            log.warning("%s", error)
            if record.clock_offset is None and self._client.clock_offset is not None:
                record.clock_offset = self._client.clock_offset
                self._save_record()
        except BaseException:  # so nothing was sent, or nothing was taken
            self._end_job(JobState.ENDED)
            raise
        else:
            self._take_job(job)

    def _note_try(self, is_next: bool) -> None:
        """Note on disk whether a job may be on its way: in a pause, after fal had no place for it, none is."""
        record = self._record
        if is_next:
            record.created, record.clock_offset = time.time(), self._client.clock_offset
        record.state = JobState.SUBMIT_UNKNOWN if is_next else JobState.ENDED
        self._journal.save(record)

    async def _upload(self) -> dict[str, Any]:
        """Return the arguments with the address of their media, uploaded when all else is known to be right."""
        endpoint, media, arguments = self._submission.endpoint, self._submission.media, self._submission.arguments
        if not media or media.address:
            return arguments
        self._client.prepare(endpoint.id, arguments, **self._options)
        address = await self._client.upload(media, self._display.show)
        return {**arguments, endpoint.media: address}

    def _take_job(self, job: Job, is_adopted: bool = False) -> None:
        self._job = job
        self._record.set_job(job, is_adopted)
        self._save_record()
        if self._price:
            self._on_charge(self._price.dollars)
        self._display.announce(f"Sent to fal, request id {job.request_id}")

    async def _find_lost_job(self) -> None:
        """Go on with the job whose reply was lost. Raises `OutcomeUnknownError`."""
        stored = self._options["store"]
        job = await find_lost_job(self._client, self._journal, self._record, stored, self._display.announce)
        self._take_job(job, is_adopted=True)

    async def _finish(self) -> RemoteVideo:
        """Follow an accepted job to its file. Raises `JobCancelledError` when a cancellation had its effect."""
        record = self._record
        try:
            return await self._download(await self._result())
        except JobKeptError as error:
            if error.stage == "result" and error.status not in (None, 401, 403):  # fal's own error may be its last word
                error.args = (f"{error} {self._how_to_have_another()}",)
            raise
        except JobExpiredError as error:
            self._keep_expired(error)
        except FalError as error:
            if record.result or record.state is JobState.DONE:  # so it has not failed, whatever fal says by now
                raise self._not_saved(
                    f"fal has made the video, and answers HTTP {error.status} now when it is asked where the file is. "
                    f"{RUN_AGAIN} {self._how_to_have_another()}"
                ) from None
            was_cancelled = record.state is JobState.CANCEL_REQUESTED
            if is_lasting(error) and not record.is_adopted:
                self._keep_refusal(error)
            self._end_job(JobState.SUBMIT_UNKNOWN if record.is_adopted and not was_cancelled else JobState.ENDED)
            if not isinstance(error, JobCancelledError):
                self._display.announce("fal could not make the video")
            raise

    def _keep_refusal(self, error: FalError) -> None:
        """Note a refusal that the same input would meet again, which may be charged each time."""
        names = ("text", "status", "error_type", "request_id")
        self._record.refusal = {name: getattr(error, name) for name in names}

    def _raise_if_refused(self) -> None:
        """Raise the refusal of an earlier run, without asking fal."""
        if refusal := self._record.refusal:
            raise FalError(
                f"fal has refused this before, and nothing was sent this time: {refusal.get('text')} Change a value. "
                f"To send it once more, which may be a new charge, {self._journal.how_to_send_again(self._record)}.",
                stage="result",
                status=refusal.get("status"),
                error_type=refusal.get("error_type"),
                retryable=False,
                request_id=refusal.get("request_id"),
            )

    def _keep_expired(self, error: JobExpiredError) -> NoReturn:
        """Keep the record until the user dismisses it, but for a job that was cancelled from here."""
        record = self._record
        if record.state is JobState.CANCEL_REQUESTED or (record.is_shared and record.state is not JobState.DONE):
            self._end_job(JobState.ENDED)
            raise JobCancelledError(str(error), stage=error.stage) from None
        made = ""
        if record.state is JobState.DONE:
            date = time.strftime("%Y-%m-%d", time.localtime(record.created))
            made = f"This video was made on {date}, and {self._submission.target} is gone. "
        else:
            self._set_state(JobState.EXPIRED)
        raise JobExpiredError(
            f"{made}{error.text} Run the same again to look once more, without paying. {self._how_to_have_another()}",
            stage=error.stage,
            status=error.status,
            request_id=record.request_id,
        ) from None

    def _how_to_have_another(self) -> str:
        if self._record.request_id:
            self._journal.set_aside(self._record.request_id)
        return f"For a new video, which is a new charge, {self._journal.how_to_send_again(self._record)}."

    async def _result(self) -> dict[str, Any]:
        """Return fal's output with a URL in it, from the record or from fal."""
        record, job = self._record, self._job
        assert job
        if record.result and self._is_usable(video_url(record.result)):
            if record.state is JobState.DONE:
                self._display.announce("Made before, and the file is gone: fetching it again, nothing to pay")
            return record.result
        if not record.result:  # so it is not known whether fal has finished
            async for status in self._client.follow(job):
                if not self._is_stopping:
                    self._display.show_status(status)
        return await self._read_result(job)

    async def _read_result(self, job: Job) -> dict[str, Any]:
        """Read fal's output into the record, unless it is the video itself, as with `sync_mode`."""
        record = self._record
        limits: dict[str, Any] = {}
        if record.sync_mode or self._submission.arguments["sync_mode"]:  # then reading it is a download
            limits = {"max_bytes": SYNC_MODE_BYTES, "deadline": self._client.policy.media_deadline}
        is_cancelled = record.state is JobState.CANCEL_REQUESTED
        result = await self._client.result(job, is_cancelled=is_cancelled, **limits)
        url = video_url(result)
        if not url:
            text = f"fal has finished the job and names no video. {RUN_AGAIN} {self._how_to_have_another()}"
            raise JobKeptError(text, stage="result", request_id=job.request_id)
        if not is_data_uri(url):
            # An address that is refused is read again in the next run. That there is a video is remembered.
            record.result = {"video": {"url": url} if self._is_usable(url) else {}}
            self._set_state(record.state if record.state is JobState.DONE else JobState.SUBMITTED)
        return result

    def _is_usable(self, url: str | None) -> bool:
        """Return whether a video may be downloaded from an address."""
        with suppress(MediaRefusedError):
            return bool(url and checked_url(url, self._client.policy.media_hosts))
        return False

    async def _download(self, result: dict[str, Any]) -> RemoteVideo:
        """Save the video that a result names. Raises `JobKeptError` and `JobExpiredError`."""
        if not self._is_stopping:
            self._display.announce("Downloading the video")
        try:
            result, video = await self._save(result)
        except MediaRefusedError as refusal:
            if self._record.result:
                self._record.result = {"video": {}}
                self._save_record()
            raise self._not_saved(
                f"The file that fal made is not used, because {refusal}. A proxy or a filter may have put something "
                "else in its place: run the same again to download it once more, without paying again. Or look at it "
                "at https://fal.ai/dashboard/requests; another seed makes another video, which is a new charge."
            ) from None
        except DownloadError as broken:
            raise self._not_saved(f"The finished video was not downloaded: {broken}. {RUN_AGAIN}") from None
        self._set_state(JobState.DONE)
        url, requested = result["video"]["url"], self._submission.arguments.get("num_frames", video.num_frames)
        note = f"{requested} frames were asked for, and the file has {video.num_frames}"
        notes = () if video.num_frames == requested else (note,)
        return replace(video, notes=notes, url=None if is_data_uri(url) else url)

    async def _save(self, result: dict[str, Any]) -> tuple[dict[str, Any], RemoteVideo]:
        """Save the video. Where its address leads nowhere, read the result again, which may name a new one."""
        submission, policy, job = self._submission, self._client.policy, self._job
        assert job
        attempts = Attempts(Stage.MEDIA, policy)
        while True:
            try:
                url = result["video"]["url"]
                return result, await save_video(url, submission.target, submission.format, policy, submission.seed)
            except MediaGoneError as gone:
                if attempts.add(Answer.NOT_FOUND) is Verdict.EXPIRED:
                    raise JobExpiredError(
                        f"The finished video is no longer available at its URL ({gone}), or not through a proxy or "
                        "filter on the way. Look for it at https://fal.ai/dashboard/requests.",
                        stage="download",
                        request_id=job.request_id,
                    ) from None
            await asyncio.sleep(jittered(policy.poll_interval(0)))
            result = await self._read_result(job)

    def _not_saved(self, message: str) -> JobKeptError:
        return JobKeptError(message, stage="download", request_id=self._record.request_id)

    async def _abandon(self) -> None:
        """Cancel at fal after Stop, and learn the outcome. A job without one stays in the record."""
        self._is_stopping = True
        await self._settle_sending()
        if self._record.result and self._record.state is not JobState.DONE:
            self._display.announce("Stopped, and fal had made the video: run the same again for it, nothing to pay")
            return
        if self._record.state in (JobState.ENDED, JobState.DONE, JobState.EXPIRED):
            return
        try:
            if not self._job:
                with anyio.fail_after(self._client.policy.cancel_wait):
                    await self._find_lost_job()
            if self._job and self._record.is_shared:
                self._display.announce("Stopped. Another run sent the job, so it goes on: run the same again for it")
            elif self._job:
                await self._cancel(self._job)
        except JobCancelledError:
            self._display.announce("Stopped, and cancelled at fal")
        except TimeoutError:
            self._display.announce("Stopped, and whether fal cancelled it is not known yet: run the same again to see")
        except FalError as error:
            then = ", but not cancelled: run the same again for its video" if error.stage == "cancel" else ""
            self._display.announce(f"Stopped{then}. {error}")

    async def _cancel(self, job: Job) -> None:
        """Cancel a job. Raises `JobCancelledError`, `TimeoutError`, and `FalError` as `_finish` does."""
        self._display.announce("Stopped, cancelling the job at fal")
        answer = await self._client.cancel(job)
        log.info("Asked fal to cancel job %s: %s.", job.request_id, answer.value)
        if answer in (Cancellation.REMOVED, Cancellation.REQUESTED):
            self._set_state(JobState.CANCEL_REQUESTED)
        with anyio.fail_after(self._client.policy.cancel_wait):
            video = await self._finish()
        self._display.announce(f"Stopped, but fal had finished: {video.path.name}")

    async def _settle_sending(self) -> None:
        """End a submission. When its request is on its way, that is when its job is in the record."""
        if self._sending:
            await cancel_and_wait(self._sending)

    async def _watch(self) -> None:
        """Run until the observer stops it. Keeps the elapsed time on the display."""
        shown = time.monotonic()
        while True:
            self._observer.raise_if_stopped()
            if time.monotonic() - shown >= SHOW_TICK:
                self._display.refresh()
                shown = time.monotonic()
            await asyncio.sleep(STOP_TICK)

    async def _ask_price(self) -> None:
        """Ask for the price where no limit waits for it."""
        if not math.isinf(day_limit()):
            return
        if told := await told_price(self._client, self._submission.endpoint):
            self._display.set_price(str(told))
            if self._price and not self._price.told:
                self._record.charges[-1] = replace(self._record.charges[-1], price=told.dollars, priced=told.asked)
                self._save_record()

    def _set_state(self, state: JobState) -> None:
        self._record.state = state
        self._save_record()

    def _save_record(self) -> None:
        """Save the record of a job that was sent. A disk that does not take it must not end what is paid for."""
        try:
            self._journal.save(self._record)
        except JobKeptError as error:
            if not self._journal.overwrite(self._record):
                log.warning("%s The job goes on, request id %s.", error, self._record.request_id)

    def _end_job(self, state: JobState) -> None:
        """End the record of a job that is over. Where that cannot be written, the next run finds it out again.

        A record that tells nothing is removed. It is written before, as it may not be removed while a program reads it.
        """
        self._job = None
        self._record.end_job(state)
        self._save_record()
        if state is JobState.ENDED and not self._record.past_ids:
            self._journal.remove(self._record)


async def cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they are over. What they raise is left aside."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
