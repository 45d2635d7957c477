"""Limits for requests: hosts, times and sizes. Only code can set them, no node and no file."""

import os
import re
from dataclasses import dataclass

import httpx

from ...errors import InvalidRequestError

HOST = re.compile(r"[\w.-]+")
RELAY_VARIABLE = "COSMOS_PREDICT25_FAL_RELAY"


@dataclass(frozen=True, kw_only=True)
class NetworkPolicy:
    """Every URL is https. Times are in seconds, sizes in bytes.

    `relay_url`: calls go there with the real URL in `x-fal-target-url` and without a key, which the relay adds.
    `media_hosts`: files go to and come from these and their subdomains, port 443, and nowhere else.
    `price_timeout`: how long a job waits for its price. `submit_deadline`: the longest that one submission may take.
    `wait_limit`: how long a job is followed.
    `poll_intervals`: pairs of the time since the job was followed and the pause between two looks from then on.
    `backoff`, `backoff_cap`: the pause after a failed try is drawn below backoff * 2**n and below the cap.
    `read_tries`: consecutive failures of one read before the trouble is reported. Following goes on after it.
    `gone_patience`: how long fal must say that it has nothing, or that the job failed, until that is believed.
    `media_patience`: the same for the address of a file. `reconcile_pauses`: before each look for a lost job.
    `look_time`: the longest that the look for a job with the same input may take before one is sent.
    `listed_within`: how long after a lost reply fal's list is sure to show the job, if there is one.
    `cancel_wait`: how long the outcome of a cancelled job is awaited.
    """

    queue_url: str = "https://queue.fal.run"
    platform_url: str = "https://api.fal.ai/v1"
    storage_url: str = "https://rest.fal.ai"
    relay_url: str | None = None
    media_hosts: tuple[str, ...] = ("fal.media",)

    connect_timeout: float = 10
    price_timeout: float = 5
    api_timeout: float = 60
    result_timeout: float = 120
    submit_deadline: float = 120
    wait_limit: float = 3600
    poll_intervals: tuple[tuple[float, float], ...] = ((0, 1.0), (10, 2.0), (60, 5.0))
    backoff: float = 0.5
    backoff_cap: float = 20
    submit_tries: int = 5
    read_tries: int = 8
    gone_patience: float = 60
    media_patience: float = 180
    reconcile_pauses: tuple[float, ...] = (0, 3, 10)
    look_time: float = 10
    listed_within: float = 600
    cancel_wait: float = 30

    max_reply: int = 16 * 2**20
    max_media: int = 512 * 2**20
    media_deadline: float = 900

    def __post_init__(self) -> None:
        for name in ("queue_url", "platform_url", "storage_url", "relay_url"):
            url = getattr(self, name)
            if url is not None and not is_plain_https(url):
                raise InvalidRequestError(f"{name} must be https://host/..., without a user or a password in it.")

    @classmethod
    def from_environment(cls) -> "NetworkPolicy":
        """Return the strict policy, through the relay that COSMOS_PREDICT25_FAL_RELAY names, if it is set."""
        relay_url = os.environ.get(RELAY_VARIABLE) or None
        if relay_url and not is_plain_https(relay_url):
            raise InvalidRequestError(f"{RELAY_VARIABLE} must be https://host/..., without a user or a password in it.")
        return cls(relay_url=relay_url)

    def poll_interval(self, waited: float) -> float:
        """Return the pause before the next look at a job that has been followed for `waited` seconds."""
        return next(pause for start, pause in reversed(self.poll_intervals) if waited >= start)

    def timeout(self, read: float) -> httpx.Timeout:
        return httpx.Timeout(connect=self.connect_timeout, read=read, write=60, pool=10)


def is_plain_https(url: str) -> bool:
    """Return whether a URL is https with a host, and without a user or a password."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False
    return parts.scheme == "https" and HOST.fullmatch(parts.host) is not None and not parts.userinfo
