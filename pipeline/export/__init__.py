"""Frames to files: four formats at four qualities, with PyAV alone.

from cosmos_predict25.pipeline.export import export

export(frames, "conveyor.mp4", fps=16, format="X264 (.mp4)", quality="high")
"""

from .copy import remux
from .export import export

__all__ = ["export", "remux"]
