"""The sound of a video, encoded a stretch at a time beside the pictures."""

from collections.abc import Generator
from fractions import Fraction
from math import ceil
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from av.packet import Packet

from ..clip.sound import LAYOUTS, FileSound
from ..errors import InvalidRequestError

OPUS_LAYOUTS = {**LAYOUTS, 4: "quad"}
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000


class Waveform:
    """ComfyUI's AUDIO, as `FileSound`: {"waveform": (1, channels, samples) in -1..1, "sample_rate": int}.

    Raises `InvalidRequestError` for another shape.
    """

    def __init__(self, audio: Any) -> None:
        self._waveform, self.sample_rate = audio["waveform"], int(audio["sample_rate"])
        shape = tuple(self._waveform.shape)
        if len(shape) != 3 or shape[0] != 1:
            raise InvalidRequestError(f"The audio's shape is {shape}, but must be (1, channels, samples).")
        if not self._waveform.is_floating_point():
            raise InvalidRequestError(f"The audio is {self._waveform.dtype}, but must be floats in -1..1: convert it.")
        self.channels = shape[1]

    def chunks(self) -> Generator[np.ndarray, None, None]:
        for second in self._waveform[0].split(self.sample_rate, dim=1):
            yield np.clip(second.cpu().float().nan_to_num().numpy(), -1, 1)


def sound_of(audio: Any) -> Waveform | FileSound:
    """ComfyUI's AUDIO, or the sound of a file. Raises `InvalidRequestError` for what cannot be written."""
    sound = audio if isinstance(audio, FileSound) else Waveform(audio)
    if sound.channels not in LAYOUTS:
        raise InvalidRequestError(
            f"The audio has {sound.channels} channels, but can have at most {max(LAYOUTS)}: split or mix them first."
        )
    if not LOWEST_RATE <= sound.sample_rate <= HIGHEST_RATE:
        raise InvalidRequestError(
            f"The audio's sample_rate is {sound.sample_rate}, but must be {LOWEST_RATE} to {HIGHEST_RATE}."
        )
    return sound


class SoundEncoder:
    """Encodes `sound` into a stream of `output` that is added."""

    def __init__(self, sound: Waveform | FileSound, output: OutputContainer, codec: str) -> None:
        self._rate = sound.sample_rate
        self._layout = (OPUS_LAYOUTS if codec == "libopus" else LAYOUTS)[sound.channels]
        self._chunks = sound.chunks()
        self._next = np.zeros((sound.channels, 0), np.float32)
        self._done = 0
        stream = output.add_stream(codec, rate=encoder_rate(codec, self._rate), layout=self._layout)
        self._stream = cast(AudioStream, stream)

    def encode_until(self, seconds: Fraction) -> list[Packet]:
        """The packets that are ready when all sound before `seconds` has gone in."""
        packets = []
        missing = ceil(seconds * self._rate) - self._done
        while missing > 0:
            if self._next.shape[1] == 0:
                following = next(self._chunks, None)
                if following is None:
                    break
                self._next = following
            samples, self._next = self._next[:, :missing], self._next[:, missing:]
            missing -= samples.shape[1]
            packets += self._encode(samples)
        return packets

    def _encode(self, samples: np.ndarray) -> list[Packet]:
        if samples.shape[1] == 0:
            return []
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._done, Fraction(1, self._rate)
        self._done += samples.shape[1]
        return self._stream.encode(frame)

    def finish(self) -> list[Packet]:
        return self._stream.encode(None)

    def close(self) -> None:
        """Close the file that the sound is in."""
        self._chunks.close()


def encoder_rate(codec: str, rate: int) -> int:
    """The sample rate that the encoder takes and that loses nothing, or its highest."""
    possible = Codec(codec, "w").audio_rates
    if not possible or rate in possible:
        return rate
    return min((known for known in possible if known >= rate), default=max(possible))
