"""A short clip as the bytes of a file."""

import tempfile
from pathlib import Path

from torch import Tensor

from ..request import FPS
from .export import export


def mp4_bytes(frames: Tensor) -> bytes:
    """Encode `frames`, (F, H, W, 3) as for `export`, to an MP4 at 16 fps and maximum quality, for `fal.extend`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clip.mp4")
        export(frames, file, fps=FPS, quality="maximum")
        return file.read_bytes()
