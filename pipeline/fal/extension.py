"""Make a video longer than fal's maximum: each segment is a job, charged once."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import torch
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from torch import Tensor

from ..errors import InvalidRequestError, JobExpiredError
from ..extension import DEFAULT_NEW_FRAMES, Extension, Part, lengths_of_parts
from ..observer import NullObserver, Observer, PartObserver
from ..request import GenerationRequest
from ..start import CLIP_FRAMES, LongClip, Start, fit
from ..video import ExtendedVideo, RemoteVideo
from .chain import choose_chain, name_of_end
from .client import FalClient
from .display import naming_seed
from .endpoints import VIDEO_TO_VIDEO, Endpoint
from .frames import read_frames, write_frames
from .generation import generate
from .journal import Journal
from .paid_job import log
from .queue.policy import NetworkPolicy
from .start import SIZE, EncodeClip, SentStart, start_to_send

MAX_PARTS = 5


@dataclass(frozen=True, eq=False)
class NewFrames:
    """The new frames of a segment. `end`: names a job that continues from them. `notes`: sentences for the user."""

    frames: Iterable[Tensor]
    end: str
    notes: list[str]


async def extend(
    request: GenerationRequest,
    start: Start | LongClip,
    new_frames: int = DEFAULT_NEW_FRAMES,
    *,
    folder: Path,
    journal: Journal,
    encode_clip: EncodeClip,
    overlap: int = CLIP_FRAMES,
    key: str | None = None,
    policy: NetworkPolicy | None = None,
    observer: Observer | None = None,
    ram: float = math.inf,
    on_charge: Callable[[float], object] = log.debug,
) -> ExtendedVideo:
    """Continue `start` by `new_frames` frames, 1 to 440, at 16 fps, on fal.

    It works like `pipeline.extend`, but at fal's size and in at most 5 segments. Each segment is a job and costs as
    much as a video. All are sent with the full `num_frames` and the last is trimmed here, so another number of frames
    after the same clip reuses the finished segments. A segment is identified by the job before it and the number of
    frames used from that job, not by pixels, so finished segments are never charged again. If the video of a segment is
    gone, here and at fal, its last frames replace it, provided that all later segments exist.

    `encode_clip`: makes an MP4 of the frames to send, as `pipeline.export.mp4_bytes` does. `ram`: free bytes for the
    joined frames. The other arguments and exceptions are as in `fal.generate`, and `NotEnoughMemoryError` before
    anything is charged.
    """
    observer, (width, height) = observer or NullObserver(), SIZE
    request = replace(request, width=width, height=height)
    check_number_of_parts(request, new_frames, overlap)
    # Where fal's video does not begin with what was sent, all of it is kept.
    extension = Extension(start, request, new_frames, overlap, even_parts=False, ram=ram, spare=overlap)
    sent = start_to_send(extension.begin(observer), encode_clip, journal, size=SIZE)
    identity, notes = sent.media.identity, []
    chain = choose_chain(extension, identity, journal, folder)
    extension.lengths = chain.lengths
    count = chain.num_to_pay
    cost = await cost_of(count, VIDEO_TO_VIDEO, key, policy) if count else "nothing to pay"
    for part in extension.parts(observer):
        if part.index:
            sent = start_to_send(part.start, encode_clip, journal, identity, SIZE)
        options: Any = {"endpoint": sent.endpoint, "media": sent.media, "key": key, "policy": policy}
        options["on_charge"] = on_charge
        options["observer"] = PartObserver(observer, part.index, len(extension), f", {cost}")
        job_name = chain.submissions[part.index].fingerprint
        end = journal.end_of(job_name)
        try:
            with naming_seed(extension.request.seed_or_random()):
                video = await generate(chain.requests[part.index], folder=folder, journal=journal, **options)
        except JobExpiredError:
            made = kept_end(end, part, job_name) if chain.is_there_after(part.index) else None
            if not made:
                raise
        else:
            made = frames_to_use(video, sent, part)
        num_new = extension.append(made.frames)
        if part.index + 1 < len(extension) and not end.exists():
            write_frames(end, (extension.last(min(num_new, CLIP_FRAMES)) * 255).round().to(torch.uint8))
        identity = made.end
        notes += made.notes
    return extension.video(notes)


def frames_to_use(video: RemoteVideo, sent: SentStart, part: Part) -> NewFrames:
    """Return the frames of a segment's video after its start, or all if it does not begin with the start."""
    skipped = sent.notes_on(video)
    used = min(part.num_conditioning_frames + part.length, video.num_frames)
    first = 0 if skipped else part.num_conditioning_frames
    frames = (fit(frame, *SIZE) for frame in islice(frames_of(video.path), first, used))
    return NewFrames(frames, name_of_end(video.job_name or "", used), [*video.notes, *skipped])


def kept_end(file: Path, part: Part, job_name: str) -> NewFrames | None:
    """Return the last frames of a segment whose video is gone, or None if they were not kept."""
    with suppress(FFmpegError, OSError):
        frames = [frame / 255 for frame in read_frames(file)]
        note = f"Part {part.index + 1} is gone, here and at fal: only its last {len(frames)} frames are left."
        return NewFrames(frames, name_of_end(job_name, part.num_conditioning_frames + part.length), [note])
    return None


def check_number_of_parts(request: GenerationRequest, new_frames: int, overlap: int) -> None:
    """Raise `InvalidRequestError` for too many segments."""
    count = len(lengths_of_parts(new_frames, request.num_frames, overlap))
    if count > MAX_PARTS:
        raise InvalidRequestError(
            f"new_frames is {new_frames}, which takes {count} paid videos, but the limit is {MAX_PARTS}: with "
            f"num_frames {request.num_frames}, that is {MAX_PARTS * (request.num_frames - overlap)} frames."
        )


async def cost_of(count: int, endpoint: Endpoint, key: str | None = None, policy: NetworkPolicy | None = None) -> str:
    """Return the price of `count` videos in words."""
    async with FalClient(key, policy) as client:
        price = await client.price(endpoint.id)
    if not price:
        return "price unknown"
    return f"{price.times(count)} in all" if price.unit == "video" else str(price)


def frames_of(path: Path) -> Iterator[Tensor]:
    """Yield each frame of a video file, (height, width, 3), float32 in 0..1."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield torch.from_numpy(reformatter.reformat(frame, format="gbrpf32le").to_ndarray())
