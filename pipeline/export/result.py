"""What an export returns."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path


@dataclass(frozen=True)
class ExportedVideo:
    """A finished file.

    `fps`: frames per second, as a fraction. `duration`: seconds, of the pictures. `file_size`: bytes.
    `notes`: what had to be done to the frames or the audio, each a sentence for the person at the graph.
    """

    path: Path
    content_type: str
    file_name: str
    file_size: int
    width: int
    height: int
    fps: Fraction
    duration: float
    num_frames: int
    notes: tuple[str, ...] = ()
