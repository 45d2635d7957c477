"""The three states of a job, read from replies that may hold anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..redaction import hide, printable_line, redact

MAX_LOG_LINES = 100
FAILED = {"FAILED", "ERROR", "CANCELED", "CANCELLED"}
"""No reference of fal has these, but schemas of others do: "Inference API reference" has the three that end in none."""


@dataclass(frozen=True)
class Queued:
    """`position`: the number of jobs ahead, None where fal does not say."""

    position: int | None


@dataclass(frozen=True)
class InProgress:
    """`logs`: the newest lines so far, cleaned for display."""

    logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completed:
    """The end, good or bad: only the result tells."""

    logs: tuple[str, ...] = ()


Status = Queued | InProgress | Completed


def parse_status(body: Any, private: Mapping[str, str] | None = None) -> Status | None:
    """Return the state that a reply's JSON tells, None where it tells none that is known. `private`: see `Reply`."""
    if not isinstance(body, dict):
        return None
    status = body.get("status")
    if status == "IN_QUEUE":
        return Queued(_position(body.get("queue_position")))
    if status == "IN_PROGRESS":
        return InProgress(_logs(body.get("logs"), private or {}))
    if status == "COMPLETED" or (isinstance(status, str) and status in FAILED):
        return Completed(_logs(body.get("logs"), private or {}))
    return None


def _position(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _logs(value: Any, private: Mapping[str, str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    messages = (entry.get("message") if isinstance(entry, dict) else entry for entry in value[-MAX_LOG_LINES:])
    lines = (hide(printable_line(redact(message)), private) for message in messages if isinstance(message, str))
    return tuple(filter(None, lines))
