"""The four kinds of video file: what each is called, how it is recognised and what it holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import InvalidRequestError


@dataclass(frozen=True)
class VideoFormat:
    """One kind of video file.

    `name`: as fal's API spells it. `container`, `codec`: FFmpeg's names. `magic`: what the first bytes of a file match.
    `html_element`: which shows it in browsers, if any does.
    """

    name: str
    suffix: str
    content_type: str
    container: str
    codec: str
    has_alpha: bool
    has_sound: bool
    magic: re.Pattern[bytes]
    html_element: Literal["video", "img"] | None


_ISO_MEDIA = re.compile(rb".{4}ftyp", re.DOTALL)
_MATROSKA = re.compile(rb"\x1a\x45\xdf\xa3")
_GIF = re.compile(rb"GIF8[79]a")

FORMATS: Mapping[str, VideoFormat] = {
    format.name: format
    for format in (
        VideoFormat("X264 (.mp4)", ".mp4", "video/mp4", "mp4", "h264", False, True, _ISO_MEDIA, "video"),
        VideoFormat("VP9 (.webm)", ".webm", "video/webm", "webm", "vp9", True, True, _MATROSKA, "video"),
        VideoFormat("PRORES4444 (.mov)", ".mov", "video/quicktime", "mov", "prores", True, True, _ISO_MEDIA, None),
        VideoFormat("GIF (.gif)", ".gif", "image/gif", "gif", "gif", True, False, _GIF, "img"),
    )
}
"""By name; the first is the default."""


def find_format(name: str) -> VideoFormat:
    """Return the format of that name. Raises `InvalidRequestError` when there is none."""
    if name not in FORMATS:
        raise InvalidRequestError(f"format is {name!r}, but must be one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def format_of_suffix(suffix: str) -> VideoFormat | None:
    """Return the format whose files end in `suffix`, in either case; None for another suffix."""
    return next((format for format in FORMATS.values() if format.suffix == suffix.lower()), None)
