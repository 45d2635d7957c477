"""A video longer than the model's maximum, made in segments, each from the end of the one before.

The code that makes the segments, on this machine or on fal, iterates over them:

    extension = Extension(clip, request, new_frames)
    for part in extension.parts(observer):
        extension.append(...)  # the new frames after `part.start`
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
"""The numbers of frames that a segment may start from."""
GIB = 2**30


@dataclass(frozen=True, eq=False)
class Part:
    """A segment to make: `length` frames after those of `start`.

    `request`: for the frames of `start` and the new ones together, with its own seed. `index`: from 0.
    """

    index: int
    start: Start
    length: int
    request: GenerationRequest

    @property
    def num_conditioning_frames(self) -> int:
        """The number of frames of `start` that this segment begins with."""
        return len(self.start.conditioning_indices())


class Extension:
    """A clip that grows segment by segment."""

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
        fps: int = FPS,
    ) -> None:
        """Check the values.

        `even_parts`: as in `lengths_of_parts`. `ram`: free bytes. `spare`: extra frames that a segment may have.
        `fps`: the model's frame rate; a `LongClip` has its own.

        Raises `InvalidRequestError` for `new_frames` and `overlap` out of their limits, and `NotEnoughMemoryError`,
        before anything is made.
        """
        self.request = replace(request, seed=request.seed_or_random())
        self._clip = clip.as_long(fps) if isinstance(clip, Start) else clip
        self.overlap = overlap
        self.lengths = lengths_of_parts(new_frames, request.num_frames, overlap, even_parts)
        """Of the parts, without the frames that they start from. As many others may take their place."""
        self._num_source = self._done = self._clip.num_frames
        self._shape = (self._num_source + new_frames + spare * len(self), request.height, request.width, 3)
        self._frames = torch.empty(0)
        self._check_memory(new_frames, ram)

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self.lengths)

    def begin(self, observer: Observer) -> Start:
        """Scale the clip, and return its end, the start of the first segment."""
        self._frames = torch.empty(self._shape)
        self._scale_clip(observer)
        return Start(self.last(self.overlap))

    def parts(self, observer: Observer) -> Iterator[Part]:
        """Yield each segment. Append its frames before asking for the next one."""
        if not len(self._frames):
            self.begin(observer)
        for index, length in enumerate(self.lengths):
            start = Start(self.last(self.overlap))
            num_frames = len(start.conditioning_indices()) + length
            yield Part(index, start, length, self.request_of(index, num_frames))

    def num_conditioning_frames(self, before: Iterable[int]) -> int:
        """Return the number of frames that a segment starts from, after segments with `before` new frames."""
        return self.overlap if self._num_source + sum(before) >= self.overlap else 1

    def request_of(self, index: int, num_frames: int) -> GenerationRequest:
        """Return the request for `num_frames` of a segment, with its seed."""
        seed = (self.request.seed_or_random() + index) % (SEED.maximum + 1)
        return replace(self.request, num_frames=max(NUM_FRAMES.minimum, num_frames), seed=seed)

    def append(self, frames: Iterable[Tensor]) -> int:
        """Add frames, (height, width, 3) each, and return their number."""
        before = self._done
        for frame in frames:
            self._frames[self._done] = frame
            self._done += 1
        return self._done - before

    def last(self, count: int) -> Tensor:
        """Return the last frames so far, (`count`, height, width, 3), or all if there are fewer."""
        return self._frames[max(0, self._done - count) : self._done]

    def video(self, notes: Iterable[str] = ()) -> ExtendedVideo:
        """Return the clip with all appended segments."""
        seed, num_new = self.request.seed_or_random(), self._done - self._num_source
        return ExtendedVideo(self._frames[: self._done], num_new, seed, self._clip.fps, tuple(notes))

    def _check_memory(self, new_frames: int, ram: float) -> None:
        needed = math.prod(self._shape) * torch.float32.itemsize
        if needed > ram:
            _, height, width, _ = self._shape
            raise NotEnoughMemoryError(
                f"{width}x{height} with {self._num_source} frames of the source and {new_frames} new ones takes "
                f"{needed / GIB:.1f} GiB of RAM, but only {ram / GIB:.1f} GiB are free. Trim the source, or lower "
                "new_frames or the size."
            )

    def _scale_clip(self, observer: Observer) -> None:
        """Write the clip's frames, repeating a frame that stays longer."""
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
    """Return the number of new frames per segment, in the fewest segments of at most `num_frames` frames.

    With `even_parts` all are about equal. Otherwise only the last is shorter: the model was trained on 93 frames.
    Raises `InvalidRequestError` for `new_frames` and `overlap` outside their limits.
    """
    check_range("new_frames", new_frames, NEW_FRAMES)
    if overlap not in OVERLAPS:
        raise InvalidRequestError(f"overlap is {overlap!r}, but must be 5 or 1.")
    longest = num_frames - overlap
    count = math.ceil(new_frames / longest)
    if not even_parts:
        return [longest] * (count - 1) + [new_frames - longest * (count - 1)]
    return [new_frames // count + (index < new_frames % count) for index in range(count)]
