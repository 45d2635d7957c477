"""A LoRA as ComfyUI's patches of a model's weights, which stay as they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy.lora import load_lora
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter.lora import LoRAAdapter
from torch import Tensor

from ...pipeline.local.load.lora import read_lora
from ...pipeline.local.load.original_names import diffusers_name

if TYPE_CHECKING:  # the local room needs diffusers
    from .memory import HostedModel


class DoRAAdapter(LoRAAdapter):
    """Weight-decomposed LoRA: magnitude * (W + s BA) / |W + s BA|, the norm of each row or column.

    ComfyUI's own divides by |W| where the magnitudes are those of rows, as PEFT has them.
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
    model: "ModelPatcher | HostedModel", file: Path, strength: float
) -> tuple["ModelPatcher | HostedModel", int, list[str]]:
    """`model` with the LoRA in `file`, how many layers that changes, and the file's tensors that fit none of them.

    Raises `WrongCheckpointError` when nothing in the file fits.
    """
    patcher = model if isinstance(model, ModelPatcher) else model.patcher
    keys, shapes = {}, {}
    for key, weight in patcher.model.state_dict().items():
        name = diffusers_name(key.removeprefix("part."))
        if name and name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            keys[layer], shapes[layer] = key, tuple(weight.shape)
    lora = read_lora(file, shapes)
    patches = load_lora(lora.tensors, keys)
    for key, adapter in patches.items():
        if isinstance(adapter, LoRAAdapter) and adapter.weights[4] is not None:
            patches[key] = DoRAAdapter(adapter.loaded_keys, adapter.weights)
    patched = patcher.clone()
    patched.add_patches(patches, strength)
    result = patched if isinstance(model, ModelPatcher) else model.with_transformer(patched)
    return result, len(patches), lora.left_out
