"""The one way to read a video file: its pictures and its sound, a few at a time."""

from .pictures import FileClip
from .sound import FileSound

__all__ = ["FileClip", "FileSound"]
