"""Frames to files: four formats at four qualities, with PyAV alone.

from cosmos_predict25.pipeline.export import export

export(frames, "conveyor.mp4", fps=16, format="X264 (.mp4)", quality="high")
"""

from .copy import remux
from .export import export
from .mp4 import mp4_bytes

__all__ = ["export", "mp4_bytes", "remux"]
