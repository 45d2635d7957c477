"""What is wanted from fal, under a name that is the same whenever the same is wanted."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats import VideoFormat, find_format
from ..request import GenerationRequest
from .endpoints import Endpoint, arguments, sha256_of
from .journal import Journal, Record


@dataclass(frozen=True)
class Submission:
    """One wanted video.

    `sent`: the JSON object for fal. `fingerprint`: a hash of endpoint and JSON. `target`: the finished file, which is
    named after what was asked for.
    """

    endpoint: Endpoint
    sent: dict[str, Any]
    format: VideoFormat
    fingerprint: str
    request_sha256: str
    target: Path

    @property
    def seed(self) -> int:
        return self.sent["seed"]

    def new_record(self) -> Record:
        """Of a video for which nothing has been sent."""
        return Record(
            fingerprint=self.fingerprint,
            endpoint=self.endpoint.id,
            input_sha256=sha256_of(self.sent),
            request_sha256=self.request_sha256,
            input_keys=sorted(self.sent),
            seed=self.seed,
        )


def make_submission(request: GenerationRequest, endpoint: Endpoint, journal: Journal, folder: Path) -> Submission:
    """The submission of a request: without a seed in it, with that of its unfinished job, or a new one.

    Raises `InvalidRequestError`.
    """
    wanted = arguments(endpoint, request)
    request_sha256 = sha256_of(wanted)
    seed = request.seed
    if seed is None:
        seed = seed_of_unfinished(journal, endpoint.id, request_sha256)
    if seed is None:
        seed = request.seed_or_random()
    sent = {**wanted, "seed": seed}
    fingerprint = hashlib.sha256(f"{endpoint.id}\n{sha256_of(sent)}".encode()).hexdigest()[:32]
    format = find_format(request.video_output_type)
    target = folder / f"cosmos_{seed}_{fingerprint[:12]}{format.suffix}"
    return Submission(endpoint, sent, format, fingerprint, request_sha256, target)


def seed_of_unfinished(journal: Journal, endpoint_id: str, request_sha256: str) -> int | None:
    """The seed that was drawn for the same request, where a run that is over left its job unfinished."""
    for record in journal.unfinished():
        same = (record.endpoint, record.request_sha256) == (endpoint_id, request_sha256)
        if same and not journal.is_claimed(record.fingerprint):
            return record.seed
    return None
