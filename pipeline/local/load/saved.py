"""Files that ComfyUI's save nodes write: several parts in one, or a transformer without its text projection."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ...errors import CheckpointNotFoundError, CosmosError
from .find import shards_of
from .original_names import diffusers_name
from .weights import Source, TensorFile, index_tensors, weight_files

TRANSFORMER, VAE, TEXT_ENCODER = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
"""What the names of each part begin with in a file of several."""
PROJECTION = "crossattn_proj."
"""It stands in NVIDIA's file of the transformer. ComfyUI saves it with the CLIP."""


def own_part(sources: dict[str, Source], part: str) -> dict[str, Source]:
    """Return what of a file is `part`; all of it where the file is not of several parts."""
    found = {name: source for name, source in sources.items() if source.name.startswith(part)}
    return found or sources


def has_part(file: Path, part: str) -> bool:
    """Return whether a file of several parts has `part`."""
    return any(name.startswith(part) for each in shards_of(file) for name in TensorFile(each).names)


def transformer_sources(place: Path) -> dict[str, Source]:
    """Return the tensors of a transformer, by diffusers' names: in a folder in diffusers layout, or in a file."""
    folder = place / "transformer"
    files = weight_files(folder) if folder.is_dir() else shards_of(place)
    sources = index_tensors(files, diffusers_name)
    projection = {name: source for name, source in sources.items() if _is_projection(name)}
    return {**own_part(sources, TRANSFORMER), **projection}


def projection_of(place: Path) -> dict[str, Source]:
    """Return the text projection of a checkpoint's folder, or of a file of any part. Empty where it has none."""
    return {name: source for name, source in transformer_sources(place).items() if _is_projection(name)}


def without_projection(sources: Mapping[str, Source]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors but the text projection."""
    return {name: source.file.shape(source.name) for name, source in sources.items() if not _is_projection(name)}


def find_projection(transformer: Path, text_encoder: Path | None, checkpoints: Mapping[str, Path]) -> Path | None:
    """Return where a transformer's file without a text projection takes it from; None where it has its own.

    That is the text encoder's file where CLIPSave wrote it, else the one of `checkpoints` with the same shapes.
    Raises `CheckpointNotFoundError` where none or several of them fit.
    """
    sources = transformer_sources(transformer)
    shapes = without_projection(sources)
    if len(shapes) < len(sources) or "transformer_blocks.0.attn2.to_k.weight" not in shapes:
        return None
    if text_encoder and text_encoder.is_file() and projection_of(text_encoder):
        return text_encoder
    fitting = {name: place for name, place in checkpoints.items() if _fits(place, shapes)}
    first = next(iter(fitting.values()), None)
    if first and all(_same_projection(first, other) for other in fitting.values()):
        return first
    found = f"{', '.join(fitting)} fit" if fitting else "no checkpoint with the same shapes was found"
    raise CheckpointNotFoundError(
        f"{transformer} has no text projection (crossattn_proj), as a file that ModelSave wrote, and {found}. Choose "
        "in projection_from the checkpoint that the MODEL was loaded from."
    )


def _fits(place: Path, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    try:
        sources = transformer_sources(place)
    except CosmosError:  # another model's folder, or a broken file
        return False
    return len(sources) > len(shapes) and without_projection(sources) == shapes


def _same_projection(one: Path, other: Path) -> bool:
    pairs = zip(_values(one).items(), _values(other).items(), strict=False)
    return all(name == another and value.equal(more) for (name, value), (another, more) in pairs)


def _values(place: Path) -> dict[str, torch.Tensor]:
    return {name: source.file.read(source.name, None).float() for name, source in sorted(projection_of(place).items())}


def _is_projection(name: str) -> bool:
    return name.startswith(PROJECTION)
