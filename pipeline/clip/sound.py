"""The sound of a video file, decoded as it is asked for, each sample at its time."""

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

import av
import numpy as np
from av.container import InputContainer

from .file import DAMAGED, File, add_note, decoded, decoded_from, last_audio, opened

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
"""By the number of channels of a sound."""
TOLERANCE = 0.02
"""Seconds by which samples may be off from their time: files round it, and clocks drift."""
DISCONTINUITY = 1.0
"""Seconds back from which times begin anew, as where two recordings were joined."""


class FileSound:
    """The sound of a video file from `begin` to `end`, by the file's own clock, decoded anew each time.

    `sample_rate`: samples per second. `channels`: how many, `in_file`: of how many in the file: more than 5.1 has are
    mixed down to it. `notes`: for the user; reading adds to it.
    """

    def __init__(
        self, file: File, begin: float, end: float, sample_rate: int, in_file: int, layout: str, notes: list[str]
    ) -> None:
        self._file, self._begin, self._end, self.notes = file, begin, end, notes
        self.sample_rate, self.in_file = sample_rate, in_file
        self.channels = min(in_file, max(LAYOUTS))
        self._layout = layout if self.channels == in_file else LAYOUTS[self.channels]

    @classmethod
    def of(cls, file: File, begin: float, end: float, notes: list[str]) -> "FileSound | None":
        """The last that can be decoded, which is ComfyUI's choice too. None where there is no sound."""
        with opened(file) as container:
            stream = last_audio(container)
            if stream is None:
                return None
            sample_rate, layout = stream.rate, stream.layout
            if not sample_rate or not layout.nb_channels:
                first = next(decoded(container, stream, []), None)
                if first is None:
                    add_note(notes, DAMAGED["audio"])
                    return None
                sample_rate, layout = first.sample_rate, first.layout
            return cls(file, begin, end, sample_rate, layout.nb_channels, layout.name, notes)

    def chunks(self) -> Generator[np.ndarray, None, None]:
        """(channels, samples), float32 in -1..1: silence where the file has none, and nothing twice."""
        done, shift = 0, 0.0
        limit = math.inf if math.isinf(self._end) else round((self._end - self._begin) * self.sample_rate)
        with closing(decoded_from(self._file, the_sound, self._begin or None, self.notes)) as frames:
            for part in self._resampled(frames):
                samples = part.to_ndarray()
                at = done if part.time is None else round((part.time + shift - self._begin) * self.sample_rate)
                if done and done - at > DISCONTINUITY * self.sample_rate:
                    shift += (done - at) / self.sample_rate
                    at = done
                allowed = TOLERANCE * self.sample_rate if done else 0
                if at - done > allowed:
                    yield from self._silence(min(at, limit) - done)
                    done = at
                elif done - at > allowed:
                    samples = samples[:, done - at :]
                samples = samples[:, : max(0, int(min(limit - done, samples.shape[1])))]
                done += samples.shape[1]
                if samples.shape[1]:
                    yield samples
                if done >= limit:
                    return

    def _silence(self, samples: float) -> Iterator[np.ndarray]:
        for begin in range(0, int(samples), self.sample_rate):
            yield np.zeros((self.channels, min(self.sample_rate, int(samples) - begin)), np.float32)

    def _resampled(self, frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
        """In floats, at one rate and with one layout, though they may change in the file."""
        resampler, before = None, None
        for frame in frames:
            if (kind := (frame.format.name, frame.layout.name, frame.sample_rate)) != before:
                yield from resampler.resample(None) if resampler else ()
                resampler, before = av.AudioResampler("fltp", self._layout, self.sample_rate), kind
            assert resampler
            yield from resampler.resample(frame)
        yield from resampler.resample(None) if resampler else ()


def the_sound(container: InputContainer) -> av.AudioStream:
    stream = last_audio(container)
    assert stream
    return stream
