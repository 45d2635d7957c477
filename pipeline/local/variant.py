"""NVIDIA's trainings of the model, and NVIDIA's settings for each."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..request import DISTILLED as DISTILLED_SCHEDULE
from ..request import DISTILLED_ODE, FOUR_STEPS, FPS, MAX_DISTILLED_STEPS, NUM_FRAMES, STANDARD

if TYPE_CHECKING:
    from ..start import LongClip, Start

CONDITIONING_TIMESTEP = 0.0001
"""The timestep of a known latent frame, instead of its sigma, in the post-trained 2B model."""
KARRAS_CONFIG: Mapping[str, Any] = {
    "use_karras_sigmas": True,
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "sigma_max": 200.0,
    "sigma_min": 0.01,
}
"""Karras sigmas 200 to 0.01, as flow sigmas s / (1 + s)."""
SHIFTED_CONFIG: Mapping[str, Any] = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "flow_shift": 5.0,
}
"""Evenly spaced flow sigmas, shifted by 5 towards noise."""
HEADS_OF_14B = 40


@dataclass(frozen=True)
class Variant:
    """One of NVIDIA's trainings. `scheduler_config`: its sampler's, in diffusers' fields.

    `conditioning_timestep`: the timestep of a known latent frame, or None if it shares the others'.
    `schedule`: the only one that a distilled training can use, or None. `rope_fps`: the frame rate in the positions,
    or None if they do not depend on it. `num_frames`: of its training's videos. `takes_one_frame`: whether they all
    started from one frame.
    """

    name: str
    scheduler_config: Mapping[str, Any]
    conditioning_timestep: float | None
    schedule: str | None = None
    rope_fps: int | None = None
    num_frames: int = NUM_FRAMES.maximum
    takes_one_frame: bool = False

    @property
    def fps(self) -> int:
        """Return the frame rate of the videos."""
        return self.rope_fps or FPS

    def distilled_by(self, lora: str) -> "Variant":
        """Return this variant with a distilled LoRA of that name."""
        return replace(self, name=f"{self.name} with {lora}", schedule=DISTILLED_SCHEDULE)

    def start_of(self, start: "Start | None") -> "Start | None":
        """Return the part of `start` that this training can start from."""
        return start.last_frame() if start and self.takes_one_frame else start

    def overlap_of(self, overlap: int) -> int:
        """Return the number of frames that a segment starts from, at most `overlap`."""
        return 1 if self.takes_one_frame else overlap

    def warnings(self, schedule: str, start: "Start | LongClip | None") -> list[str]:
        """Return a warning for each value of a request that does not suit this training."""
        found = [self.warning(schedule)]
        if self.takes_one_frame and start is None:
            found.append(f"{self.name} was trained to start from a picture: connect image.")
        if self.takes_one_frame and start and start.num_frames > 1:
            found.append(f"{self.name} starts from one frame: only the last one of the clip was used.")
        return [*filter(None, found)]

    def warning(self, schedule: str) -> str:
        """Return a warning if `schedule`, a request's, does not suit this training, or an empty string."""
        if self.schedule == schedule or (self.schedule is None and schedule not in FOUR_STEPS):
            return ""
        if self.schedule:
            return (
                f"By its name, {self.name} is distilled, and the schedule {schedule!r} ruins its videos: set schedule "
                f"to {self.schedule!r}, with 1 to {MAX_DISTILLED_STEPS} steps and guidance_scale 1."
            )
        return (
            f"The schedule {schedule!r} is for a distilled checkpoint or LoRA and ruins the video with {self.name}: "
            f"load one of the two, or set schedule to {STANDARD!r}."
        )


POST_TRAINED = Variant("2B post-trained", KARRAS_CONFIG, CONDITIONING_TIMESTEP)
OTHERS = Variant("14B or 2B pre-trained", SHIFTED_CONFIG, None)
DISTILLED = Variant("2B distilled", KARRAS_CONFIG, CONDITIONING_TIMESTEP, DISTILLED_SCHEDULE)
DFD = Variant("2B DFD", KARRAS_CONFIG, 0, DISTILLED_ODE, rope_fps=24, num_frames=81, takes_one_frame=True)
"""Data-Forcing Distillation of image to video. Source: hao-ai-lab/FastVideo, pull request 1767."""
VARIANTS = {variant.name: variant for variant in (POST_TRAINED, OTHERS, DISTILLED, DFD)}

IDS = {"81edfebe": POST_TRAINED, "d20b7120": OTHERS, "575edf0f": DISTILLED}
"""The first characters of NVIDIA's file names for the 2B model."""
WORDS = {
    r"(?<![a-z])dfd(?![a-z])|net_model": DFD,
    r"distill": DISTILLED,
    r"post[-_ .]?train": POST_TRAINED,
    r"pre[-_ .]?train": OTHERS,
}
WORDS_OF_FOLDERS = {r"^distilled$": DISTILLED, r"^post-trained$": POST_TRAINED, r"^pre-trained$": OTHERS}
"""Spelled as in NVIDIA's repository: a folder "pretrained" may hold anything."""


def recognise(place: Path, heads: int) -> Variant:
    """Return the variant of a transformer with `heads` heads, in a file or in a folder in diffusers layout.

    The 14B model is recognised by its heads. The trainings of the 2B model have the same shapes, so they are recognised
    by the name of `place`, of its two parent folders, or of the downloaded revision. Without such a name, it is the
    post-trained one or a fine-tune of it.
    """
    if heads == HEADS_OF_14B:
        return OTHERS
    for table, texts in ((IDS, [place.name]), (WORDS, [place.name]), (WORDS_OF_FOLDERS, list(_origins(place)))):
        for pattern, variant in table.items():
            if any(re.search(pattern, text, re.IGNORECASE) for text in texts):
                return variant
    return POST_TRAINED


def _origins(place: Path) -> Iterator[str]:
    """Return the folders above `place`, and the revision's last word in Hugging Face's cache or a clone."""
    yield from (parent.name for parent in place.absolute().parents[:2])
    references = place.absolute().parents[1] / "refs"
    for file in references.rglob("*") if place.parent.name == "snapshots" else ():
        if file.is_file() and file.read_text(encoding="utf-8", errors="replace").strip() == place.name:
            yield file.name
    head = place / ".git" / "HEAD"
    if head.is_file():
        yield head.read_text(encoding="utf-8", errors="replace").strip().rpartition("/")[2]
