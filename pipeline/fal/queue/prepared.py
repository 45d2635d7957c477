"""The request that starts a job, checked as far as can be before it is sent."""

import json
import math
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidRequestError
from .policy import is_plain_https


@dataclass(frozen=True)
class PreparedRequest:
    """A POST that starts a job, without the key."""

    endpoint_id: str
    url: str
    headers: dict[str, str] = field(repr=False)
    content: bytes = field(repr=False)


def json_of(arguments: dict[str, Any]) -> bytes:
    """Raises `InvalidRequestError`."""
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The input cannot be sent as JSON in UTF-8: {type(error).__name__}.") from None


def submit_headers(priority: str | None, start_timeout: float | None, store: bool) -> dict[str, str]:
    """The headers of the options ("Platform headers"; fal_client's `client.py` has the older name of the timeout).

    Raises `InvalidRequestError`.
    """
    headers = {}
    if priority is not None:
        if priority not in ("normal", "low"):
            raise InvalidRequestError(f"priority is {priority!r}, but must be normal or low.")
        headers["X-Fal-Queue-Priority"] = priority
    if start_timeout is not None:
        if not (isinstance(start_timeout, int | float) and math.isfinite(start_timeout) and start_timeout > 1):
            raise InvalidRequestError(f"start_timeout is {start_timeout!r}, but must be more than 1 second.")
        headers["X-Fal-Request-Start-Timeout"] = headers["X-Fal-Request-Timeout"] = str(float(start_timeout))
    if not store:
        headers["X-Fal-Store-IO"] = "0"
    return headers


def webhook_query(webhook_url: str | None) -> str:
    """`fal_webhook`, see "Webhooks". Raises `InvalidRequestError`."""
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
