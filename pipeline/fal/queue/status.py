"""The three states of a job, read from replies that may hold anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..redaction import hide, printable_line, redact

MAX_LOG_LINES = 100
ENDED = {"COMPLETED", "FAILED", "ERROR", "CANCELED", "CANCELLED"}
"""Of these, "Inference API reference" has the first alone; schemas of others have the rest."""


@dataclass(frozen=True)
class Queued:
    """The job waits. `position`: the number of jobs ahead, or None if fal does not say."""

    position: int | None


@dataclass(frozen=True)
class InProgress:
    """The job is running. `logs`: the newest lines so far, cleaned for display."""

    logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completed:
    """The job has ended. Only its result tells whether it succeeded."""

    logs: tuple[str, ...] = ()


Status = Queued | InProgress | Completed


def parse_status(body: Any, private: Mapping[str, str] | None = None) -> Status | None:
    """Return the state that a reply's JSON tells, None where it tells none. `private`: see `Reply`.

    A word that is not known stands for a job that still runs.
    """
    if not isinstance(body, dict):
        return None
    status = body.get("status")
    if not isinstance(status, str) or not status:
        return None
    if status.upper() == "IN_QUEUE":
        return Queued(_position(body.get("queue_position")))
    kind = Completed if status.upper() in ENDED else InProgress
    return kind(_logs(body.get("logs"), private or {}))


def _position(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _logs(value: Any, private: Mapping[str, str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    messages = (entry.get("message") if isinstance(entry, dict) else entry for entry in value[-MAX_LOG_LINES:])
    lines = (hide(printable_line(redact(message)), private) for message in messages if isinstance(message, str))
    return tuple(filter(None, lines))
