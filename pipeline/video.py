"""What a generation or an export returns."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

GIF_RATE_DENOMINATOR = 100


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
class ExtendedVideo:
    """A clip and what was made to follow it.

    `frames`: (F, height, width, 3), float32 in 0..1, on the CPU. The first are the clip's own.
    `new_frames`: how many of the last ones were made.
    `seed`: that of the first part; each further one has the next.
    `notes`: for the user, where the parts differ from what was asked for, each a sentence.
    """

    frames: "Tensor"
    new_frames: int
    seed: int
    fps: int
    notes: tuple[str, ...] = ()

    @property
    def added(self) -> "Tensor":
        """The frames that were made."""
        return self.frames[-self.new_frames :]

    @property
    def summary(self) -> str:
        """The numbers of frames in words."""
        return f"{self.new_frames} frames added to {len(self.frames) - self.new_frames}"


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A finished video file.

    `file_size`: bytes. `width`, `height`: pixels. `fps`: frames per second. `duration`: seconds, of the pictures.
    `notes`: for the user, where the file differs from what was asked for, each a sentence.
    """

    path: Path
    content_type: str
    file_size: int
    width: int
    height: int
    fps: Fraction
    duration: float
    num_frames: int
    notes: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return self.path.name


@dataclass(frozen=True, kw_only=True)
class RemoteVideo(VideoFile):
    """A video that fal made: the server's own file. Every number was read from the decoded file.

    `seed`: the seed that was used, None where fal did not say. `url`: where fal keeps it, for anyone who knows the
    address; None where it came inside the reply, or was on disk already. `job_name`: the journal's name of its record,
    None where no journal was kept.
    """

    seed: int | None
    url: str | None = None
    job_name: str | None = None


def gif_frame_rate(num_frames: int, seconds: Fraction | float) -> Fraction:
    """Return the fps of a GIF that shows `num_frames` in `seconds`.

    FFmpeg takes a GIF's rate from its shortest delay, which is up to 11 % too fast: delays are whole hundredths of a
    second, and only their average is right.
    """
    return Fraction(num_frames / seconds).limit_denominator(GIF_RATE_DENOMINATOR)
