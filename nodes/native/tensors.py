"""Read tensors as ComfyUI's own loaders do, with the scales of float8 layers."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import comfy.utils
from torch import Tensor

from ...pipeline.local.load.original_names import bare_name
from ...pipeline.local.load.reading import as_wrong_checkpoint, is_system_error
from ...pipeline.local.load.weights import SAFETENSORS, SCALES, Source, TensorFile
from .compat import convert_old_quants


def weights_alone(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Return `sources` without the scales of float8 layers."""
    return {name: source for name, source in sources.items() if not name.endswith(SCALES)}


def read_tensors(paths: Iterable[Path], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    """Return all tensors of `paths`, named by `rename`; None drops one. A scale goes with its layer's weight."""
    tensors = {name: tensor for path in paths for name, tensor in _read_file(path).items()}
    renamed = {_rename_layer(name, rename): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in renamed.items() if name is not None}


def _read_file(path: Path) -> dict[str, Tensor]:
    with as_wrong_checkpoint(path):
        tensors, metadata = _load_as_comfyui(path) or _load_ourselves(path)
    # Once for what the metadata says of layers, once for what a tensor `scaled_fp8` does, which may have a prefix.
    tensors, _ = convert_old_quants(tensors, "", metadata)
    tensors, _ = convert_old_quants({bare_name(name): value for name, value in tensors.items()})
    return tensors


def _load_as_comfyui(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return None for files that ComfyUI's loader does not read: pickles, and disks without memory maps."""
    if path.suffix.lower() not in SAFETENSORS:
        return None
    try:
        tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    except Exception as error:
        if not is_system_error(error):
            raise
        return None
    return tensors, metadata or {}


def _load_ourselves(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    file = TensorFile(path)
    return {name: file.read(name, None) for name in file.names}, file.metadata


def _rename_layer(name: str, rename: Callable[[str], str | None]) -> str | None:
    layer, _, kind = name.rpartition(".")
    if kind not in SCALES:
        return rename(name)
    weight = rename(f"{layer}.weight")
    return weight and weight.removesuffix("weight") + kind
