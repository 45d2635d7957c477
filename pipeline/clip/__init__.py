"""Read video files: pictures and sound, a few at a time."""

from .pictures import FileClip
from .sound import FileSound

__all__ = ["FileClip", "FileSound"]
