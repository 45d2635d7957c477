"""A reply of fal, read with a limit."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import httpx

from ..key import FalKey
from ..redaction import MAX_REDACTED, hide, printable_line, redact, without_key

MAX_ERROR_BODY = 64 * 1024
DOCUMENTED_STATUSES = (400, 500, 502, 503, 504)
"""Of the errors of "Model errors" and "Request errors" in fal's documentation, but for 422 and 499."""


class UnreadableReplyError(Exception):
    """A reply that cannot be read: too large, cut short, or not what it says it is."""


@dataclass(frozen=True)
class TransportFailure:
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
        """Return the problem with it, in a few words."""
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
        """Return the value of its JSON, None where it has none."""
        return self._parsed[0]

    @property
    def unreadable(self) -> str:
        """Return why it has no JSON, empty where it has."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[Any, str]:
        try:
            return without_key(json.loads(self.body), self.key), ""
        except (ValueError, RecursionError):
            return None, f"it is not JSON but {printable_line(self.headers.get('content-type', 'something else'), 60)}"

    @property
    def error_body(self) -> dict[str, Any]:
        """Return the JSON object of an error, empty where it is none or too large."""
        return self.json if len(self.body) <= MAX_ERROR_BODY and isinstance(self.json, dict) else {}

    @cached_property
    def details(self) -> list[dict[str, Any]]:
        """Return the items of an error of the model ("Model errors")."""
        detail = self.error_body.get("detail")
        return [item for item in detail if isinstance(item, dict)][:10] if isinstance(detail, list) else []

    @cached_property
    def error_type(self) -> str | None:
        """Return fal's name of the error: in a header, beside the text, or in the first detail."""
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
        """Return whether it is of a form in which fal documents that a job has failed."""
        has_text = isinstance(self.error_body.get("detail"), str) or any("msg" in detail for detail in self.details)
        return self.status in DOCUMENTED_STATUSES and has_text and self.error_type is not None

    @property
    def is_fals_own(self) -> bool:
        """Return whether fal said it, and not something on the way.

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
        """Return whether the JSON has `text` in its member `name`."""
        value = self.error_body.get(name)
        return isinstance(value, str) and text.lower() in value.lower()


async def read_limited(response: httpx.Response, limit: int, key: FalKey | None, private: Mapping[str, str]) -> Reply:
    """Read a reply. Raises `UnreadableReplyError` for more than `limit` bytes, or an encoded body: it may be a bomb."""
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
    """Yield the body as it comes. What is left to the garbage collector would be closed in a task of its own."""
    return aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw()))
