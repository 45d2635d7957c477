"""A reply of fal, read with a limit, and the error that it tells."""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import httpx

from ...errors import FalError
from ..key import FalKey
from ..redaction import MAX_REDACTED, hide, printable_line, redact, without_key
from .retry import says_retryable

MAX_ERROR_BODY = 64 * 1024
CONTENT_POLICY = "content_policy_violation"
SAME_INPUT_SAME_ERROR = re.compile(
    "(greater|less)_than(_equal)?|multiple_of|one_of|sequence_too_(short|long)|feature_not_supported|missing|"
    "literal_error"
)
DOCUMENTED_STATUSES = (400, 500, 502, 503, 504)
"""Of the errors of "Model errors" and "Request errors" in fal's documentation, but for 422 and 499."""
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
class NoReply:
    """Why there is no reply that can be read; `kind` is the name of an `Answer`."""

    kind: Literal["NOT_SENT", "BAD_CERTIFICATE", "LOST", "UNREADABLE"]
    reason: str


@dataclass(frozen=True)
class Reply:
    """What fal said. Neither its headers nor its JSON hold anything of `key`.

    `private`: texts of the input, by name, which fal may repeat and nobody is shown.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    key: FalKey | None = field(default=None, repr=False)
    private: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status < 400

    @property
    def reason(self) -> str:
        """What is wrong with it, in a few words."""
        if self.is_success:
            return self.unreadable
        if self.is_redirect:
            return "a redirect, which is never followed"
        return "a completed job that is in progress" if self.is_in_progress else f"HTTP {self.status}"

    @property
    def is_in_progress(self) -> bool:
        return self.status == 400 and self.says("detail", "in progress")

    @property
    def json(self) -> Any:
        """The value of its JSON, None where it has none."""
        return self._parsed[0]

    @property
    def unreadable(self) -> str:
        """Why it has no JSON, empty where it has."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[Any, str]:
        try:
            return without_key(json.loads(self.body), self.key), ""
        except (ValueError, RecursionError):
            return None, f"it is no JSON but {printable_line(self.headers.get('content-type', 'something else'), 60)}"

    @property
    def error_body(self) -> dict[str, Any]:
        """The JSON object of an error, empty where it is none or too large."""
        return self.json if len(self.body) <= MAX_ERROR_BODY and isinstance(self.json, dict) else {}

    @cached_property
    def details(self) -> list[dict[str, Any]]:
        """The items of an error of the model ("Model errors")."""
        detail = self.error_body.get("detail")
        return [item for item in detail if isinstance(item, dict)][:10] if isinstance(detail, list) else []

    @cached_property
    def error_type(self) -> str | None:
        """fal's name of the error: in a header, beside the text, or in the first detail."""
        platform = self.error_body.get("error")
        candidates = [
            self.headers.get("x-fal-error-type"),
            self.error_body.get("error_type"),
            *(detail.get("type") for detail in self.details),
            platform.get("type") if isinstance(platform, dict) else None,
        ]
        return next((text for text in candidates if isinstance(text, str) and text), None)

    @property
    def is_documented_error(self) -> bool:
        """Whether it is of a form in which fal documents that a job has failed."""
        has_text = isinstance(self.error_body.get("detail"), str) or any("msg" in detail for detail in self.details)
        return self.status in DOCUMENTED_STATUSES and has_text and self.error_type is not None

    @property
    def is_fals_own(self) -> bool:
        """Whether fal said it, and not something on the way.

        A gateway has no `x-fal-request-id` (fal_client's `client.py` tells the two apart by that header).
        """
        has_form = (
            self.is_documented_error
            or self.says("status", "NOT_FOUND")
            or bool(self.status == 422 and self.details and self.error_type)
        )
        return "x-fal-request-id" in self.headers or has_form

    def shown(self, text: str, length: int) -> str:
        """Return a text of this reply as one line for a screen or a log."""
        return hide(printable_line(redact(text), MAX_REDACTED), self.private)[:length]

    def says(self, name: str, text: str) -> bool:
        """Whether the JSON has `text` in its member `name`."""
        value = self.error_body.get(name)
        return isinstance(value, str) and text.lower() in value.lower()


async def read_limited(response: httpx.Response, limit: int, key: FalKey | None, private: Mapping[str, str]) -> Reply:
    """Raises `UnreadableReplyError` for a body of more than `limit` bytes, or an encoded one, which may be a bomb."""
    headers = httpx.Headers({name: without_key(value, key) for name, value in response.headers.items()})
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnreadableReplyError(
            f"it is encoded as {printable_line(headers['content-encoding'], 20)}, which was not asked for"
        )
    body = bytearray()
    async with raw_chunks(response) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                raise UnreadableReplyError(f"it has more than {limit} bytes")
    return Reply(response.status_code, headers, bytes(body), key, private)


def raw_chunks(response: httpx.Response) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
    """The body as it comes. What is left to the garbage collector would be closed in a task of its own."""
    return aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw()))


def error_from(reply: Reply, stage: str, what: str, request_id: str | None = None) -> FalError:
    """The error that a refusal or a failure tells, in any of fal's forms. `what` begins the message."""
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
        fields=fields,
        retryable=retryable,
        request_id=request_id,
    )


def message_of(reply: Reply) -> str:
    """fal's own words in an error, in one line without a full stop."""
    return reply.shown(_message(reply), 500).rstrip(".")


def _field(detail: dict[str, Any]) -> str:
    """The request field that a detail is about, without `body`, which all of them begin with."""
    location = detail.get("loc")
    parts = location if isinstance(location, list) else []
    return ".".join(str(part) for part in parts[:5] if part != "body")


def _message(reply: Reply) -> str:
    """Not the details' `input`, which may be the whole prompt."""
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
    return "it gave no reason that can be read"


def _advice_on_retry(retryable: bool | None) -> str:
    if retryable is None:
        return "Whether a new try can help, fal does not say."
    return "A new try is likely to help." if retryable else "A new try with the same values will not help."
