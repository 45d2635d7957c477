"""Small video files of the kinds that people have: a white flash and a beep at 1, 2 and 3 s, or patches of colour."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
SECONDS, FPS, SAMPLE_RATE = 3.2, 25, 48_000
MARKS = (1.0, 2.0, 3.0)
"""Seconds of the flashes and the beeps."""
LENGTH = 0.2
"""Seconds of each."""
MILLISECOND = Fraction(1, 1000)
DARK, LIGHT = 40, 235

Picture = np.ndarray
Change = Callable[[Any], None]


def is_marked(seconds: float) -> bool:
    """Whether it flashes and beeps at that time."""
    return any(mark - 1e-4 <= seconds < mark + LENGTH for mark in MARKS)


def flashing(seconds: float) -> Picture:
    """(H, W, 3): light where it flashes, and else dark with a lighter quarter at the top left."""
    pixels = np.full((HEIGHT, WIDTH, 3), LIGHT if is_marked(seconds) else DARK, np.uint8)
    pixels[: HEIGHT // 4, : WIDTH // 4] = 120
    return pixels


def beeping(channels: int = 2, rate: int = SAMPLE_RATE, begin: float = 0.0, end: float = SECONDS) -> np.ndarray:
    """(channels, samples), float32."""
    seconds = np.arange(round(begin * rate), round(end * rate)) / rate
    on = np.any([(seconds >= mark) & (seconds < mark + LENGTH) for mark in MARKS], axis=0)
    return np.tile((0.5 * on * np.sin(2 * np.pi * 1000 * seconds)).astype(np.float32), (channels, 1))


@dataclass(frozen=True)
class Sound:
    """`parts`: (begin, end, channels, rate), of what there is, in seconds. `layout`: of the encoder."""

    codec: str = "aac"
    layout: str = "stereo"
    parts: tuple[tuple[float, float, int, int], ...] = ((0.0, SECONDS, 2, SAMPLE_RATE),)
    form: str = "fltp"


@dataclass(frozen=True)
class Video:
    """How a file is made. `times`: seconds of each picture. `late`: seconds by which all times are later."""

    container: str = "mp4"
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    times: tuple[float, ...] = tuple(index / FPS for index in range(round(SECONDS * FPS)))
    rate: Fraction | int = FPS
    sound: Sound | None = field(default_factory=Sound)
    options: tuple[tuple[str, str], ...] = (("g", "12"),)
    late: float = 0.0
    time_base: Fraction | None = None
    prepare: Change | None = None
    picture: Callable[[float], Picture] = flashing
    tag: Change | None = None
    size: tuple[int, int] = (WIDTH, HEIGHT)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.content())
        return path

    def content(self) -> bytes:
        """The bytes of the file."""
        file = io.BytesIO()
        with av.open(file, "w", format=self.container) as output:
            video: Any = output.add_stream(self.codec, rate=self.rate, options=dict(self.options))
            video.width, video.height = self.size
            video.pix_fmt = self.pixel_format
            if self.time_base:
                video.codec_context.time_base = self.time_base
            if self.prepare:
                self.prepare(video)
            sound: Any = None
            if self.sound:
                rate = self.sound.parts[0][3]
                sound = output.add_stream(self.sound.codec, rate=rate, layout=self.sound.layout)
            packets = [packet for seconds in self.times for packet in video.encode(self._frame(seconds))]
            packets += video.encode(None)
            packets += self._heard(sound) if sound else []
            for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
                output.mux(packet)
        return file.getvalue()

    def _frame(self, seconds: float) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(self.picture(seconds), format="rgb24")
        if self.pixel_format != "rgb24":
            frame = frame.reformat(format=self.pixel_format)
        base = self.time_base or 1 / Fraction(self.rate)
        frame.pts, frame.time_base = round((seconds + self.late) / base), base
        if self.tag:
            self.tag(frame)
        return frame

    def _heard(self, stream: Any) -> list[Any]:
        assert self.sound
        packets = []
        for begin, end, channels, rate in self.sound.parts:
            samples = beeping(channels, rate, begin, end)
            if self.sound.form == "s16":
                samples = (samples * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format=self.sound.form, layout=self.sound.layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round((begin + self.late) * rate)
            packets += stream.encode(frame)
        return [*packets, *stream.encode(None)]


def without_default_duration(content: bytes) -> bytes:
    """A WebM as a browser's MediaRecorder writes it: the rate is not in its header."""
    data = bytearray(content)
    place = data.find(b"\x23\xe3\x83")
    size = data[place + 3] & 127
    data[place : place + 4 + size] = b"\xec" + bytes([128 | 2 + size]) + bytes(2 + size)
    return bytes(data)


def damaged(content: bytes, begin: float, end: float) -> bytes:
    """With zeros between two shares of its length."""
    first, last = round(begin * len(content)), round(end * len(content))
    return content[:first] + bytes(last - first) + content[last:]
