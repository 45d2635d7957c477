"""A job that fal has accepted, and its URLs."""

import enum
import itertools
import logging
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

import httpx

from ...errors import InvalidRequestError
from ..endpoints import app_of

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")

log = logging.getLogger("cosmos_predict25.fal")


@dataclass(frozen=True)
class Job:
    """A job at fal. `request_id`: fal's name of the job, by which it can be found again."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


class Cancellation(enum.Enum):
    """fal's answer to a cancellation."""

    REMOVED = "removed from the queue before it started"
    REQUESTED = "asked to stop; it may still finish and be charged"
    TOO_LATE = "already completed"
    GONE = "unknown to fal"


def build_job(queue_url: str, endpoint_id: str, request_id: str) -> Job:
    """Return the job of a request id. Raises `InvalidRequestError`.

    The URLs leave out what follows owner/app in the endpoint's id ("Inference API reference"; fal_client's
    `client.py` builds them so).
    """
    if not is_request_id(request_id):
        raise InvalidRequestError(
            f"{request_id!r} is not a fal request id: it must be 8 to 128 letters, digits, - or _."
        )
    url = f"{queue_url}/{app_of(endpoint_id)}/requests/{request_id}"
    return Job(request_id, f"{url}/status", url, f"{url}/cancel")


def job_from(body: Any, queue_url: str, endpoint_id: str) -> Job | None:
    """Return the job that a reply to a submission names, or None.

    URLs that are not the queue's own are built instead.
    """
    request_id = body.get("request_id") if isinstance(body, dict) else None
    if not is_request_id(request_id):
        return None
    built = build_job(queue_url, endpoint_id, request_id)
    urls = {}
    for name in ("status_url", "response_url", "cancel_url"):
        given = body.get(name)
        usable = is_url_of(given, request_id, queue_url)
        if given is not None and not usable:
            log.warning("fal's %s for job %s is not one of its queue: it is not used.", name, request_id)
        urls[name] = given if usable else getattr(built, name)
    return Job(request_id, **urls)


def is_request_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and REQUEST_ID.fullmatch(value) is not None


def is_url_of(url: Any, request_id: str, queue_url: str) -> bool:
    """Return whether the key may be sent to a URL from a reply: it has the queue's origin, and this job in its path."""
    try:
        given, base = httpx.URL(url), httpx.URL(queue_url)
    except (TypeError, httpx.InvalidURL):
        return False
    same_origin = (given.scheme, given.host, given.port) == (base.scheme, base.host, base.port)
    segments = given.path.split("/")
    names_job = ("requests", request_id) in itertools.pairwise(segments)
    return same_origin and not given.userinfo and not given.fragment and names_job and ".." not in segments


def with_logs(url: str, logs: bool) -> str:
    return str(httpx.URL(url).copy_set_param("logs", "1" if logs else "0"))
