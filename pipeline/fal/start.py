"""The file that a video at fal starts from: a picture, or the five frames at the end of a clip."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import av
import torch
from PIL import Image
from torch import Tensor

from ..start import Start, fit
from ..video import RemoteVideo
from .endpoints import IMAGE_TO_VIDEO, VIDEO_TO_VIDEO, Endpoint
from .frames import as_kept, hash_of
from .journal import Journal
from .media.upload import Media

SIZE = (1280, 704)
"""Width and height of fal's videos. A start is sent in this size, so that fal crops nothing."""
SAME = 25.0
"""PSNR in dB from which frames count as the ones that were sent. The model's VAE leaves more than 30."""
NOT_KEPT = "fal's video does not begin with the frames that were sent: all of its frames are kept."

EncodeClip = Callable[[Tensor], bytes]
"""From frames, (F, H, W, 3) in uint8, to an MP4 at 16 fps, as `pipeline.export.mp4_bytes`."""


@dataclass(frozen=True, eq=False)
class SentStart:
    """A picture or clip as it is sent. `frames`: (1 or 5, height, width, 3), uint8. `notes`: for the user."""

    frames: Tensor
    media: Media
    endpoint: Endpoint
    notes: Sequence[str] = ()

    def is_kept_in(self, video: RemoteVideo) -> bool:
        """Return whether the first frames of fal's file are `frames`."""
        with av.open(str(video.path)) as container:
            first = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), len(self.frames))]
        found = torch.stack([torch.from_numpy(frame) for frame in first]) / 255
        expected = torch.stack([fit(frame, video.width, video.height) for frame in self.frames])
        error = (found - expected[: len(found)]).square().mean()
        return -10 * math.log10(error + 1e-10) > SAME

    def notes_on(self, video: RemoteVideo) -> list[str]:
        """Return notes for the user on the video that fal made from it."""
        return [] if self.is_kept_in(video) else [NOT_KEPT]


def start_to_send(
    start: Start, encode_clip: EncodeClip, journal: Journal, identity: str = "", size: tuple[int, int] = SIZE
) -> SentStart:
    """Return a PNG, or a clip of just the five frames that the model uses: pixels without metadata, name or path.

    Pixels that differ from those of an earlier start by less than half a level of 255 are sent, and named, as those:
    `journal` keeps them. `identity`: what the job is named by, instead of the pixels. `size`: width, height.
    """
    levels = start.conditioning_frames(*size) * 255
    frames = levels.round().to(torch.uint8) if identity else as_kept(levels, journal.starts)
    identity = identity or f"sha256:{hash_of(frames)}"
    if len(frames) == 1:
        return SentStart(frames, Media(identity, "image/png", png_of(frames[0])), IMAGE_TO_VIDEO, start.notes)
    return SentStart(frames, Media(identity, "video/mp4", encode_clip(frames)), VIDEO_TO_VIDEO, start.notes)


def png_of(frame: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame.numpy()).save(file, "PNG")
    return file.getvalue()
