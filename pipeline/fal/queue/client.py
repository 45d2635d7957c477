"""fal's queue protocol, one method an operation. `generate` is the one that keeps a journal of what is paid for."""

import asyncio
import json
import logging
import math
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

from ...errors import FalError, InvalidRequestError, JobExpiredError, JobKeptError, OutcomeUnknownError
from ...formats import FORMATS, format_of_suffix
from ...video import RemoteVideo
from ..endpoints import app_of
from ..key import refuse_key_in
from ..media.download import DownloadError, MediaGoneError, MediaRefusedError, video_url
from ..media.save import save_video
from .job import Cancellation, Job, build_job, job_from, with_logs
from .platform import Price, list_requests, read_price
from .policy import NetworkPolicy, is_plain_https
from .reply import Reply, UnreadableReplyError, error_from
from .retry import (
    backoff,
    is_certificate_failure,
    is_ingress,
    jittered,
    leaves_submission_unknown,
    may_repeat_read,
    may_repeat_submission,
    proves_nothing_was_sent,
    retry_after,
)
from .status import Completed, Status, parse_status
from .transport import Trace, Transport, reason_of

NOT_UNDERSTOOD = 5
"""As many replies in a row may be garbled, or tell a state that is not known."""
CANCEL_TRIES = 3
RUN_AGAIN = "The job is not lost: run the same again to go on with it, without paying again."

log = logging.getLogger("cosmos_predict25.fal")


class FalClient:
    """Talks to fal's queue. To be used in `async with`, in one event loop.

    `key` is id:secret; without it, FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, or ~/.fal/key. Raises `MissingKeyError`
    where there is none, before anything is sent. `on_trouble` is told what was tried again.
    """

    def __init__(
        self,
        key: str | None = None,
        policy: NetworkPolicy | None = None,
        on_trouble: Callable[[str], None] = log.info,
    ) -> None:
        self.policy = policy or NetworkPolicy.from_environment()
        self._transport = Transport(key, self.policy)
        self.on_trouble = on_trouble

    async def __aenter__(self) -> "FalClient":
        self._http = self._transport.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def submit(
        self,
        endpoint_id: str,
        arguments: dict[str, Any],
        *,
        webhook_url: str | None = None,
        priority: Literal["normal", "low"] | None = None,
        start_timeout: float | None = None,
        store: bool = True,
    ) -> Job:
        """Start a job, which costs money. It is sent once: only a try that fal cannot have taken is repeated.

        `webhook_url`: fal posts the result there. `priority`: None is normal. `start_timeout`: seconds, more than 1,
        by which the job must have started. `store`: whether fal keeps input and output for 30 days; without, the
        result can be had for an hour, or 6 minutes if it is large, and after a lost reply the job cannot be found.

        Cancelling the task has no effect while the request is on its way, so that its reply is not lost.

        Raises `InvalidRequestError`; `FalError` when fal refused or could not be reached, so that there is nothing to
        pay; and `OutcomeUnknownError` when the reply was lost.
        """
        app_of(endpoint_id)
        texts = {name: value for name, value in arguments.items() if isinstance(value, str)}
        refuse_key_in({**texts, "webhook_url": webhook_url or ""}, self._transport.key)
        headers = {"Content-Type": "application/json", **submit_headers(priority, start_timeout, store)}
        url = f"{self.policy.queue_url}/{endpoint_id}{webhook_query(webhook_url)}"
        content = json_of(arguments)
        for attempt in range(1, self.policy.submit_tries + 1):
            is_last = attempt == self.policy.submit_tries
            reply, was_cancelled = await self._post_to_the_end(url, headers, content, may_repeat=not is_last)
            if reply and (is_last or not may_repeat_submission(reply.status)):
                return self._accepted(reply, endpoint_id)
            if was_cancelled:
                break
            pause = reply and retry_after(reply.headers)
            await asyncio.sleep(pause or backoff(attempt, self.policy.backoff, self.policy.backoff_cap))
        raise asyncio.CancelledError

    def job(self, endpoint_id: str, request_id: str) -> Job:
        """A job of before, by its request id. Raises `InvalidRequestError`."""
        return build_job(self.policy.queue_url, endpoint_id, request_id)

    async def status(self, job: Job, *, logs: bool = True) -> Status | None:
        """One look, repeated while it fails. None stands for a state that is not known.

        Raises `JobExpiredError` for a job that fal does not know, and `JobKeptError` when there is no answer to be had.
        """
        reply = await self._read("status", with_logs(job.status_url, logs), job, self.policy.api_timeout)
        if not reply.is_success:
            raise self._read_error(reply, "status", job)
        return parse_status(reply.json())

    async def follow(self, job: Job, *, is_new: bool = False) -> AsyncIterator[Status]:
        """Yield the job's state, with the policy's pauses between, until it is complete.

        A job that `is_new` may be unknown to fal for some seconds. Raises as `status` does, and `JobKeptError` at the
        policy's wait limit.
        """
        start = time.monotonic()
        not_understood = 0
        while True:
            waited = time.monotonic() - start
            try:
                status = await self.status(job)
            except JobExpiredError:
                if not is_new or waited > self.policy.not_found_grace:
                    raise
            except JobKeptError as trouble:
                if not trouble.retryable:
                    raise
                self.on_trouble("Connection trouble: fal does not answer, still trying")
            else:
                if status:
                    yield status
                if isinstance(status, Completed):
                    return
                not_understood = 0 if status else not_understood + 1
                if not_understood == NOT_UNDERSTOOD:
                    raise kept("status", "a state that is not known", job)
            if waited > self.policy.wait_limit:
                minutes = self.policy.wait_limit / 60
                raise JobKeptError(
                    f"fal has not finished the job within {minutes:.0f} minutes. {RUN_AGAIN}{named(job)}",
                    stage="status",
                    request_id=job.request_id,
                )
            await asyncio.sleep(jittered(self.policy.poll_interval(waited)))

    async def result(self, job: Job, *, max_bytes: int | None = None) -> dict[str, Any]:
        """The output of a completed job. Waits while fal says that it is in progress.

        Raises `FalError` when the job failed, `JobExpiredError`, and `JobKeptError` when there is no answer to be had.
        """
        start = time.monotonic()
        while is_in_progress(reply := await self._read_result(job, max_bytes)):
            if time.monotonic() - start > self.policy.wait_limit:
                raise kept("result", "a completed job that is in progress", job)
            await asyncio.sleep(jittered(self.policy.poll_interval(0)))
        if not reply.is_success:
            raise self._read_error(reply, "result", job)
        body = reply.json()
        if not isinstance(body, dict):
            raise kept("result", "a result that is no object", job)
        return body

    async def save(self, result: dict[str, Any], path: Path) -> RemoteVideo:
        """Download the video that a result names to `path`, a new file ending in .mp4, .webm, .mov or .gif.

        Raises `InvalidRequestError`, and `JobKeptError` when the file is refused or cannot be had.
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
            raise JobKeptError(f"The video that fal made is not saved: {reason}.", stage="download") from None

    async def cancel(self, job: Job) -> Cancellation:
        """Ask fal to cancel a job. Raises `FalError` when three tries have failed."""
        for attempt in range(1, CANCEL_TRIES):
            try:
                return await self._cancel_once(job)
            except FalError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(backoff(attempt, self.policy.backoff, self.policy.backoff_cap))
        return await self._cancel_once(job)

    async def price(self, endpoint_id: str) -> Price | None:
        """What fal says that a job costs now, or None where it does not tell."""
        return await read_price(self._transport, self._http, endpoint_id)

    async def requests(self, endpoint_id: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """fal's list of the account's jobs that were sent from `start` to `end`, with their inputs, as fal gives them.

        Raises `FalError` when it is not to be had.
        """
        return await list_requests(self._transport, self._http, endpoint_id, start, end)

    async def _post_to_the_end(
        self, url: str, headers: dict[str, str], content: bytes, may_repeat: bool
    ) -> tuple[Reply | None, bool]:
        """The reply, and whether the task was cancelled meanwhile."""
        is_on_its_way = False

        async def trace(event: str, info: dict[str, Any]) -> None:
            nonlocal is_on_its_way
            is_on_its_way |= event == "http11.send_request_headers.started" and info["request"].method == b"POST"

        post = asyncio.ensure_future(self._post_once(url, headers, content, may_repeat, trace))
        was_cancelled = False
        while not post.done():
            try:
                await asyncio.wait({post})
            except asyncio.CancelledError:
                was_cancelled = True
                if not is_on_its_way:
                    post.cancel()
        if not post.cancelled():
            return post.result(), was_cancelled
        if is_on_its_way:  # the end of asyncio.run cancels all tasks
            raise unknown("the program ended before it came")
        return None, was_cancelled

    async def _post_once(
        self, url: str, headers: dict[str, str], content: bytes, may_repeat: bool, trace: Trace
    ) -> Reply | None:
        """One POST on a connection of its own. None when fal was not reached and that `may_repeat`."""
        async with self._transport.connect(keep_alive=False) as http:
            try:
                return await self._transport.send(
                    http,
                    "POST",
                    url,
                    timeout=self.policy.api_timeout,
                    deadline=self.policy.submit_deadline,
                    headers=headers,
                    content=content,
                    trace=trace,
                )
            except UnreadableReplyError as error:
                raise unknown(f"its reply cannot be read: {error}") from None
            except httpx.TransportError as error:
                if is_certificate_failure(error):
                    raise unreachable(error, "its certificate is not valid; look at the proxy and the clock") from None
                if not proves_nothing_was_sent(error):
                    raise unknown(reason_of(error)) from None
                if not may_repeat:
                    raise unreachable(error, "look at the network connection, and try again") from None
                self.on_trouble(f"fal cannot be reached ({reason_of(error)}), trying again")
                return None

    def _accepted(self, reply: Reply, endpoint_id: str) -> Job:
        """The job that a reply names. Raises `FalError` for a refusal and `OutcomeUnknownError`."""
        if leaves_submission_unknown(reply.status):
            raise unknown(f"the answer is HTTP {reply.status}", reply.status)
        if not reply.is_success:
            raise error_from(
                reply, "submit", "fal did not take the job, so there is nothing to pay", self._transport.key
            )
        body = reply.json_or_none()
        job = job_from(body, self.policy.queue_url, endpoint_id) if isinstance(body, dict) else None
        if not job:
            raise unknown("its reply names no job")
        return job

    async def _read(self, stage: str, url: str, job: Job, timeout: float, max_bytes: int | None = None) -> Reply:
        """GET, repeated while a new try can help. A success is JSON. Raises `JobKeptError` when no try has helped."""
        reason, not_understood = "", 0
        for attempt in range(1, self.policy.read_tries + 1):
            pause = None
            try:
                reply = await self._transport.send(
                    self._http, "GET", url, timeout=timeout, deadline=2 * timeout, max_bytes=max_bytes
                )
                if reply.is_success:
                    reply.json()
                if not may_repeat(reply, stage):
                    return reply
                reason, pause = f"HTTP {reply.status}", retry_after(reply.headers)
            except UnreadableReplyError as error:
                reason, not_understood = str(error), not_understood + 1
                if not_understood == NOT_UNDERSTOOD:
                    raise kept(stage, reason, job) from None
            except httpx.TransportError as error:
                reason = reason_of(error)
                if is_certificate_failure(error):
                    raise kept(stage, "a certificate that is not valid", job) from None
            if attempt == self.policy.read_tries:
                break
            await asyncio.sleep(pause or backoff(attempt, self.policy.backoff, self.policy.backoff_cap))
        raise JobKeptError(
            f"fal does not answer when it is asked for the {stage} ({reason}). {RUN_AGAIN}{named(job)}",
            stage=stage,
            retryable=True,
            request_id=job.request_id,
        )

    async def _read_result(self, job: Job, max_bytes: int | None) -> Reply:
        return await self._read("result", job.response_url, job, self.policy.result_timeout, max_bytes)

    def _read_error(self, reply: Reply, stage: str, job: Job) -> FalError:
        """Why a reply that is no success ends the following of a job, or the job."""
        refusal = error_from(reply, stage, "fal could not make the video", self._transport.key, job.request_id)
        if reply.is_redirect:
            return kept(stage, "a redirect, which is never followed", job)
        if reply.status in (401, 403):
            return JobKeptError(
                "fal does not let this key see the job: check FAL_KEY, and the account's balance at "
                f"https://fal.ai/dashboard/billing. {RUN_AGAIN}{named(job)}",
                stage=stage,
                status=reply.status,
                error_type=refusal.error_type,
                request_id=job.request_id,
            )
        if reply.status == 404:
            return JobExpiredError(
                "fal does not know this job, or has no result of it any more: results are kept for 30 days, or for "
                "minutes where storing was switched off. A job of another account looks the same. To run the same "
                f"again makes a new job, which is to be paid for.{named(job)}",
                stage=stage,
                status=404,
                request_id=job.request_id,
            )
        is_final = stage == "result" and not is_ingress(reply.headers, reply.json_or_none())
        return refusal if is_final else kept(stage, f"HTTP {reply.status}", job)

    async def _cancel_once(self, job: Job) -> Cancellation:
        try:
            reply = await self._transport.send(
                self._http, "PUT", job.cancel_url, timeout=self.policy.connect_timeout, deadline=self.policy.api_timeout
            )
        except (httpx.TransportError, UnreadableReplyError) as error:
            raise FalError(
                f"fal could not be asked to cancel the job ({reason_of(error)}): it may go on and be paid for."
                f"{named(job)}",
                stage="cancel",
                retryable=True,
                request_id=job.request_id,
            ) from None
        if reply.is_success:
            return Cancellation.REQUESTED if reply.status == 202 else Cancellation.REMOVED
        if reply.status in (400, 404):
            return Cancellation.TOO_LATE if reply.status == 400 else Cancellation.GONE
        refusal = error_from(reply, "cancel", "fal did not cancel the job", self._transport.key, job.request_id)
        refusal.retryable = may_repeat_read(reply.status)
        raise refusal


def named(job: Job) -> str:
    return f" Request id: {job.request_id}."


def kept(stage: str, got: str, job: Job) -> JobKeptError:
    return JobKeptError(
        f"fal's answer for the {stage} is not understood: {got}. {RUN_AGAIN}{named(job)}",
        stage=stage,
        request_id=job.request_id,
    )


def unknown(reason: str, status: int | None = None) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"The job was sent to fal and the answer was lost ({reason}): it may be running and be paid for. Look for it "
        "at https://fal.ai/dashboard/requests before you send it again.",
        stage="submit",
        status=status,
    )


def unreachable(error: httpx.TransportError, advice: str) -> FalError:
    return FalError(
        f"fal could not be reached ({reason_of(error)}), so nothing was sent and there is nothing to pay: {advice}.",
        stage="submit",
        retryable=True,
    )


def is_in_progress(reply: Reply) -> bool:
    body = reply.json_or_none() if reply.status == 400 else None
    return isinstance(body, dict) and "in progress" in str(body.get("detail")).lower()


def may_repeat(reply: Reply, stage: str) -> bool:
    """A 5xx that the model itself gave as a result is the job's end."""
    if stage == "result" and reply.status >= 500 and not is_ingress(reply.headers, reply.json_or_none()):
        return False
    return may_repeat_read(reply.status)


def json_of(arguments: dict[str, Any]) -> bytes:
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The input cannot be sent as JSON in UTF-8: {type(error).__name__}.") from None


def submit_headers(priority: str | None, start_timeout: float | None, store: bool) -> dict[str, str]:
    headers = {}
    if priority is not None:
        if priority not in ("normal", "low"):
            raise InvalidRequestError(f"priority is {priority!r}, but must be normal or low.")
        headers["X-Fal-Queue-Priority"] = priority
    if start_timeout is not None:
        if not (math.isfinite(start_timeout) and start_timeout > 1):
            raise InvalidRequestError(f"start_timeout is {start_timeout}, but must be more than 1 second.")
        headers["X-Fal-Request-Start-Timeout"] = headers["X-Fal-Request-Timeout"] = str(float(start_timeout))
    if not store:
        headers["X-Fal-Store-IO"] = "0"
    return headers


def webhook_query(webhook_url: str | None) -> str:
    if not webhook_url:
        return ""
    if not is_plain_https(webhook_url):
        raise InvalidRequestError(f"webhook_url is {webhook_url!r}, but must be https://host/... without a user in it.")
    return f"?{urllib.parse.urlencode({'fal_webhook': webhook_url})}"
