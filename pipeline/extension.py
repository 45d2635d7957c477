"""A video longer than is made at once: part after part, each from the end of the one before.

Whoever makes the parts, on this machine or on fal, goes through them:

    extension = Extension(clip, request, new_frames)
    for part in extension.parts(observer):
        extension.append(...)  # the frames that were made to follow `part.start`
    video = extension.video()
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from .errors import InvalidRequestError, NotEnoughMemoryError
from .observer import Observer
from .request import FPS, NEW_FRAMES, NUM_FRAMES, SEED, GenerationRequest, check_range
from .start import CLIP_FRAMES, LongClip, Start, fit
from .video import ExtendedVideo

DEFAULT_NEW_FRAMES = NUM_FRAMES.maximum - CLIP_FRAMES
OVERLAPS = (CLIP_FRAMES, 1)
"""From how many frames of what is there a video may go on."""
GIB = 2**30


@dataclass(frozen=True, eq=False)
class Part:
    """One part to make: `length` frames that follow those of `start`.

    `request`: for the frames that `start` gives and those that follow, with a seed of its own. `index`: from 0.
    """

    index: int
    start: Start
    length: int
    request: GenerationRequest

    @property
    def num_conditioning_frames(self) -> int:
        """The number of frames of `start` that the video of this part begins with."""
        return len(self.start.conditioning_indices())


class Extension:
    """A clip that grows part by part."""

    def __init__(
        self,
        clip: Start | LongClip,
        request: GenerationRequest,
        new_frames: int = DEFAULT_NEW_FRAMES,
        overlap: int = CLIP_FRAMES,
        *,
        even_parts: bool = True,
        ram: float = math.inf,
        spare: int = 0,
    ) -> None:
        """Check the values.

        `even_parts`: as of `lengths_of_parts`. `ram`: free bytes. `spare`: frames that a part may have on top of its
        length.

        Raises `InvalidRequestError` for `new_frames` and `overlap` out of their limits, and `NotEnoughMemoryError`,
        before anything is made.
        """
        self.request = replace(request, seed=request.seed_or_random())
        self._clip = clip.as_long() if isinstance(clip, Start) else clip
        self.overlap = overlap
        self.lengths = lengths_of_parts(new_frames, request.num_frames, overlap, even_parts)
        """Of the parts, without the frames that they start from. As many others may take their place."""
        self._num_source = self._done = self._clip.num_frames
        self._shape = (self._num_source + new_frames + spare * len(self), request.height, request.width, 3)
        self._frames = torch.empty(0)
        self._check_memory(new_frames, ram)

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.lengths)

    def begin(self, observer: Observer) -> Start:
        """Scale the clip, and return its end: the start of the first part."""
        self._frames = torch.empty(self._shape)
        self._scale_clip(observer)
        return Start(self.last(self.overlap))

    def parts(self, observer: Observer) -> Iterator[Part]:
        """Yield each part. Append its frames before the next one is asked for."""
        if not len(self._frames):
            self.begin(observer)
        for index, length in enumerate(self.lengths):
            start = Start(self.last(self.overlap))
            num_frames = len(start.conditioning_indices()) + length
            yield Part(index, start, length, self.request_of(index, num_frames))

    def num_conditioning_frames(self, before: Iterable[int]) -> int:
        """Return the number of frames that a part starts from, which follows parts with `before` new frames."""
        return self.overlap if self._num_source + sum(before) >= self.overlap else 1

    def request_of(self, index: int, num_frames: int) -> GenerationRequest:
        """Return the request for `num_frames` of a part, with the seed of that part."""
        seed = (self.request.seed_or_random() + index) % (SEED.maximum + 1)
        return replace(self.request, num_frames=max(NUM_FRAMES.minimum, num_frames), seed=seed)

    def append(self, frames: Iterable[Tensor]) -> int:
        """Add frames, (height, width, 3) each, and return how many they were."""
        before = self._done
        for frame in frames:
            self._frames[self._done] = frame
            self._done += 1
        return self._done - before

    def last(self, count: int) -> Tensor:
        """Return the last frames so far, (`count`, height, width, 3), or all where there are no more."""
        return self._frames[max(0, self._done - count) : self._done]

    def video(self, notes: Iterable[str] = ()) -> ExtendedVideo:
        """Return the clip with all parts that were appended."""
        seed, num_new = self.request.seed_or_random(), self._done - self._num_source
        return ExtendedVideo(self._frames[: self._done], num_new, seed, FPS, tuple(notes))

    def _check_memory(self, new_frames: int, ram: float) -> None:
        needed = math.prod(self._shape) * torch.float32.itemsize
        if needed > ram:
            _, height, width, _ = self._shape
            raise NotEnoughMemoryError(
                f"{width}x{height} with {self._num_source} frames of the source and {new_frames} new ones takes "
                f"{needed / GIB:.1f} GiB of RAM, and {ram / GIB:.1f} GiB are free. Trim the source, or lower "
                "new_frames or the size."
            )

    def _scale_clip(self, observer: Observer) -> None:
        """Write the frames that are shown at 16 fps: a frame that stays for longer comes again."""
        _, height, width, _ = self._shape
        done, before = 0, None
        observer.progress("Scaling the source", 0, 1)
        for frame in islice(self._clip.frames(), self._num_source):
            observer.raise_if_stopped()
            self._frames[done] = self._frames[done - 1] if frame is before else fit(frame, width, height)
            done, before = done + 1, frame
        if done != self._num_source:
            raise InvalidRequestError("The source changed while it was read: run the same again.")


def lengths_of_parts(new_frames: int, num_frames: int, overlap: int, even_parts: bool = True) -> list[int]:
    """Return how many new frames each part has, in the fewest parts of at most `num_frames` frames.

    With `even_parts` all have about the same, else the last one alone is shorter: the model was trained on 93 frames.
    Raises `InvalidRequestError` for `new_frames` and `overlap` out of their limits.
    """
    check_range("new_frames", new_frames, NEW_FRAMES)
    if overlap not in OVERLAPS:
        raise InvalidRequestError(f"overlap is {overlap!r}, but must be 5 or 1.")
    longest = num_frames - overlap
    count = math.ceil(new_frames / longest)
    if not even_parts:
        return [longest] * (count - 1) + [new_frames - longest * (count - 1)]
    return [new_frames // count + (index < new_frames % count) for index in range(count)]
