"""What may be repeated, as pure predicates. A submission is repeated only when fal cannot have taken it."""

import email.utils
import random
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone

import httpx

NEVER_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
RETRY_AFTER_LIMITS = (1.0, 120.0)


def is_certificate_failure(error: BaseException | None) -> bool:
    """Whether the server could not prove that it is the one that was asked for. No repetition changes that."""
    while error:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def proves_nothing_was_sent(error: httpx.TransportError) -> bool:
    """Whether no byte of the request can have reached fal. A failed write or read proves nothing."""
    return isinstance(error, NEVER_CONNECTED)


def may_repeat_submission(status: int) -> bool:
    """Only after a plain refusal."""
    return status == 429


def leaves_submission_unknown(status: int) -> bool:
    """Whether something on the way may have answered for a job that it had already passed on."""
    return status == 408 or status >= 500 or 300 <= status < 400


def may_repeat_read(status: int) -> bool:
    """For status and cancellation, which cost nothing."""
    return status in (408, 409, 425, 429) or status >= 500


def is_ingress(headers: Mapping[str, str], body: object) -> bool:
    """Whether an error came from a gateway on the way and not from the model: then the result may still be had."""
    return "x-fal-request-id" not in headers and not (isinstance(body, dict) and "detail" in body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from 1 to 120, or None where it does not or they cannot be read."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(email.utils.parsedate_to_datetime(value))
    except (TypeError, ValueError, OverflowError):
        return None
    low, high = RETRY_AFTER_LIMITS
    return min(max(seconds, low), high)


def backoff(failures: int, base: float, cap: float) -> float:
    """Seconds to wait after `failures` failures in a row: drawn from 0 to base * 2**failures, at most `cap`."""
    return random.uniform(0, min(cap, base * 2 ** min(failures, 32)))


def jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)


def says_retryable(headers: Mapping[str, str]) -> bool | None:
    """What fal's headers say about a new try of a failed job, None where they are silent."""
    for name in ("x-fal-retryable", "x-fal-needs-retry"):
        value = headers.get(name, "").strip().lower()
        if value in ("1", "true", "yes"):
            return True
        if value in ("0", "false", "no"):
            return False
    return None


def _seconds_until(moment: datetime) -> float:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return (aware - datetime.now(timezone.utc)).total_seconds()
