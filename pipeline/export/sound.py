"""The sound of a video, encoded a stretch at a time beside the pictures."""

from collections.abc import Generator, Mapping
from fractions import Fraction
from math import ceil
from typing import Any, cast

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from av.packet import Packet
from torch import Tensor

from ..clip.sound import LAYOUTS, FileSound
from ..errors import InvalidRequestError

OPUS_LAYOUTS = {**LAYOUTS, 4: "quad"}
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
FULL_SCALE = {torch.int16: 2**15, torch.int32: 2**31}
"""The value of integer samples that is 1 in floats."""


class Waveform:
    """ComfyUI's AUDIO, as `FileSound`: {"waveform": (1, channels, samples), "sample_rate": int}.

    The samples are floats in -1..1, or 16 or 32 bit integers. Raises `InvalidRequestError` for anything else.
    """

    def __init__(self, audio: Any) -> None:
        self._waveform, self.sample_rate = read_audio(audio)
        self.channels, self.is_empty = self._waveform.shape[1], not self._waveform.numel()

    def chunks(self) -> Generator[np.ndarray, None, None]:
        scale = FULL_SCALE.get(self._waveform.dtype, 1)
        for second in self._waveform[0].split(self.sample_rate, dim=1):
            yield np.clip(second.cpu().float().nan_to_num().numpy() / scale, -1, 1)


def read_audio(audio: Any) -> tuple[Tensor, int]:
    """Return the waveform and the sample rate. Raises `InvalidRequestError` for what is not one sound."""
    waveform = audio.get("waveform") if isinstance(audio, Mapping) else None
    if not isinstance(waveform, Tensor):
        raise InvalidRequestError(f"The audio is a {type(audio).__name__} without a waveform: connect one sound.")
    shape = tuple(waveform.shape)
    if len(shape) != 3 or shape[0] > 1:
        raise InvalidRequestError(
            f"The audio's shape is {shape}, but must be (1, channels, samples): connect one sound, not a batch."
        )
    if not (waveform.is_floating_point() or waveform.dtype in FULL_SCALE):
        raise InvalidRequestError(
            f"The audio's samples are {waveform.dtype}, but must be floats in -1..1, int16 or int32: convert them."
        )
    sample_rate = audio.get("sample_rate")
    if not isinstance(sample_rate, int | float):
        raise InvalidRequestError(
            f"The audio's sample_rate is {sample_rate!r}, but must be a number: connect another node's audio."
        )
    return waveform, int(sample_rate)


def sound_of(audio: Any) -> Waveform | FileSound | None:
    """ComfyUI's AUDIO, or the sound of a file. None without samples. Raises `InvalidRequestError` as `Waveform`."""
    if audio is None or isinstance(audio, FileSound):
        return audio
    waveform = Waveform(audio)
    return None if waveform.is_empty else waveform


def check_sound(sound: Waveform | FileSound) -> None:
    """Raise `InvalidRequestError` for a sound that cannot be encoded."""
    if sound.channels not in LAYOUTS:
        raise InvalidRequestError(
            f"The audio has {sound.channels} channels, but can have at most {max(LAYOUTS)}: split or mix them first."
        )
    if not LOWEST_RATE <= sound.sample_rate <= HIGHEST_RATE:
        raise InvalidRequestError(
            f"The audio's sample_rate is {sound.sample_rate}, but must be {LOWEST_RATE} to {HIGHEST_RATE}."
        )


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
