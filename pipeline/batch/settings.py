"""How the videos of a batch are made: with which checkpoint and LoRAs, on which device, in which format."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointNotFoundError, InvalidRequestError
from ..local.load.find import size_of_weights

if TYPE_CHECKING:
    from ..local.model import LocalModel


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model.

    `place`: a folder in diffusers layout, or a file of the transformer. `vae`, `text_encoder`, `base`: of a file, as
    `vae`, `text_encoder_folder` and `rest` of `load_single_files`. `loras`: files with their strengths.
    """

    place: Path
    vae: Path | None = None
    text_encoder: Path | None = None
    base: Path | None = None
    loras: tuple[tuple[Path, float], ...] = ()

    @property
    def name(self) -> str:
        return " + ".join([self.place.name, *(f"{file.name}:{strength:g}" for file, strength in self.loras)])

    @property
    def bytes(self) -> int:
        """The size of the weights."""
        files = [self.place, self.vae, self.text_encoder, self.base]
        return sum(
            size_of_weights(each) if each.is_dir() else each.stat().st_size for each in files if each and each.exists()
        )

    def check(self) -> None:
        """Raise `CheckpointNotFoundError` for a missing file, and `InvalidRequestError` for one too many or too few."""
        parts = {"--vae": self.vae, "--text-encoder": self.text_encoder, "--base": self.base}
        named = [("--checkpoint", self.place), *parts.items(), *(("--lora", file) for file, _ in self.loras)]
        for option, file in named:
            if file and not file.exists():
                raise CheckpointNotFoundError(f"{option} is {str(file)!r}, but there is no such file or folder.")
        given = [option for option, file in parts.items() if file]
        if self.place.is_dir() and given:
            raise InvalidRequestError(f"{given[0]} is for a single file, but --checkpoint is the folder {self.place}.")

    def check_parts(self) -> None:
        """Raise `InvalidRequestError` where no file has a part that the file of the transformer lacks."""
        from ..local.load.saved import TEXT_ENCODER, VAE, has_part

        for option, file, part in (("--vae", self.vae, VAE), ("--text-encoder", self.text_encoder, TEXT_ENCODER)):
            if not (file or self.base or has_part(self.place, part)):
                raise InvalidRequestError(
                    f"{self.place} has no {option[2:]}: give {option}, or in --base the checkpoint's folder in "
                    "diffusers layout."
                )


def lora_of(text: str) -> tuple[Path, float]:
    """Return the file and the strength of "FILE:STRENGTH". Without a strength it is 1."""
    file, found, strength = text.rpartition(":")
    try:
        return (Path(file), float(strength)) if found else (Path(text), 1.0)
    except ValueError:  # a drive of Windows
        return Path(text), 1.0


@dataclass(frozen=True)
class Settings:
    """How one process makes videos. `device`: of torch, as "cuda:1". `threads`: of a CPU, or None for all."""

    checkpoint: Checkpoint
    device: str
    format: str
    quality: str
    threads: int | None = None

    def load(self) -> "LocalModel":
        """Load the checkpoint, in bfloat16 for a GPU, and merge the LoRAs.

        Raises `CheckpointNotFoundError` and `WrongCheckpointError`.
        """
        import torch

        from ..local.load.checkpoint import load_pipeline_folder, load_single_files
        from ..local.lora import merge_lora

        checkpoint, dtype = self.checkpoint, None if self.device == "cpu" else torch.bfloat16
        if checkpoint.place.is_file():
            checkpoint.check_parts()
            parts = checkpoint.place, checkpoint.vae, checkpoint.text_encoder
            model = load_single_files(*parts, dtype, rest=checkpoint.base)
        else:
            model = load_pipeline_folder(checkpoint.place, dtype)
        for file, strength in checkpoint.loras:
            if merge_lora(model, file, strength).is_distilled and strength:
                model = replace(model, variant=model.variant.distilled_by(file.stem))
        return model
