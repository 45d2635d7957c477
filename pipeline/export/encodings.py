"""The four formats and what low, medium, high and maximum mean to each encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..errors import InvalidRequestError
from ..request import VIDEO_OUTPUT_TYPES, VIDEO_QUALITIES


@dataclass(frozen=True)
class Format:
    """How one of `VIDEO_OUTPUT_TYPES` is written. Option names and values are FFmpeg's.

    `pixel_format_with_alpha`: None where transparency is lost.
    `even_sides`: width and height must be even, because there is one colour sample for 2x2 pixels.
    `audio_codec`: None where there is no sound.
    `qualities`: the encoder's options for each of `VIDEO_QUALITIES`.
    """

    name: str
    container: str
    content_type: str
    codec: str
    pixel_format: str
    pixel_format_with_alpha: str | None
    even_sides: bool
    max_side: int
    max_fps: int
    audio_codec: str | None
    container_options: Mapping[str, str]
    qualities: Mapping[str, Mapping[str, str]]
    codec_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_metadata(self) -> bool:
        return self.container != "gif"

    @property
    def extension(self) -> str:
        return f".{self.container}"

    def options(self, quality: str) -> dict[str, str]:
        """The encoder's options. Raises `InvalidRequestError` for a quality that does not exist."""
        if quality not in self.qualities:
            raise InvalidRequestError(f"quality is {quality!r}, but must be one of {', '.join(self.qualities)}.")
        return {**self.codec_options, **self.qualities[quality]}

    def check_fps(self, fps: Fraction) -> None:
        """Raise `InvalidRequestError` for a frame rate that the format cannot keep."""
        if not Fraction(1, 100) <= fps <= self.max_fps:
            raise InvalidRequestError(f"fps is {float(fps):g}, but {self.name} takes 0.01 to {self.max_fps}.")

    def check_size(self, width: int, height: int) -> None:
        """Raise `InvalidRequestError` for frames that the format cannot hold."""
        if not (1 <= width <= self.max_side and 1 <= height <= self.max_side):
            raise InvalidRequestError(
                f"The frames are {width}x{height} pixels, but {self.name} takes sides of 1 to {self.max_side}."
            )


def check_suffix(path: Path, target: Format) -> None:
    """Raise `InvalidRequestError` for a name that would say another format than the file has."""
    for other in FORMATS.values():
        if other is not target and path.suffix.lower() == other.extension:
            raise InvalidRequestError(
                f"The file's name ends in {path.suffix}, but format is {target.name!r}: "
                f"end it in {target.extension}, or choose {other.name!r}."
            )


def find_format(name: str) -> Format:
    """The format of that name. Raises `InvalidRequestError` when there is none."""
    if name not in FORMATS:
        raise InvalidRequestError(f"format is {name!r}, but must be one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _by_quality(option: str, values: tuple[int, int, int, int]) -> dict[str, dict[str, str]]:
    return {quality: {option: str(value)} for quality, value in zip(VIDEO_QUALITIES, values, strict=True)}


# With use_metadata_tags a key keeps its name, and with faststart a browser can play before all is loaded.
_MOV_OPTIONS = {"movflags": "use_metadata_tags+faststart"}

# Where the mean of 2x2 pixels lies; without it decoders take it to lie on the left.
_CHROMA = {"chroma_sample_location": "center"}

_X264 = Format(
    name="X264 (.mp4)",
    container="mp4",
    content_type="video/mp4",
    codec="libx264",
    pixel_format="yuv420p",
    pixel_format_with_alpha=None,
    even_sides=True,
    max_side=16384,
    max_fps=1000,
    audio_codec="aac",
    container_options=_MOV_OPTIONS,
    codec_options={**_CHROMA, "preset": "veryfast"},
    qualities=_by_quality("crf", (28, 22, 17, 10)),
)
_VP9 = Format(
    name="VP9 (.webm)",
    container="webm",
    content_type="video/webm",
    codec="libvpx-vp9",
    pixel_format="yuv420p",
    pixel_format_with_alpha="yuva420p",
    even_sides=True,
    max_side=16384,
    max_fps=1000,
    audio_codec="libopus",
    container_options={},
    codec_options={
        **_CHROMA,
        "b": "0",
        # Measured at equal PSNR: half the time of "good" with cpu-used 4, and about its size.
        "deadline": "realtime",
        "cpu-used": "5",
        "lag-in-frames": "0",  # saves 50 MB of frames that this deadline does not look at
        "row-mt": "1",
        "tile-columns": "2",
    },
    qualities=_by_quality("crf", (42, 34, 24, 8)),
)
_PRORES = Format(
    name="PRORES4444 (.mov)",
    container="mov",
    content_type="video/quicktime",
    codec="prores_ks",
    pixel_format="yuv444p10le",
    pixel_format_with_alpha="yuva444p10le",
    even_sides=False,
    max_side=16384,
    max_fps=1000,
    audio_codec="pcm_s16le",
    container_options=_MOV_OPTIONS,
    codec_options={"profile": "4444", "vendor": "apl0"},
    qualities=_by_quality("global_quality", (8 * 118, 4 * 118, 2 * 118, 1 * 118)),
)
_GIF = Format(
    name="GIF (.gif)",
    container="gif",
    content_type="image/gif",
    codec="gif",
    pixel_format="pal8",
    pixel_format_with_alpha="pal8",
    even_sides=False,
    max_side=16384,
    max_fps=50,  # browsers slow down what shows a frame for less than 2/100 of a second
    audio_codec=None,
    container_options={"loop": "0"},
    qualities={quality: {} for quality in VIDEO_QUALITIES},  # see gif.py
)
FORMATS: Mapping[str, Format] = dict(zip(VIDEO_OUTPUT_TYPES, (_X264, _VP9, _PRORES, _GIF), strict=True))
