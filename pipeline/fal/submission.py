"""What is wanted from fal, under a name that is the same whenever the same is wanted."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError
from ..formats import VideoFormat, find_format
from ..request import GenerationRequest
from .endpoints import Endpoint, arguments, sha256_of
from .journal import Journal, Record
from .media.upload import Media, media_from


@dataclass(frozen=True)
class Submission:
    """One wanted video.

    `sent`: the JSON object for fal, in which the name of `media` stands where its address will be, if it has none yet.
    `fingerprint`: a hash of endpoint and JSON, the media by name. `target`: the finished file, which is named after
    what was asked for.
    """

    endpoint: Endpoint
    sent: dict[str, Any]
    media: Media | None
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


def make_submission(
    request: GenerationRequest,
    endpoint: Endpoint,
    journal: Journal,
    folder: Path,
    source: Path | bytes | str | Media | None = None,
) -> Submission:
    """The submission of a request: without a seed in it, with that of its unfinished job, or a new one.

    Raises `InvalidRequestError`.
    """
    media = media_of(endpoint, source)
    wanted = {**arguments(endpoint, request), **({endpoint.media: media.identity} if media else {})}
    request_sha256 = sha256_of(wanted)
    seed = request.seed
    if seed is None:
        seed = seed_of_unfinished(journal, endpoint.id, request_sha256)
    if seed is None:
        seed = request.seed_or_random()
    named = {**wanted, "seed": seed}
    fingerprint = hashlib.sha256(f"{endpoint.id}\n{sha256_of(named)}".encode()).hexdigest()[:32]
    sent = {**named, endpoint.media: media.address} if media and media.address else named
    format = find_format(request.video_output_type)
    target = folder / f"cosmos_{seed}_{fingerprint[:12]}{format.suffix}"
    return Submission(endpoint, sent, media, format, fingerprint, request_sha256, target)


def media_of(endpoint: Endpoint, source: Path | bytes | str | Media | None) -> Media | None:
    """What the endpoint starts from. Raises `InvalidRequestError` unless it takes just that."""
    if bool(endpoint.media) != (source is not None):
        what = f"starts from a file: give it as media, for {endpoint.media}" if endpoint.media else "takes no media"
        raise InvalidRequestError(f"{endpoint.id} {what}.")
    return media_from(source, endpoint.media) if endpoint.media and source is not None else None


def seed_of_unfinished(journal: Journal, endpoint_id: str, request_sha256: str) -> int | None:
    """The seed that was drawn for the same request, where a run that is over left its job unfinished."""
    for record in journal.unfinished():
        same = (record.endpoint, record.request_sha256) == (endpoint_id, request_sha256)
        if same and not journal.is_claimed(record.fingerprint):
            return record.seed
    return None
