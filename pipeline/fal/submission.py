"""A request for one video on fal, with a name that is the same for the same request."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError
from ..formats import VideoFormat, find_format
from ..request import GenerationRequest
from .endpoints import ENDPOINTS, TEXT_TO_VIDEO, Endpoint, sha256_of
from .endpoints import arguments as arguments_of
from .journal import Journal, Record
from .media.upload import Media, media_from


@dataclass(frozen=True)
class Submission:
    """A request for one video on fal.

    `arguments`: the JSON object for fal. The name of `media` stands where its address will be, if it has none yet.
    `fingerprint`: a hash of endpoint and arguments, the media by name and `sync_mode` left aside. `target`: the
    finished file, named after the seed and the fingerprint.
    """

    endpoint: Endpoint
    arguments: dict[str, Any]
    media: Media | None
    format: VideoFormat
    fingerprint: str
    request_sha256: str
    target: Path

    @property
    def seed(self) -> int:
        return self.arguments["seed"]

    def new_record(self) -> Record:
        """Return the record of a video for which nothing has been sent."""
        return Record(
            fingerprint=self.fingerprint,
            endpoint=self.endpoint.id,
            input_sha256=sha256_of(self.arguments),
            request_sha256=self.request_sha256,
            input_keys=sorted(self.arguments),
            seed=self.seed,
            suffix=self.format.suffix,
        )


def make_submission(
    request: GenerationRequest,
    endpoint: Endpoint,
    journal: Journal,
    folder: Path,
    source: Path | bytes | str | Media | None = None,
) -> Submission:
    """Return the submission of a request. Without a seed, it gets its unfinished job's seed or a new one.

    Raises `InvalidRequestError`.
    """
    media = media_of(endpoint, source)
    arguments = arguments_of(endpoint, request) | ({endpoint.media: media.identity} if media else {})
    named = arguments | {"sync_mode": False}
    inline = arguments | {"sync_mode": True}  # the names of videos that were sent so before it made no difference
    seed = request.seed
    if seed is None:
        seed = seed_of_unfinished(journal, endpoint.id, sha256_of(named), sha256_of(inline))
    if seed is None:
        seed = request.seed_or_random()
    request_sha256 = sha256_of(named)
    for each in (arguments, named, inline):
        each["seed"] = seed
    format = find_format(request.video_output_type)
    fingerprint, other = fingerprint_of(endpoint, named), fingerprint_of(endpoint, inline)
    if not is_known(journal, target_of(folder, seed, fingerprint, format), fingerprint) and is_known(
        journal, target_of(folder, seed, other, format), other
    ):
        fingerprint, arguments = other, inline
    if media and media.address:
        arguments[endpoint.media] = media.address
    target = target_of(folder, seed, fingerprint, format)
    return Submission(endpoint, arguments, media, format, fingerprint, request_sha256, target)


def submission_of(record: Record, folder: Path, format: VideoFormat) -> Submission:
    """Return the submission of a job that was sent before, to fetch its video. It cannot be sent again."""
    known = {endpoint.id: endpoint for endpoint in ENDPOINTS}
    endpoint = known.get(record.endpoint) or replace(TEXT_TO_VIDEO, id=record.endpoint)
    arguments = {"seed": record.seed, "sync_mode": True}  # a reply may have the video in it
    target = target_of(folder, record.seed, record.fingerprint, format)
    return Submission(endpoint, arguments, None, format, record.fingerprint, record.request_sha256, target)


def target_of(folder: Path, seed: int, fingerprint: str, format: VideoFormat) -> Path:
    """Return the file of a finished video."""
    return folder / f"cosmos_{seed}_{fingerprint[:12]}{format.suffix}"


def fingerprint_of(endpoint: Endpoint, arguments: dict[str, Any]) -> str:
    return hashlib.sha256(f"{endpoint.id}\n{sha256_of(arguments)}".encode()).hexdigest()[:32]


def is_known(journal: Journal, target: Path, fingerprint: str) -> bool:
    """Return whether a video has a file, or a record."""
    return target.exists() or journal.path_of(fingerprint).exists()


def media_of(endpoint: Endpoint, source: Path | bytes | str | Media | None) -> Media | None:
    """Return the file to start from. Raises `InvalidRequestError` if it does not suit the endpoint."""
    if bool(endpoint.media) != (source is not None):
        what = f"starts from a file: give it as media, for {endpoint.media}" if endpoint.media else "takes no media"
        raise InvalidRequestError(f"{endpoint.id} {what}.")
    return media_from(source, endpoint.media) if endpoint.media and source is not None else None


def seed_of_unfinished(journal: Journal, endpoint_id: str, *request_sha256: str) -> int | None:
    """Return the seed of the same request's unfinished job, unless another run works on that job."""
    for record in journal.unfinished():
        same = record.endpoint == endpoint_id and record.request_sha256 in request_sha256
        if same and not journal.is_claimed(record.fingerprint):
            return record.seed
    return None
