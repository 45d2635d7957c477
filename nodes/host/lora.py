"""LoRAs as ComfyUI's patches, which leave a model's own weights unchanged."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.sd
import torch
from comfy.lora import load_lora
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter.lora import LoRAAdapter
from torch import Tensor

from ...pipeline.local.load.lora import Lora, read_lora
from ...pipeline.local.load.original_names import diffusers_name
from ...pipeline.local.load.saved import PROJECTION
from ...pipeline.local.prompt_cache import weights_hash

if TYPE_CHECKING:  # the local room needs diffusers
    from .memory import HostedModel


class DoRAAdapter(LoRAAdapter):
    """Weight-decomposed LoRA: magnitude * (W + s BA) / |W + s BA|, the norm of each row or column.

    ComfyUI's own divides by |W| if the magnitudes are those of rows, as in PEFT.
    Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5.
    """

    def calculate_weight(self, weight: Tensor, key: str, strength: float, *args: Any, **options: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        up, down, alpha, _, magnitude, _ = (
            value.to(weight.device, torch.float32) if isinstance(value, Tensor) else value for value in self.weights
        )
        scale = 1.0 if alpha is None else alpha / len(down)
        changed = weight.float() + scale * (up @ down)
        changed *= magnitude / changed.norm(dim=int(magnitude.shape[1] == 1), keepdim=True)
        return (weight + strength * (changed - weight)).to(weight.dtype)


def with_lora(
    model: "ModelPatcher | HostedModel", clip: comfy.sd.CLIP | None, file: Path, strength: float
) -> tuple["ModelPatcher | HostedModel", comfy.sd.CLIP | None, int, Lora]:
    """Return `model` and `clip` with the LoRA in `file`, the number of changed layers, and the LoRA.

    `clip`: the CLIP for a MODEL, for the text projection; a `HostedModel` has its own.
    Raises `WrongCheckpointError` if nothing in the file fits.
    """
    is_native = isinstance(model, ModelPatcher)
    transformer = model if is_native else model.patcher
    text_encoder = (clip.patcher if clip else None) if is_native else model.text_patcher
    layers = dict(_layers(transformer))
    if text_encoder:
        layers |= {name: layer for name, layer in _layers(text_encoder) if name.startswith(PROJECTION)}
    lora = read_lora(file, {name: shape for name, (_, shape) in layers.items()})
    patches = load_lora(lora.tensors, {name: key for name, (key, _) in layers.items()})
    for key, adapter in patches.items():
        if isinstance(adapter, LoRAAdapter) and adapter.weights[4] is not None:
            patches[key] = DoRAAdapter(adapter.loaded_keys, adapter.weights)
    patched = transformer.clone()
    patched.add_patches(patches, strength)
    changes_text = any(name.startswith(PROJECTION) for name in lora.tensors)
    if clip and changes_text:
        clip = clip.clone()
        clip.patcher.add_patches(patches, strength)
    changed = len({key.rpartition(".")[0] for key in patches})
    if isinstance(model, ModelPatcher):
        return patched, clip, changed, lora
    hosted = model.with_transformer(patched)
    if lora.is_distilled and strength:
        hosted = hosted.distilled_by(file.stem)
    if changes_text:
        patched_text = model.text_patcher.clone()
        patched_text.add_patches(patches, strength)
        tensors = {name: tensor for name, tensor in lora.tensors.items() if name.startswith(PROJECTION)}
        hosted = hosted.with_text_encoder(patched_text, weights_hash(tensors, f"{strength}"))
    return hosted, clip, changed, lora


def _layers(patcher: ModelPatcher) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Return diffusers' name of each layer, ComfyUI's key of its weight, and the weight's shape."""
    for key, weight in patcher.model.state_dict().items():
        name = diffusers_name(key.removeprefix("part."))
        if name and name.endswith(".weight"):
            yield name.removesuffix(".weight"), (key, tuple(weight.shape))
