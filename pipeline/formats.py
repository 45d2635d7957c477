"""The four video file formats: names, signatures and contents."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import InvalidRequestError


@dataclass(frozen=True)
class VideoFormat:
    """One video file format.

    `name`: as spelled in fal's API. `container`, `codec`: FFmpeg's names. `magic`: a pattern for the first bytes of a
    file. `html_element`: the element that shows it in a browser, or None.
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
    """Return the format with this name. Raises `InvalidRequestError` if there is none."""
    if name not in FORMATS:
        raise InvalidRequestError(f"format is {name!r}, but must be one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def format_of_suffix(suffix: str) -> VideoFormat | None:
    """Return the format whose files end in `suffix`, ignoring case, or None."""
    return next((format for format in FORMATS.values() if format.suffix == suffix.lower()), None)
