"""The sound of a video file, decoded as it is asked for."""

from collections.abc import Generator

import av
import numpy as np

from .file import File, decodable_audio, decoded, first_time, in_ticks, opened

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
"""By the number of channels of a sound."""


class FileSound:
    """The sound of a video file from `start`, in seconds, decoded anew each time that it is gone through.

    `sample_rate`: samples per second. `channels`: how many, `in_file`: of how many in the file: more than 5.1 has are
    mixed down to it.
    """

    def __init__(self, file: File, start: float, sample_rate: int, in_file: int) -> None:
        self._file, self._start, self.sample_rate, self.in_file = file, start, sample_rate, in_file
        self.channels = min(in_file, max(LAYOUTS))

    @classmethod
    def of(cls, file: File, start: float = 0.0) -> "FileSound | None":
        """The last that can be decoded, which is ComfyUI's choice too. None where there is no sound."""
        with opened(file) as container:
            streams = decodable_audio(container)
            return cls(file, start, streams[-1].rate, len(streams[-1].layout.channels)) if streams else None

    def chunks(self) -> Generator[np.ndarray, None, None]:
        """(channels, samples), float32 in -1..1, from the first picture on: silence where the sound begins later."""
        begun = False
        with opened(self._file) as container:
            stream, begin = decodable_audio(container)[-1], max(self._start, first_time(container))
            if self._start:
                container.seek(in_ticks(self._start, stream), stream=stream)
            layout = stream.layout if self.channels == self.in_file else LAYOUTS[self.channels]
            resampler = av.AudioResampler("fltp", layout, self.sample_rate)
            for frame in decoded(container, stream):
                for part in resampler.resample(frame):
                    samples = part.to_ndarray()
                    if not begun:
                        late = 0 if part.time is None else round((part.time - begin) * self.sample_rate)
                        if late > 0:
                            yield np.zeros((self.channels, late), np.float32)
                        samples = samples[:, max(0, -late) :]
                        begun = samples.shape[1] > 0
                    yield samples
