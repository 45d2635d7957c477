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

from ..errors import InvalidRequestError

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
OPUS_LAYOUTS = {**LAYOUTS, 4: "quad"}
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000


def check_audio(audio: Any) -> None:
    """Raise `InvalidRequestError` for sound that cannot be written."""
    shape, rate = tuple(audio["waveform"].shape), audio["sample_rate"]
    if len(shape) != 3 or shape[0] != 1 or shape[1] not in LAYOUTS:
        raise InvalidRequestError(
            f"The audio's shape is {shape}, but must be (1, channels, samples) with at most {max(LAYOUTS)} channels."
        )
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InvalidRequestError(f"The audio's sample_rate is {rate}, but must be {LOWEST_RATE} to {HIGHEST_RATE}.")


class Sound:
    """`audio`: ComfyUI's AUDIO, `waveform` (1, channels, samples) in -1..1 and `sample_rate`, which was checked."""

    def __init__(self, audio: Any, output: OutputContainer, codec: str) -> None:
        waveform, self._rate = audio["waveform"], int(audio["sample_rate"])
        self._waveform = waveform[0]
        self._layout = (OPUS_LAYOUTS if codec == "libopus" else LAYOUTS)[waveform.shape[1]]
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
