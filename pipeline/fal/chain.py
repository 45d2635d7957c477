"""The jobs of a video in parts: which they are, and which of them are paid for, is known before the first is sent."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..extension import Extension, lengths_of_parts
from ..request import NUM_FRAMES, GenerationRequest
from ..start import CLIP_FRAMES
from .endpoints import IMAGE_TO_VIDEO, VIDEO_TO_VIDEO
from .journal import Journal
from .media.upload import Media
from .submission import Submission, make_submission


@dataclass(frozen=True)
class Chain:
    """`lengths`: new frames of each part. `submissions`: its job. `known`: whether there is a file or a record of it.

    `requests`: what is sent for each part.
    """

    lengths: list[int]
    requests: list[GenerationRequest]
    submissions: list[Submission]
    known: list[bool]

    @property
    def num_to_pay(self) -> int:
        """Return the number of jobs that have not been sent."""
        return self.known.count(False)

    def is_there_after(self, index: int) -> bool:
        """Return whether there are parts after that of `index`, and none of them has to be sent."""
        return bool(self.known[index + 1 :]) and all(self.known[index + 1 :])


def choose_chain(extension: Extension, identity: str, journal: Journal, folder: Path) -> Chain:
    """Return the jobs for the parts of `extension`. The first one starts from `identity`.

    Each part is sent with `num_frames` frames and cut here, so that a part with fewer frames is in the file of a longer
    one. Version 0.2 split the frames evenly and sent no more than were needed: its paid parts are used where
    that leaves less to pay.
    """
    request = extension.request

    def chain_of(lengths: list[int], num_frames: Callable[[int], int]) -> Chain:
        chain, name = Chain(lengths, [], [], []), identity
        for index, length in enumerate(lengths):
            given = extension.num_conditioning_frames(lengths[:index])
            endpoint = VIDEO_TO_VIDEO if given == CLIP_FRAMES else IMAGE_TO_VIDEO
            sent = request_to_send(extension.request_of(index, num_frames(given + length)))
            submission = make_submission(sent, endpoint, journal, folder, Media(name, ""))
            name = name_of_end(submission.fingerprint, given + length)
            chain.requests.append(sent)
            chain.submissions.append(submission)
            chain.known.append(submission.target.exists() or journal.has_job(submission.fingerprint))
        return chain

    new_frames, overlap = sum(extension.lengths), extension.overlap
    full = chain_of(extension.lengths, lambda _: request.num_frames)
    even = chain_of(lengths_of_parts(new_frames, request.num_frames, overlap), lambda used: used)
    return even if even.num_to_pay < full.num_to_pay else full


def request_to_send(request: GenerationRequest) -> GenerationRequest:
    """Return the request for the next 4k+1 frames, which the model makes anyway, at the best quality."""
    whole = max(NUM_FRAMES.minimum, 4 * math.ceil((request.num_frames - 1) / 4) + 1)
    return replace(request, num_frames=whole, video_quality="maximum")


def name_of_end(job_name: str, used: int) -> str:
    """Return what a job is named by that goes on from a frame of another job's video."""
    return f"continues:{job_name}:{used}"
