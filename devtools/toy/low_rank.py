"""LoRA: low-rank parts added to the weights of a frozen transformer, and their file."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...pipeline.local.load.lora import DOWN, UP, read_lora


class LowRank(nn.Module):
    """A weight and what a LoRA adds to it, the product of two thin matrices: `up` (out, rank), `down` (rank, in)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_low_rank(transformer: nn.Module, targets: tuple[str, ...], rank: int) -> nn.ModuleDict:
    """Freeze `transformer`, and add a part to each layer whose name ends with one of `targets`: a part by layer."""
    transformer.requires_grad_(False)
    parts = nn.ModuleDict()
    for name, layer in list(transformer.named_modules()):
        if name.endswith(targets):
            parts[name.replace(".", "/")] = part = LowRank(layer.weight, rank)
            parametrize.register_parametrization(layer, "weight", part)
    return parts


def save_lora(file: Path, parts: nn.ModuleDict, rank: int, **metadata: str) -> None:
    """Write the parts of `add_low_rank` in float16, named as diffusers names them."""
    tensors = {}
    for name, part in parts.items():
        layer: Any = part
        prefix = f"transformer.{name.replace('/', '.')}"
        tensors[f"{prefix}.lora_A.weight"] = layer.down.detach().half()
        tensors[f"{prefix}.lora_B.weight"] = layer.up.detach().half()
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"transformer.r": rank, "transformer.lora_alpha": rank}
    save_file(tensors, file, {"format": "pt", "lora_adapter_metadata": json.dumps(about), **metadata})


def merge_lora(transformer: nn.Module, file: Path) -> None:
    """Add a LoRA of scale 1 to the weights."""
    weights = dict(transformer.named_parameters())
    shapes = {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in weights.items()}
    tensors = read_lora(file, shapes).tensors
    for name, up in tensors.items():
        if name.endswith(UP):
            layer = name.removesuffix(f".{UP}")
            weight = weights[f"{layer}.weight"]
            weight.data = weight + up.float() @ tensors[f"{layer}.{DOWN}"].float()
