"""Which of NVIDIA's trainings a checkpoint comes from, and the settings that NVIDIA runs each with."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..request import DISTILLED as DISTILLED_SCHEDULE
from ..request import MAX_DISTILLED_STEPS

CONDITIONING_TIMESTEP = 0.0001
"""Of a latent frame that is given, in place of its sigma, in the post-trained 2B model."""
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
"""Flow sigmas of equal distances, shifted by 5 towards noise."""
HEADS_OF_14B = 40


@dataclass(frozen=True)
class Variant:
    """A training of NVIDIA's. `scheduler_config`: of its sampler, in diffusers' fields.

    `conditioning_timestep`: of a latent frame that is given, in place of its sigma; None where it has that of the
    others.
    """

    name: str
    scheduler_config: Mapping[str, Any]
    conditioning_timestep: float | None
    is_distilled: bool = False

    def warning(self, schedule: str) -> str:
        """What a video with `schedule`, one of a request, will suffer from; nothing where it is right."""
        if self.is_distilled == (schedule == DISTILLED_SCHEDULE):
            return ""
        if self.is_distilled:
            return (
                f"The checkpoint is NVIDIA's distilled one, by its name, which {schedule!r} spoils: set schedule to "
                f"{DISTILLED_SCHEDULE!r}, with 1 to {MAX_DISTILLED_STEPS} steps and guidance_scale 1."
            )
        return f"The schedule {schedule!r} spoils what is not NVIDIA's distilled checkpoint, and this is {self.name}."


POST_TRAINED = Variant("2B post-trained", KARRAS_CONFIG, CONDITIONING_TIMESTEP)
OTHERS = Variant("14B or 2B pre-trained", SHIFTED_CONFIG, None)
DISTILLED = Variant("2B distilled", KARRAS_CONFIG, CONDITIONING_TIMESTEP, is_distilled=True)
VARIANTS = {variant.name: variant for variant in (POST_TRAINED, OTHERS, DISTILLED)}

IDS = {"81edfebe": POST_TRAINED, "d20b7120": OTHERS, "575edf0f": DISTILLED}
"""How the names of NVIDIA's own files of the 2B model begin."""
WORDS = {r"distill": DISTILLED, r"post[-_ .]?train": POST_TRAINED, r"pre[-_ .]?train": OTHERS}
WORDS_OF_FOLDERS = {r"^distilled$": DISTILLED, r"^post-trained$": POST_TRAINED, r"^pre-trained$": OTHERS}
"""As NVIDIA's repository has them: a folder "pretrained" may hold anything."""


def recognise(place: Path, heads: int) -> Variant:
    """The variant of a transformer with so many `heads`, in a file or a folder in diffusers layout.

    The 14B model is known by its heads. The trainings of the 2B model have the same shapes: they are known by the name
    of `place`, of the two folders that it is in, or of the revision that it was downloaded as. Without a name it is the
    post-trained one, and what was trained from it.
    """
    if heads == HEADS_OF_14B:
        return OTHERS
    for table, texts in ((IDS, [place.name]), (WORDS, [place.name]), (WORDS_OF_FOLDERS, list(_origins(place)))):
        for pattern, variant in table.items():
            if any(re.search(pattern, text, re.IGNORECASE) for text in texts):
                return variant
    return POST_TRAINED


def _origins(place: Path) -> Iterator[str]:
    """The folders above `place`, and the last word of the revision where it is in Hugging Face's cache or a clone."""
    yield from (parent.name for parent in place.absolute().parents[:2])
    references = place.absolute().parents[1] / "refs"
    for file in references.rglob("*") if place.parent.name == "snapshots" else ():
        if file.is_file() and file.read_text(encoding="utf-8", errors="replace").strip() == place.name:
            yield file.name
    head = place / ".git" / "HEAD"
    if head.is_file():
        yield head.read_text(encoding="utf-8", errors="replace").strip().rpartition("/")[2]
