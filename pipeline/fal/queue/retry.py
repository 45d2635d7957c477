"""Pauses between tries, and what an error of httpx proves."""

import email.utils
import random
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone

import httpx

NEVER_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
MAX_RETRY_AFTER = 120.0


def is_certificate_failure(error: BaseException | None) -> bool:
    """Return whether the server could not prove that it is the one that was asked for. No repetition changes that."""
    while error:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def proves_nothing_was_sent(error: Exception) -> bool:
    """Return whether no byte of the request can have reached fal. A failed write or read proves nothing."""
    return isinstance(error, NEVER_CONNECTED)


def retry_after(headers: Mapping[str, str], longest: float = MAX_RETRY_AFTER) -> float | None:
    """Return the seconds that the server asks to wait, from 1 to `longest`, None where there are none to read."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(email.utils.parsedate_to_datetime(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 1.0), longest)


def backoff(failures: int, base: float, cap: float) -> float:
    """Return the seconds to wait after failures in a row, drawn from 0 to base * 2**failures, at most `cap`."""
    return random.uniform(0, min(cap, base * 2 ** min(failures, 32)))


def jittered(seconds: float) -> float:
    """Return from four fifths to six fifths of `seconds`."""
    return seconds * random.uniform(0.8, 1.2)


def says_retryable(headers: Mapping[str, str]) -> bool | None:
    """Return what fal's headers say about a new try of a failed job, None where they are silent.

    Both are of fal's documentation: `x-fal-retryable` in "Retries", `x-fal-needs-retry` in "Platform headers".
    """
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
