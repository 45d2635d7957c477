"""What a generation returns."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LocalVideo:
    """A video made on this machine.

    `frames`: (num_frames, height, width, 3), float32 in 0..1, on the CPU.
    `latents`: (1, 16, T, height/8, width/8), float32 on the CPU, in the scale that the Wan 2.1 VAE decodes. They decode
    to 4 * (T - 1) + 1 frames, of which `frames` are the first.
    `seed`: the seed that was used.
    """

    frames: "Tensor"
    latents: "Tensor"
    seed: int
    fps: int


@dataclass(frozen=True)
class RemoteVideo:
    """A video that fal made: the server's own file. Every number was read from the decoded file.

    `width`, `height`: pixels. `duration`: seconds. `file_size`: bytes. `seed`: the seed that was used,
    None where fal did not say. `notes`: for the user, where the file is not what was asked for or announced.
    """

    path: Path
    content_type: str
    file_size: int
    width: int
    height: int
    fps: Fraction
    duration: float
    num_frames: int
    seed: int | None
    notes: tuple[str, ...] = ()
