"""The results of a generation or an export."""

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
    to 4 * (T - 1) + 1 frames; `frames` are the first ones. `seed`: the seed that was used.
    """

    frames: "Tensor"
    latents: "Tensor"
    seed: int
    fps: int


@dataclass(frozen=True)
class ExtendedVideo:
    """A clip and its continuation.

    `frames`: (F, height, width, 3), float32 in 0..1, on the CPU. The first ones are the clip's own.
    `new_frames`: the number of frames in the continuation. `seed`: the seed of the first segment; each later one uses
    the next. `notes`: sentences for the user on differences from the request.
    """

    frames: "Tensor"
    new_frames: int
    seed: int
    fps: int
    notes: tuple[str, ...] = ()

    @property
    def added(self) -> "Tensor":
        """The continuation alone."""
        return self.frames[-self.new_frames :]

    @property
    def summary(self) -> str:
        """The numbers of frames, as text."""
        return f"{self.new_frames} frames added to {len(self.frames) - self.new_frames}"


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A finished video file.

    `file_size`: in bytes. `width`, `height`: in pixels. `fps`: frames per second. `duration`: of the pictures, in
    seconds. `notes`: sentences for the user on differences from the request.
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
    """A video made on fal: the server's own file. Every number was read from the decoded file.

    `seed`: the seed that was used, or None if fal did not report it. `url`: the URL of fal's copy, readable by anyone
    who knows it; None if the video came inside the reply or was on disk already. `job_name`: the name of its record in
    the journal, or None without a journal.
    """

    seed: int | None
    url: str | None = None
    job_name: str | None = None


def gif_frame_rate(num_frames: int, seconds: Fraction | float) -> Fraction:
    """Return the fps of a GIF with `num_frames` frames in `seconds`.

    FFmpeg derives a GIF's rate from its shortest delay, which is up to 11 % too fast: delays are whole hundredths of a
    second, and only their average is right.
    """
    return Fraction(num_frames / seconds).limit_denominator(GIF_RATE_DENOMINATOR)
