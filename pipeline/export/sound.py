"""The sound of a video, encoded a stretch at a time beside the pictures."""

from fractions import Fraction
from math import ceil
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from av.packet import Packet

from ..errors import InvalidRequest

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


class Sound:
    """`audio`: ComfyUI's AUDIO, `waveform` (1, channels, samples) in -1..1 and `sample_rate`."""

    def __init__(self, audio: Any, output: OutputContainer, codec: str) -> None:
        waveform, self._rate = audio["waveform"], int(audio["sample_rate"])
        if waveform.ndim != 3 or waveform.shape[1] not in LAYOUTS:
            raise InvalidRequest(
                f"The audio's shape is {tuple(waveform.shape)}, but must be (1, channels, samples) "
                f"with {', '.join(map(str, LAYOUTS))} channels."
            )
        self._waveform = waveform[0]
        self._layout = LAYOUTS[waveform.shape[1]]
        self._done = 0
        stream = output.add_stream(codec, rate=encoder_rate(codec, self._rate), layout=self._layout)
        self._stream = cast(AudioStream, stream)

    def encode_until(self, seconds: Fraction) -> list[Packet]:
        """The packets that are ready when all sound before `seconds` has gone in."""
        end = min(ceil(seconds * self._rate), self._waveform.shape[1])
        if end <= self._done:
            return []
        samples = self._waveform[:, self._done : end].cpu().float().nan_to_num().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._done, Fraction(1, self._rate)
        self._done = end
        return self._stream.encode(frame)

    def finish(self) -> list[Packet]:
        return self._stream.encode(None)


def encoder_rate(codec: str, rate: int) -> int:
    """The sample rate that the encoder takes and that loses nothing, or its highest."""
    possible = Codec(codec, "w").audio_rates
    if not possible or rate in possible:
        return rate
    return min((known for known in possible if known >= rate), default=max(possible))
