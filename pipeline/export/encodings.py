"""How each format is written, and what low, medium, high and maximum mean to its encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..errors import InvalidRequestError
from ..formats import FORMATS, VideoFormat, find_format, format_of_suffix
from ..request import VIDEO_QUALITIES

MIN_FPS, MAX_FPS = Fraction(1, 100), 1000
LARGE = 1920 * 1088
"""Pixels."""


@dataclass(frozen=True)
class Encoding:
    """How a `VideoFormat` is written. Option names and values are FFmpeg's.

    `pixel_formats`: of opaque frames, and of those with alpha.
    `even_sides`: width and height must be even, because there is one colour sample for 2x2 pixels.
    `max_fps`: of more frames per second, some are left out.
    `audio_encoder`: None where there is no sound.
    `large_options`: of frames with more than `LARGE` pixels, so that the encoder holds few of them.
    `thread_type`: what the encoder's threads share, FRAME, SLICE or AUTO.
    `qualities`: the encoder's options for each of `VIDEO_QUALITIES`.
    """

    format: VideoFormat
    encoder: str
    pixel_formats: tuple[str, str]
    even_sides: bool
    audio_encoder: str | None
    container_options: Mapping[str, str]
    qualities: Mapping[str, Mapping[str, str]]
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    large_options: Mapping[str, str] = field(default_factory=dict)
    max_fps: int = MAX_FPS
    max_side: int = 16384
    thread_type: str = "AUTO"

    @property
    def keeps_metadata(self) -> bool:
        return self.format.container != "gif"

    def options(self, quality: str, pixels: int) -> dict[str, str]:
        """The encoder's options for frames of so many pixels.

        Raises `InvalidRequestError` for a quality that does not exist.
        """
        if quality not in self.qualities:
            raise InvalidRequestError(f"quality is {quality!r}, but must be one of {', '.join(self.qualities)}.")
        large = self.large_options if pixels > LARGE else {}
        return {**self.encoder_options, **large, **self.qualities[quality]}

    @property
    def keeps_pixel_aspect(self) -> bool:
        """Whether PyAV can write the shape of pixels that are not square."""
        return self.format.container in ("mp4", "mov")

    def check_size(self, width: int, height: int) -> None:
        """Raise `InvalidRequestError` for frames that the format cannot hold."""
        if not (1 <= width <= self.max_side and 1 <= height <= self.max_side):
            raise InvalidRequestError(
                f"The frames are {width}x{height} pixels, but {self.format.name} takes sides of 1 to {self.max_side}."
            )


def check_fps(fps: Fraction) -> None:
    """Raise `InvalidRequestError` for a frame rate that no format can keep."""
    if not MIN_FPS <= fps <= MAX_FPS:
        raise InvalidRequestError(
            f"fps is {float(fps):g}, but must be {float(MIN_FPS):g} to {MAX_FPS}: change it. For a video, connect the "
            "images of Get Video Components instead, and set fps."
        )


def check_suffix(path: Path, target: VideoFormat) -> None:
    """Raise `InvalidRequestError` for a name that would say another format than the file has."""
    other = format_of_suffix(path.suffix)
    if other not in (None, target):
        raise InvalidRequestError(
            f"The file's name ends in {path.suffix}, but format is {target.name!r}: "
            f"end it in {target.suffix}, or choose {other.name!r}."
        )


def find_encoding(format: str) -> Encoding:
    """How the format of that name is written. Raises `InvalidRequestError` when there is none."""
    return ENCODINGS[find_format(format).name]


def _by_quality(option: str, values: tuple[float, float, float, float]) -> dict[str, dict[str, str]]:
    return {quality: {option: str(value)} for quality, value in zip(VIDEO_QUALITIES, values, strict=True)}


# With use_metadata_tags a key keeps its name, and with faststart a browser can play before all is loaded.
_MOV_OPTIONS = {"movflags": "use_metadata_tags+faststart"}

_X264 = Encoding(
    format=FORMATS["X264 (.mp4)"],
    encoder="libx264",
    pixel_formats=("yuv420p", "yuv420p"),
    even_sides=True,
    audio_encoder="aac",
    container_options=_MOV_OPTIONS,
    encoder_options={
        "preset": "faster",
        # On real video 6 % smaller than x264's usual aq-mode at the same PSNR and SSIM.
        "aq-mode": "2",
        "aq-strength": "0.9",
        "psy": "0",
    },
    large_options={
        "rc-lookahead": "1",
        "bf": "0",
        "refs": "1",
        "x264-params": "sliced-threads=1:sync-lookahead=0",
        "partitions": "i8x8,i4x4",  # without p8x8 a quarter less time, and neither more bytes nor less quality
    },
    # The offsets give colour what x264 gives it at its slower presets: else it is up to 1 dB worse than luma for them.
    qualities={
        "low": {"crf": "28", "chromaoffset": "-3"},
        "medium": {"crf": "23", "chromaoffset": "-3"},
        "high": {"crf": "17.7", "chromaoffset": "-7", "subq": "6", "trellis": "0"},
        "maximum": {"crf": "10", "chromaoffset": "-4"},
    },
)
_VP9 = Encoding(
    format=FORMATS["VP9 (.webm)"],
    encoder="libvpx-vp9",
    pixel_formats=("yuv420p", "yuva420p"),
    even_sides=True,
    audio_encoder="libopus",
    container_options={},
    encoder_options={
        "b": "0",
        # Measured at equal PSNR: half the time of "good" with cpu-used 4, and about its size.
        "deadline": "realtime",
        "cpu-used": "5",
        # With 16 it would be 2 % smaller, and 35 MB larger in memory, 67 with alpha.
        "lag-in-frames": "0",
        "frame-parallel": "0",  # 0.7 % smaller
        "row-mt": "1",
        "tile-columns": "2",
    },
    qualities=_by_quality("crf", (42, 34, 24, 8)),
)
_PRORES = Encoding(
    format=FORMATS["PRORES4444 (.mov)"],
    encoder="prores_ks",
    pixel_formats=("yuv444p10le", "yuva444p10le"),
    even_sides=False,
    audio_encoder="pcm_s16le",
    container_options=_MOV_OPTIONS,
    encoder_options={"profile": "4444", "vendor": "apl0"},
    thread_type="SLICE",  # else each thread holds frames of its own
    qualities=_by_quality("global_quality", (8 * 118, 4 * 118, 2 * 118, 1 * 118)),
)
_GIF = Encoding(
    format=FORMATS["GIF (.gif)"],
    encoder="gif",
    pixel_formats=("pal8", "pal8"),
    even_sides=False,
    max_fps=50,  # browsers slow down what shows a frame for less than 2/100 of a second
    audio_encoder=None,
    container_options={"loop": "0"},
    qualities={quality: {} for quality in VIDEO_QUALITIES},  # see gif.py
)
ENCODINGS: Mapping[str, Encoding] = {encoding.format.name: encoding for encoding in (_X264, _VP9, _PRORES, _GIF)}
