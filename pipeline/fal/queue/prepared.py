"""The request that starts a job, checked as far as can be before it is sent."""

import json
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidRequestError
from .policy import is_plain_https

DO_NOT_STORE = {"X-Fal-Store-IO": "0"}
"""The header of "Platform headers" with which fal keeps neither input nor output."""


@dataclass(frozen=True)
class PreparedRequest:
    """A POST that starts a job, without the key."""

    endpoint_id: str
    url: str
    headers: dict[str, str] = field(repr=False)
    content: bytes = field(repr=False)


def json_of(arguments: dict[str, Any]) -> bytes:
    """Return the arguments as JSON in UTF-8. Raises `InvalidRequestError`."""
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The input cannot be sent as JSON in UTF-8: {type(error).__name__}.") from None


def webhook_query(webhook_url: str | None) -> str:
    """Return the query `fal_webhook`, see "Webhooks". Raises `InvalidRequestError`."""
    if not webhook_url:
        return ""
    try:
        query = f"?{urllib.parse.urlencode({'fal_webhook': webhook_url})}"
    except (UnicodeError, TypeError):
        query = ""
    if not query or not is_plain_https(webhook_url):
        raise InvalidRequestError(
            f"webhook_url is {webhook_url[:200]!a}, but must be https://host/... without a user in it."
        )
    return query
