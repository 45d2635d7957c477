"""What a video at fal starts from, and videos longer than fal makes at once: part after part, each paid for once."""

import hashlib
import io
import math
import tempfile
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
import torch
from PIL import Image
from torch import Tensor

from ...pipeline import fal
from ...pipeline.errors import InvalidRequestError
from ...pipeline.export import export
from ...pipeline.fal.submission import make_submission
from ...pipeline.observer import Observer, PartObserver
from ...pipeline.request import FPS, SEED, GenerationRequest
from ...pipeline.start import Start, fit, frames_with_room, lengths_of_parts
from ...pipeline.video import ExtendedVideo, RemoteVideo
from .output import fal_folders
from .videos import video_of

SIZE = (1280, 704)
"""Width and height of what fal makes. What it starts from is sent so: there is nothing to crop or to choose."""
MAX_PARTS = 5
SAME = 25.0
"""PSNR in dB from which frames are those that were sent. A trip through the model's VAE leaves more than 30."""
NOT_KEPT = "fal's video does not begin with what was sent: all of its frames are kept."


@dataclass(frozen=True, eq=False)
class Given:
    """What is sent. `frames`: (1 or 5, height, width, 3), uint8."""

    frames: Tensor
    media: fal.Media
    endpoint: fal.Endpoint

    def notes_on(self, video: RemoteVideo) -> list[str]:
        """What there is to tell the user of the video that fal made from it."""
        return [] if begins_with(video, self.frames) else [NOT_KEPT]


def given_to_fal(start: Start, identity: str = "") -> Given:
    """A PNG, or a clip of just the five frames that the model uses: pixels without metadata, a name or a path.

    `identity`: what the job is named by, instead of the pixels.
    """
    frames = (start.conditioning_frames(*SIZE) * 255).round().to(torch.uint8)
    pixels = hashlib.sha256(f"{tuple(frames.shape)}".encode() + frames.numpy().tobytes())
    identity = identity or f"sha256:{pixels.hexdigest()}"
    if len(frames) == 1:
        return Given(frames, fal.Media(identity, "image/png", png_of(frames[0])), fal.IMAGE_TO_VIDEO)
    return Given(frames, fal.Media(identity, "video/mp4", mp4_of(frames)), fal.VIDEO_TO_VIDEO)


def png_of(frame: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame.numpy()).save(file, "PNG")
    return file.getvalue()


def mp4_of(frames: Tensor) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clip.mp4")
        export(frames, file, fps=FPS, quality="maximum")
        return file.read_bytes()


def begins_with(video: RemoteVideo, sent: Tensor) -> bool:
    """Whether the first frames of fal's file are `sent`, (F, H, W, 3) in uint8."""
    with av.open(str(video.path)) as container:
        first = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), len(sent))]
    expected = torch.stack([fit(frame, video.width, video.height) for frame in sent])
    error = (torch.stack([torch.from_numpy(frame) for frame in first]) / 255 - expected[: len(first)]).square().mean()
    return -10 * math.log10(error + 1e-10) > SAME


async def extend(
    request: GenerationRequest, start: Start, new_frames: int, overlap: int, observer: Observer
) -> tuple[ExtendedVideo, list[str]]:
    """Make `new_frames` frames that follow those of `start`, and notes for the user.

    As `pipeline.extend`, but on fal, in `SIZE`, and in at most 5 parts. A part is named by the job of the one before
    and how many of its frames were used, not by its pixels, so that finished parts are never paid for again. Raises as
    `fal.generate` does.
    """
    request = replace(request, seed=request.seed_or_random())
    parts = lengths_of_parts(new_frames, request.num_frames, overlap)
    if len(parts) > MAX_PARTS:
        raise InvalidRequestError(
            f"new_frames is {new_frames}, which would be {len(parts)} videos to pay for, but at most {MAX_PARTS} are "
            f"made: with num_frames {request.num_frames}, {MAX_PARTS * (request.num_frames - overlap)} frames."
        )
    cost = await cost_of(len(parts), fal.VIDEO_TO_VIDEO)
    folder, journal = fal_folders()
    frames = frames_with_room(start, new_frames + overlap * len(parts), *SIZE, observer)
    source = done = len(start.frame_indices())
    identity, notes = "", []
    for index, length in enumerate(parts):
        given = given_to_fal(Start(frames[max(0, done - overlap) : done]), identity)
        wanted = request_of_part(request, index, len(given.frames) + length)
        video = await fal.generate(
            wanted,
            folder=folder,
            journal=fal.Journal(journal),
            endpoint=given.endpoint,
            media=given.media,
            observer=PartObserver(observer, index, len(parts), f", {cost}"),
        )
        name = make_submission(wanted, given.endpoint, fal.Journal(journal), folder, given.media).fingerprint
        known = len(given.frames)
        used = video_of(video).get_components().images[: known + length]
        identity = f"continues:{name}:{len(used)}"
        is_kept = begins_with(video, given.frames)
        notes += [*video.notes, *([] if is_kept else [NOT_KEPT])]
        for frame in used[known:] if is_kept else used:
            frames[done] = fit(frame, *SIZE)
            done += 1
    return ExtendedVideo(frames[:done], done - source, request.seed_or_random(), FPS), notes


async def cost_of(count: int, endpoint: fal.Endpoint) -> str:
    async with fal.FalClient() as client:
        price = await client.price(endpoint.id)
    if not price:
        return "price unknown"
    return f"{price.times(count)} in all" if price.unit == "video" else str(price)


def request_of_part(request: GenerationRequest, index: int, num_frames: int) -> GenerationRequest:
    """Of the next 4k+1 frames, which the model makes anyway, at the best quality, as the next part starts from it."""
    seed = (request.seed_or_random() + index) % (SEED.maximum + 1)
    whole = max(9, 4 * math.ceil((num_frames - 1) / 4) + 1)
    return replace(request, num_frames=whole, seed=seed, video_quality="maximum")
