"""A video longer than fal makes at once: each part is a job of its own, paid for once."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from ..errors import InvalidRequestError
from ..extension import DEFAULT_NEW_FRAMES, Extension, Part, lengths_of_parts
from ..observer import NullObserver, Observer, PartObserver
from ..request import NUM_FRAMES, GenerationRequest
from ..start import CLIP_FRAMES, LongClip, Start, fit
from ..video import ExtendedVideo
from .client import FalClient
from .endpoints import VIDEO_TO_VIDEO, Endpoint
from .generation import generate
from .journal import Journal
from .paid_job import log
from .queue.policy import NetworkPolicy
from .start import SIZE, EncodeClip, start_to_send

MAX_PARTS = 5


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
    """Make `new_frames` frames, 1 to 440 at 16 a second, that follow those of `start`, on fal.

    As `pipeline.extend`, but in fal's size, and in at most 5 parts, each of which is a job that costs what a video
    costs. A part is named by the job of the one before and by how many of its frames were used, not by its pixels, so
    that finished parts are never paid for again.

    `encode_clip`: makes an MP4 of the frames to send: `pipeline.export.mp4_bytes`. `ram`: free bytes, of which the
    joined frames may take no more. The other arguments, and what is raised, are those of `fal.generate`, and
    `NotEnoughMemoryError`, before anything is paid.
    """
    observer, (width, height) = observer or NullObserver(), SIZE
    request = replace(request, width=width, height=height)
    check_number_of_parts(request, new_frames, overlap)
    # Where fal's video does not begin with what was sent, all of it is kept.
    extension = Extension(start, request, new_frames, overlap, ram=ram, spare=overlap)
    cost = await cost_of(len(extension), VIDEO_TO_VIDEO, key, policy)
    identity, notes = "", []
    for part in extension.parts(observer):
        sent = start_to_send(part.start, encode_clip, identity, SIZE)
        video = await generate(
            request_of(part),
            folder=folder,
            journal=journal,
            endpoint=sent.endpoint,
            media=sent.media,
            key=key,
            policy=policy,
            observer=PartObserver(observer, part.index, len(extension), f", {cost}"),
            on_charge=on_charge,
        )
        used, skipped = min(part.num_conditioning_frames + part.length, video.num_frames), sent.notes_on(video)
        first = 0 if skipped else part.num_conditioning_frames
        extension.append(fit(frame, *SIZE) for frame in islice(frames_of(video.path), first, used))
        identity = f"continues:{video.job_name}:{used}"
        notes += [*video.notes, *skipped]
    return extension.video(notes)


def check_number_of_parts(request: GenerationRequest, new_frames: int, overlap: int) -> None:
    """Raise `InvalidRequestError` for more than are made."""
    count = len(lengths_of_parts(new_frames, request.num_frames, overlap))
    if count > MAX_PARTS:
        raise InvalidRequestError(
            f"new_frames is {new_frames}, which would be {count} videos to pay for, but at most {MAX_PARTS} are "
            f"made: with num_frames {request.num_frames}, {MAX_PARTS * (request.num_frames - overlap)} frames."
        )


async def cost_of(count: int, endpoint: Endpoint, key: str | None = None, policy: NetworkPolicy | None = None) -> str:
    """Return the price of `count` videos in words."""
    async with FalClient(key, policy) as client:
        price = await client.price(endpoint.id)
    if not price:
        return "price unknown"
    return f"{price.times(count)} in all" if price.unit == "video" else str(price)


def request_of(part: Part) -> GenerationRequest:
    """Return the request to send: the next 4k+1 frames, which the model makes anyway, at the best quality."""
    whole = max(NUM_FRAMES.minimum, 4 * math.ceil((part.request.num_frames - 1) / 4) + 1)
    return replace(part.request, num_frames=whole, video_quality="maximum")


def frames_of(path: Path) -> Iterator[Tensor]:
    """Yield each frame of a video file, (height, width, 3), float32 in 0..1."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield torch.from_numpy(reformatter.reformat(frame, format="gbrpf32le").to_ndarray())
