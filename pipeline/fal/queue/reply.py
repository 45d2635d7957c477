"""A reply of fal, read with a limit, and the error that it tells."""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpx

from ...errors import FalError
from ..key import FalKey
from ..redaction import printable_line, redact
from .retry import says_retryable

MAX_ERROR_BODY = 64 * 1024
CONTENT_POLICY = "content_policy_violation"
SAME_INPUT_SAME_ERROR = {
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "multiple_of",
    "one_of",
    "sequence_too_short",
    "sequence_too_long",
    "feature_not_supported",
    "missing",
    "literal_error",
}
ADVICE = {
    CONTENT_POLICY: "The same prompt will be refused again: change what it asks for.",
    "concurrent_requests_limit": "Too many jobs of this account run at once: try again later.",
}
ADVICE_BY_STATUS = {
    401: "Check FAL_KEY: make a new key at https://fal.ai/dashboard/keys if it was deleted.",
    403: "Look at the balance and the locks of the account at https://fal.ai/dashboard/billing.",
    404: "The endpoint is not there any more: look for a newer version of this pack.",
    429: "fal is busy: try again later.",
}


class UnreadableReplyError(Exception):
    """A reply that cannot be read: too large, cut short, or not what it says it is."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status < 400

    def json(self) -> Any:
        """Raises `UnreadableReplyError`."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            kind = printable_line(self.headers.get("content-type", "something else"), 60)
            raise UnreadableReplyError(f"it is no JSON but {kind}") from error

    def json_or_none(self) -> Any:
        try:
            return self.json()
        except UnreadableReplyError:
            return None


async def read_limited(response: httpx.Response, limit: int) -> Reply:
    """Raises `UnreadableReplyError` for a body of more than `limit` bytes, or an encoded one, which may be a bomb."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnreadableReplyError(
            f"it is encoded as {printable_line(response.headers['content-encoding'], 20)}, which was not asked for"
        )
    body = bytearray()
    async with raw_chunks(response) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                raise UnreadableReplyError(f"it has more than {limit} bytes")
    return Reply(response.status_code, response.headers, bytes(body))


def raw_chunks(response: httpx.Response) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
    """The body as it comes. What is left to the garbage collector would be closed in a task of its own."""
    return aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw()))


def error_from(reply: Reply, stage: str, what: str, key: FalKey | None, request_id: str | None = None) -> FalError:
    """The error that a refusal or a failure tells, in any of fal's forms. `what` begins the message."""
    body = reply.json_or_none() if len(reply.body) <= MAX_ERROR_BODY else None
    details = _details(body)
    error_type = _error_type(reply, body, details)
    error_type = error_type and printable_line(redact(error_type, key), 60)
    fields = tuple(printable_line(redact(field, key), 60) for field in filter(None, map(_field, details)))
    said = printable_line(redact(_message(reply, body, details), key), 500)
    retryable = says_retryable(reply.headers)
    if error_type == CONTENT_POLICY or (retryable is None and error_type in SAME_INPUT_SAME_ERROR):
        retryable = False
    advice = ADVICE.get(error_type or "") or ADVICE_BY_STATUS.get(reply.status) if stage == "submit" else None
    advice = advice or ADVICE.get(error_type or "") or _advice_on_retry(retryable)
    about = f" ({', '.join(fields)})" if fields else ""
    job = f" Request id: {request_id}." if request_id else ""
    return FalError(
        f"{what}{about}: {said.rstrip('.')} (HTTP {reply.status}{f', {error_type}' if error_type else ''}). "
        f"{advice}{job}",
        stage=stage,
        status=reply.status,
        error_type=error_type,
        fields=fields,
        retryable=retryable,
        request_id=request_id,
    )


def _details(body: Any) -> list[dict[str, Any]]:
    detail = body.get("detail") if isinstance(body, dict) else None
    return [item for item in detail if isinstance(item, dict)][:10] if isinstance(detail, list) else []


def _field(detail: dict[str, Any]) -> str:
    """The request field that a detail is about, without `body`, which all of them begin with."""
    location = detail.get("loc")
    parts = location if isinstance(location, list) else []
    return ".".join(str(part) for part in parts[:5] if part != "body")


def _error_type(reply: Reply, body: Any, details: list[dict[str, Any]]) -> str | None:
    platform = body.get("error") if isinstance(body, dict) else None
    candidates = [
        reply.headers.get("x-fal-error-type"),
        body.get("error_type") if isinstance(body, dict) else None,
        *(detail.get("type") for detail in details),
        platform.get("type") if isinstance(platform, dict) else None,
    ]
    return next((text for text in candidates if isinstance(text, str) and text), None)


def _message(reply: Reply, body: Any, details: list[dict[str, Any]]) -> str:
    """Not the details' `input`, which may be the whole prompt."""
    if reply.is_redirect:
        return "it redirects elsewhere, which is never followed"
    messages = [message for detail in details if isinstance(message := detail.get("msg"), str)]
    if messages:
        return "; ".join(messages)
    if isinstance(body, dict):
        platform = body.get("error")
        named = platform.get("message") if isinstance(platform, dict) else platform
        for text in (body.get("detail"), named, body.get("status")):
            if isinstance(text, str) and text:
                return text
    return "it gave no reason that can be read"


def _advice_on_retry(retryable: bool | None) -> str:
    if retryable is None:
        return "Whether a new try can help, fal does not say."
    return "A new try is likely to help." if retryable else "A new try with the same values will not help."
