"""LoRAs merged into the weights of a model, for plain Python. In ComfyUI they are patches of its own."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WrongCheckpointError
from .load.lora import DOWN, OFT, PRODUCTS, UP, Lora, read_lora
from .load.saved import PROJECTION
from .model import LocalModel


@torch.no_grad()
def merge_lora(model: LocalModel, file: Path, strength: float = 1.0) -> Lora:
    """Change the weights of `model` by the LoRA, DoRA, LoHa or LoKr in `file`, and return what was read.

    The formats are those of `read_lora`. `strength`: 1 as it was trained, 0 off, below 0 inverted.
    Raises `WrongCheckpointError` if nothing in the file fits, and for OFT.
    """
    layers = layers_of(model)
    lora = read_lora(file, {name: tuple(layer.weight.shape) for name, layer in layers.items()})
    changes: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in lora.tensors.items():
        layer, kind = next((layer, name[len(layer) + 1 :]) for layer in layers if name.startswith(f"{layer}."))
        changes[layer][kind] = tensor.float()
    for name, kinds in changes.items():
        if OFT in kinds:
            raise WrongCheckpointError(f"{file} is OFT, which cannot be merged here: use the LoRA Loader in ComfyUI.")
        weight = layers[name].weight
        changed = changed_weight(weight.float(), kinds, strength).to(weight.dtype)
        layers[name].weight = nn.Parameter(changed, requires_grad=False)  # a loaded weight may be a part of its file
    return lora


def layers_of(model: LocalModel) -> dict[str, Any]:
    """Return diffusers' name of every layer with a weight that a LoRA may change, the text projection included."""
    found: dict[str, Any] = dict(model.transformer.named_modules())
    found |= {f"{PROJECTION}{name}": layer for name, layer in model.text_encoder.crossattn_proj.named_modules()}
    return {name: layer for name, layer in found.items() if isinstance(getattr(layer, "weight", None), Tensor)}


def changed_weight(weight: Tensor, kinds: dict[str, Tensor], strength: float) -> Tensor:
    """Return `weight` after the change by `kinds`, in float32.

    DoRA: magnitude * (W + s BA) / |W + s BA|. Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation",
    equation 5.
    """
    change = change_of(kinds).reshape(weight.shape)
    magnitude = kinds.get("dora_scale")
    if magnitude is not None:
        whole = weight + change
        change = magnitude * whole / whole.norm(dim=int(magnitude.shape[1] == 1), keepdim=True) - weight
    return weight + strength * change


def change_of(kinds: dict[str, Tensor]) -> Tensor:
    """Return what the factors of one layer add to its weight."""
    if "diff" in kinds:
        return kinds["diff"]
    if UP in kinds:
        return scale_of(kinds, DOWN) * kinds[UP].flatten(1) @ kinds[DOWN].flatten(1)
    if "hada_w1_a" in kinds:
        halves = [kinds[f"hada_{half}_a"] @ kinds[f"hada_{half}_b"] for half in ("w1", "w2")]
        return scale_of(kinds, "hada_w1_b") * halves[0] * halves[1]
    first, second = (
        kinds[whole] if whole in kinds else kinds[left] @ kinds[right] for whole, (left, right) in PRODUCTS.items()
    )
    ranked = next((kind for kind in ("lokr_w2_b", "lokr_w1_b") if kind in kinds), "")
    return scale_of(kinds, ranked) * torch.kron(first, second)


def scale_of(kinds: dict[str, Tensor], ranked: str) -> float:
    """Return alpha / rank. `ranked`: the tensor with the rank as first dimension; without one the scale is 1."""
    if "alpha" not in kinds or not ranked:
        return 1.0
    return kinds["alpha"].item() / len(kinds[ranked])
