"""The client of fal's queue, with one method per operation. `generate` adds a journal of paid jobs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError, JobKeptError
from ..formats import FORMATS, format_of_suffix
from ..video import RemoteVideo
from .endpoints import app_of
from .key import refuse_key_in
from .media.download import DownloadError, MediaGoneError, MediaRefusedError, video_url
from .media.save import save_video
from .media.upload import Media, initiate_upload, not_uploaded, put_file, upload_urls
from .queue.errors import error_from, kept, not_cancelled, not_understood, outcome_unknown, read_error, unreachable
from .queue.job import Cancellation, Job, build_job, job_from, with_logs
from .queue.platform import Price, list_requests, read_price
from .queue.policy import NetworkPolicy
from .queue.prepared import DO_NOT_STORE, PreparedRequest, json_of, webhook_query
from .queue.reply import Reply, TransportFailure
from .queue.retry import MAX_RETRY_AFTER, backoff, jittered, retry_after
from .queue.shielded import send_shielded
from .queue.status import Completed, Status, parse_status
from .queue.transport import Transport
from .queue.verdict import Answer, Attempts, Stage, Verdict, classify

UNKNOWN_STATES = 5
"""The number of unknown states in a row that ends following a job."""
FALS_OWN = (Answer.IN_PROGRESS, Answer.NOT_FOUND, Answer.REJECTED, Answer.FAILED, Answer.CANCELLED)

NOT_TAKEN = "fal did not accept the job, so there is no charge"

log = logging.getLogger("cosmos_predict25.fal")


class FalClient:
    """Talks to fal's queue. Use it in `async with`, in one event loop.

    `key`: id:secret. Without it, FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, or ~/.fal/key is used. Raises
    `MissingKeyError` if there is none, before anything is sent. `on_trouble`: receives messages about retries.
    `private`: texts, by name, that are hidden in errors and statuses if fal repeats them.
    """

    def __init__(
        self,
        key: str | None = None,
        policy: NetworkPolicy | None = None,
        on_trouble: Callable[[str], None] = log.info,
        private: Mapping[str, str] | None = None,
    ) -> None:
        self.policy = policy or NetworkPolicy.from_environment()
        self._transport = Transport(key, self.policy, private or {})
        self._on_trouble = on_trouble

    async def __aenter__(self) -> "FalClient":
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    @property
    def clock_offset(self) -> float | None:
        """Return the seconds that fal's clock is ahead of this computer's, or None until fal has sent its time."""
        return self._transport.clock_offset

    @property
    def account(self) -> str | None:
        """Return `FalKey.account` of the key, None with a relay."""
        return self._transport.key and self._transport.key.account

    async def upload(self, media: Media, progress: Callable[[str], None] = log.debug) -> str:
        """Upload a picture or a clip at no charge, and return its URL in fal's storage, valid for a day.

        `progress` receives progress messages. Raises `FalError`.
        """
        attempts = Attempts(Stage.UPLOAD, self.policy)
        while True:
            reply, file_url = await initiate_upload(self._transport, media), ""
            if isinstance(reply, Reply) and reply.is_success:
                upload_url, file_url = upload_urls(reply, self.policy)
                reply = await put_file(self._transport, upload_url, media, progress)
            answer = classify(Stage.UPLOAD, reply)
            verdict = attempts.add(answer)
            if verdict is Verdict.ANSWERED:
                return file_url
            if verdict is not Verdict.AGAIN:
                raise not_uploaded(reply, has_place=bool(file_url))
            self._on_trouble(f"The upload to fal was interrupted ({reply.reason}), trying again")
            await asyncio.sleep(self._pause(answer, attempts, reply))

    async def submit(self, endpoint_id: str, arguments: dict[str, Any], **options: Any) -> Job:
        """Start a job, which costs money. It is sent once: a try is repeated only if fal cannot have accepted it.

        `options`: see `prepare`. Cancelling the task has no effect while the request is in flight, so its reply is not
        lost. Raises `InvalidRequestError`; `FalError` if fal refused or could not be reached, at no charge; and
        `OutcomeUnknownError` if the reply was lost.
        """
        return await self.send(self.prepare(endpoint_id, arguments, **options))

    def prepare(
        self,
        endpoint_id: str,
        arguments: dict[str, Any],
        *,
        webhook_url: str | None = None,
        store: bool = True,
    ) -> PreparedRequest:
        """Check a submission before it is sent. Raises `InvalidRequestError`.

        `webhook_url`: fal posts the result there. `store`: whether fal keeps input and output for 30 days. Without it,
        the result is available for an hour, or 6 minutes if it is large, and a job with a lost reply cannot be found.
        """
        app_of(endpoint_id)
        texts = {name: value for name, value in arguments.items() if isinstance(value, str)}
        refuse_key_in({**texts, "webhook_url": webhook_url or ""}, self._transport.key)
        headers = {"Content-Type": "application/json", **({} if store else DO_NOT_STORE)}
        url = f"{self.policy.queue_url}/{endpoint_id}{webhook_query(webhook_url)}"
        prepared = PreparedRequest(endpoint_id, url, headers, json_of(arguments))
        self._transport.build("POST", url, headers, prepared.content)
        return prepared

    async def send(self, prepared: PreparedRequest, before_try: Callable[[bool], object] = bool) -> Job:
        """Start a prepared job. Raises as `submit` does, except `InvalidRequestError`.

        If fal has no place for a job, this waits for one, up to the policy's wait limit. `before_try` is called with
        False after a failed try, and with True before the next one.
        """
        attempts = Attempts(Stage.SUBMIT, self.policy)
        while True:
            request = self._transport.build("POST", prepared.url, prepared.headers, prepared.content)
            reply, cancellation = await send_shielded(self._transport, request)
            answer = classify(Stage.SUBMIT, reply)
            verdict = attempts.add(answer)
            if verdict is not Verdict.AGAIN:
                return self._accepted(reply, verdict, prepared.endpoint_id)
            if cancellation:
                raise cancellation
            self._on_trouble(f"fal does not accept the job yet ({reply.reason}), trying again")
            before_try(False)
            await asyncio.sleep(self._pause(answer, attempts, reply))
            before_try(True)

    def job(self, endpoint_id: str, request_id: str) -> Job:
        """Return an earlier job by its request id. Raises `InvalidRequestError`."""
        return build_job(self.policy.queue_url, endpoint_id, request_id)

    async def status(self, job: Job, *, logs: bool = True) -> Status | None:
        """Return the job's state, or None if it is unknown. Retries on errors.

        Raises `JobExpiredError` for a job that fal does not know, and `JobKeptError` if fal does not answer.
        """
        reply = await self._read(Stage.STATUS, with_logs(job.status_url, logs), job, self.policy.api_timeout)
        return parse_status(reply.json, reply.private)

    async def follow(self, job: Job) -> AsyncIterator[Status]:
        """Yield the job's state until it is complete, with the policy's pauses in between.

        Raises as `status` does, and `JobKeptError` at the policy's wait limit.
        """
        start, unknown_states = time.monotonic(), 0
        while True:
            waited = time.monotonic() - start
            try:
                status = await self.status(job)
            except JobKeptError as trouble:
                if not trouble.retryable or waited > self.policy.wait_limit:
                    raise
                self._on_trouble("Connection trouble: fal does not answer, still trying")
            else:
                if status:
                    yield status
                if isinstance(status, Completed):
                    return
                unknown_states = 0 if status else unknown_states + 1
                if unknown_states == UNKNOWN_STATES:
                    raise not_understood(Stage.STATUS, "an unknown state", job)
            if waited > self.policy.wait_limit:
                minutes = self.policy.wait_limit / 60
                raise kept(Stage.STATUS, f"fal has not finished the job within {minutes:.0f} minutes", job)
            await asyncio.sleep(jittered(self.policy.poll_interval(waited)))

    async def result(
        self, job: Job, *, max_bytes: int | None = None, deadline: float | None = None, is_cancelled: bool = False
    ) -> dict[str, Any]:
        """Return the output of a completed job. Waits while fal reports it as in progress.

        `max_bytes`, `deadline`: the maximum size and seconds of a reply, if more than the policy's. `is_cancelled`:
        whether fal has confirmed the cancellation. Raises `FalError` if the job failed, `JobCancelledError`,
        `JobExpiredError`, and `JobKeptError` if fal does not answer.
        """
        timeout = self.policy.result_timeout
        reply = await self._read(Stage.RESULT, job.response_url, job, timeout, deadline, max_bytes, is_cancelled)
        if not isinstance(reply.json, dict):
            raise not_understood(Stage.RESULT, "a result that is not an object", job)
        return reply.json

    async def save(self, result: dict[str, Any], path: Path) -> RemoteVideo:
        """Download a result's video to `path`, a new file ending in .mp4, .webm, .mov or .gif.

        Raises `InvalidRequestError`, and `JobKeptError` if the file is refused or not available.
        """
        url, seed = video_url(result), result.get("seed")
        if not (format := format_of_suffix(path.suffix)):
            suffixes = ", ".join(format.suffix for format in FORMATS.values())
            raise InvalidRequestError(f"{path.name} must end in one of {suffixes}.")
        if not url:
            raise JobKeptError("The result names no video.", stage="download")
        try:
            return await save_video(url, path, format, self.policy, seed if isinstance(seed, int) else None)
        except (MediaRefusedError, MediaGoneError, DownloadError) as reason:
            raise JobKeptError(f"fal's video was not saved: {reason}.", stage="download") from None

    async def cancel(self, job: Job) -> Cancellation:
        """Ask fal to cancel a job. Raises `FalError` after three failed tries."""
        attempts = Attempts(Stage.CANCEL, self.policy)
        while True:
            reply = await self._transport.send(
                "PUT", job.cancel_url, timeout=self.policy.connect_timeout, deadline=self.policy.api_timeout
            )
            answer = classify(Stage.CANCEL, reply)
            verdict = attempts.add(answer)
            if verdict is Verdict.ANSWERED:
                # After a try that came to nothing here, that one may be what has ended the job.
                is_first = attempts.times == {answer: 1}
                return parse_cancellation(answer, reply.status if isinstance(reply, Reply) else 0, is_first)
            if verdict is not Verdict.AGAIN:
                raise not_cancelled(reply, answer, job)
            await asyncio.sleep(self._pause(answer, attempts, reply))

    async def price(self, endpoint_id: str) -> Price | None:
        """Return the current price of a job, or None if fal does not tell."""
        return await read_price(self._transport, endpoint_id)

    def requests(
        self, endpoint_id: str, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield fal's list of the account's jobs that were sent from `start` to `end`, with their inputs.

        Without `start`, the list covers the last 24 hours. Raises `FalError` if fal does not provide all of it.
        """
        return list_requests(self._transport, endpoint_id, start, end)

    def _accepted(self, reply: Reply | TransportFailure, verdict: Verdict, endpoint_id: str) -> Job:
        """Return the job in a reply. Raises `FalError` for a refusal, and `OutcomeUnknownError`."""
        if verdict is Verdict.REFUSED:
            raise unreachable(reply) if isinstance(reply, TransportFailure) else error_from(reply, "submit", NOT_TAKEN)
        if verdict is Verdict.UNKNOWN or isinstance(reply, TransportFailure):
            raise outcome_unknown(reply.reason)
        if job := job_from(reply.json, self.policy.queue_url, endpoint_id):
            return job
        raise outcome_unknown("its reply names no job")

    async def _read(
        self,
        stage: Stage,
        url: str,
        job: Job,
        timeout: float,
        deadline: float | None = None,
        max_bytes: int | None = None,
        is_cancelled: bool = False,
    ) -> Reply:
        """Return the JSON reply to a GET. Repeats until the verdict table decides."""
        attempts, deadline = Attempts(stage, self.policy), deadline or 2 * timeout
        while True:
            reply = await self._transport.send("GET", url, timeout=timeout, deadline=deadline, max_bytes=max_bytes)
            answer = classify(stage, reply, is_cancelled)
            verdict = attempts.add(answer)
            if verdict is Verdict.ANSWERED and isinstance(reply, Reply):
                return reply
            if verdict is not Verdict.AGAIN:
                raise read_error(stage, answer, verdict, reply, job)
            await asyncio.sleep(self._pause(answer, attempts, reply))

    def _pause(self, answer: Answer, attempts: Attempts, reply: Reply | TransportFailure) -> float:
        """Return the seconds before the next try."""
        if answer in FALS_OWN:
            return jittered(self.policy.poll_interval(0))
        longest = self.policy.wait_limit if attempts.stage is Stage.SUBMIT else MAX_RETRY_AFTER
        asked = retry_after(reply.headers, longest) if isinstance(reply, Reply) else None
        return asked or backoff(attempts.times[answer], self.policy.backoff, self.policy.backoff_cap)


def parse_cancellation(answer: Answer, status: int, is_first: bool) -> Cancellation:
    """Return fal's answer to a cancellation ("Inference API reference", cancel)."""
    if answer in (Answer.NOT_FOUND, Answer.TOO_LATE) and not is_first:
        return Cancellation.REQUESTED
    if answer is Answer.NOT_FOUND:
        return Cancellation.GONE
    if answer is Answer.TOO_LATE:
        return Cancellation.TOO_LATE
    return Cancellation.REQUESTED if status == 202 else Cancellation.REMOVED
