"""What a person reads when fal refuses, fails or does not answer."""

import re
from typing import Any

from ...errors import FalError, JobExpiredError, JobKeptError, OutcomeUnknownError
from .job import Job
from .reply import Reply, TransportFailure
from .retry import says_retryable
from .verdict import TROUBLE, Answer, Stage, Verdict

CONTENT_POLICY = "content_policy_violation"
SAME_INPUT_SAME_ERROR = re.compile(
    "(greater|less)_than(_equal)?|multiple_of|one_of|sequence_too_(short|long)|feature_not_supported|missing|"
    "literal_error"
)
LASTING = re.compile("content_policy_violation|image_.*|face_detection_error|unsupported_.*|file_.*|invalid_archive")
"""Types of errors that the same input meets again, unless fal says that a new try can help ("Model errors")."""
ADVICE = {
    CONTENT_POLICY: "The same prompt will be refused again: change what it asks for.",
    "concurrent_requests_limit": "Too many jobs of this account run at once: try again later.",
}
ADVICE_BY_STATUS = {
    401: "Check FAL_KEY: make a new key at https://fal.ai/dashboard/keys if it was deleted.",
    403: "Look at the balance and the locks of the account at https://fal.ai/dashboard/billing.",
    404: "The endpoint no longer exists: look for a newer version of this pack.",
    429: "fal is busy: try again later.",
}
RUN_AGAIN = "The job is not lost: run the same again to resume it, at no further charge."


class JobCancelledError(FalError):
    """The job was ended by a cancellation that was asked for: there is no video and nothing more to wait for."""


def error_from(reply: Reply, stage: str, what: str, request_id: str | None = None) -> FalError:
    """Return the error that a refusal or a failure tells, in any of fal's forms. `what` begins the message."""
    error_type = reply.error_type and reply.shown(reply.error_type, 60)
    fields = tuple(reply.shown(field, 60) for field in filter(None, map(_field, reply.details)))
    said = message_of(reply)
    retryable = says_retryable(reply.headers)
    if error_type == CONTENT_POLICY or (retryable is None and SAME_INPUT_SAME_ERROR.fullmatch(error_type or "")):
        retryable = False
    advice = (
        ADVICE.get(error_type or "") or ADVICE_BY_STATUS.get(reply.status) if stage in ("submit", "upload") else None
    )
    advice = advice or ADVICE.get(error_type or "") or _advice_on_retry(retryable)
    about = f" ({', '.join(fields)})" if fields else ""
    return FalError(
        f"{what}{about}: {said} (HTTP {reply.status}{f', {error_type}' if error_type else ''}). {advice}",
        stage=stage,
        status=reply.status,
        error_type=error_type,
        retryable=retryable,
        request_id=request_id,
    )


def is_lasting(error: FalError) -> bool:
    """Return whether the same input will be refused again."""
    named = LASTING.fullmatch(error.error_type or "") is not None
    return (
        error.stage == "result" and error.status == 422 and (error.retryable is False or named) and not error.retryable
    )


def message_of(reply: Reply) -> str:
    """Return fal's own words in an error, in one line without a full stop."""
    return reply.shown(_message(reply), 500).rstrip(".")


def _field(detail: dict[str, Any]) -> str:
    """Return the request field that a detail is about, without `body`, which all of them begin with."""
    location = detail.get("loc")
    parts = location if isinstance(location, list) else []
    return ".".join(str(part) for part in parts[:5] if part != "body")


def _message(reply: Reply) -> str:
    """Return the reason in an error. The details' `input` may be the whole prompt, and is left out."""
    if reply.is_redirect:
        return "it redirects elsewhere, which is never followed"
    messages = [message for detail in reply.details if isinstance(message := detail.get("msg"), str)]
    if messages:
        return "; ".join(messages)
    platform = reply.error_body.get("error")
    named = platform.get("message") if isinstance(platform, dict) else platform
    for text in (reply.error_body.get("detail"), named, reply.error_body.get("status")):
        if isinstance(text, str) and text:
            return text
    return "it gave no readable reason"


def _advice_on_retry(retryable: bool | None) -> str:
    if retryable is None:
        return "fal does not say whether a retry can help."
    return "A retry is likely to help." if retryable else "A retry with the same values will not help."


def not_cancelled(reply: Reply | TransportFailure, answer: Answer, job: Job) -> FalError:
    """Return the error of a cancellation that fal did not confirm."""
    if isinstance(reply, Reply):
        error = error_from(reply, "cancel", "fal did not cancel the job", job.request_id)
    else:
        text = f"fal could not be asked to cancel the job ({reply.reason}): it may continue and be charged."
        error = FalError(text, stage="cancel", request_id=job.request_id)
    error.retryable = answer in (*TROUBLE, Answer.UNREADABLE)
    return error


def read_error(stage: Stage, answer: Answer, verdict: Verdict, reply: Reply | TransportFailure, job: Job) -> FalError:
    """Return why the following of a job, or the job itself, is over."""
    if verdict is Verdict.EXPIRED:
        return gone(stage, answer, job)
    if verdict is Verdict.CANCELLED:
        return JobCancelledError("fal has cancelled the job.", stage=stage.value, request_id=job.request_id)
    if verdict is Verdict.FAILED and isinstance(reply, Reply):
        return error_from(reply, stage.value, "fal could not make the video", job.request_id)
    if answer is Answer.NOT_ALLOWED and isinstance(reply, Reply):
        where = "https://fal.ai/dashboard/billing"
        text = f"fal does not let this key see the job: check FAL_KEY, and the account's balance at {where}"
        return kept(stage, text, job, status=reply.status)
    if answer not in TROUBLE:
        return not_understood(stage, reply.reason, job)
    if isinstance(reply, Reply) and reply.is_fals_own:
        text = f"fal gives an error when it is asked for the {stage.value}: {message_of(reply)} (HTTP {reply.status})"
        return kept(stage, text, job, retryable=True, status=reply.status)
    text = f"fal does not answer when it is asked for the {stage.value} ({reply.reason})"
    return kept(stage, text, job, retryable=True)


def gone(stage: Stage, answer: Answer, job: Job) -> JobExpiredError:
    """Return the error of a job that fal has denied to know for as long as the policy waits."""
    status, text = 499, "fal says that the job was cancelled, though not from here."
    if answer is Answer.NOT_FOUND:
        status, text = (
            404,
            (
                "fal does not know this job, or no longer has its result: results are kept for 30 days, or for minutes "
                "if storing was switched off. A job of another account looks the same: check FAL_KEY."
            ),
        )
    text = f"{text} Look for it at https://fal.ai/dashboard/requests."
    return JobExpiredError(text, stage=stage.value, status=status, request_id=job.request_id)


def not_understood(stage: Stage, got: str, job: Job) -> JobKeptError:
    return kept(stage, f"fal's reply for the {stage.value} is not understood: {got}", job)


def kept(stage: Stage, text: str, job: Job, **facts: Any) -> JobKeptError:
    return JobKeptError(f"{text}. {RUN_AGAIN}", stage=stage.value, request_id=job.request_id, **facts)


def outcome_unknown(reason: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"The job was sent to fal, but the reply was lost ({reason}): it may be running and may be charged. Look for "
        "it at https://fal.ai/dashboard/requests before you send it again.",
        stage="submit",
    )


def unreachable(reply: TransportFailure) -> FalError:
    is_bad = reply.kind == "BAD_CERTIFICATE"
    bad = "set SSL_CERT_FILE to the file with your network's certificate, or look at the proxy and the clock"
    advice = bad if is_bad else "look at the network connection, and try again"
    text = f"fal could not be reached ({reply.reason}), so nothing was sent and there is no charge: {advice}."
    return FalError(text, stage="submit", retryable=True)
