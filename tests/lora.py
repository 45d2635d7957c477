"""LoRAs of random numbers, in files named as each trainer names them."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cosmos_predict25.pipeline.local.load.original_names import original_name

RANK, ALPHA = 4, 8.0
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""The layers that diffusers' training script adapts."""

Pairs = dict[str, tuple[Tensor, Tensor]]
"""diffusers' name of a layer -> up (out, RANK) and down (RANK, in)."""


def random_pairs(transformer: nn.Module, seed: int) -> Pairs:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    return {
        name: (random(layer.weight.shape[0], RANK), random(RANK, layer.weight.shape[1]))
        for name, layer in transformer.named_modules()
        if name.endswith(TARGETS)
    }


def merged(weight: Tensor, up: Tensor, down: Tensor, strength: float = 1.0) -> Tensor:
    return weight + strength * (ALPHA / RANK) * (up @ down)


def original(name: str) -> str:
    return original_name(f"{name}.weight").removesuffix(".weight")


def flat(name: str) -> str:
    return name.replace(".", "_")


PEFT = ("lora_A.weight", "lora_B.weight")
ADAPTER = ("lora_A.default.weight", "lora_B.default.weight")
KOHYA = ("lora_down.weight", "lora_up.weight", "alpha")

NAMINGS: dict[str, tuple[Callable[[str], str], tuple[str, ...], str]] = {
    "diffusers": (lambda name: f"transformer.{name}", PEFT, "safetensors"),
    "PEFT": (lambda name: f"base_model.model.{name}", PEFT, "safetensors"),
    "diffusers, older": (lambda name: f"transformer.{name}", ("lora.down.weight", "lora.up.weight"), "safetensors"),
    "OneTrainer": (lambda name: f"lora_transformer_{flat(name)}", KOHYA, "safetensors"),
    "ComfyUI": (lambda name: f"diffusion_model.{original(name)}", PEFT, "safetensors"),
    "ComfyUI with alpha": (lambda name: f"diffusion_model.{original(name)}", KOHYA, "safetensors"),
    "kohya": (lambda name: f"lora_unet_{flat(original(name))}", KOHYA, "safetensors"),
    "NVIDIA": (lambda name: f"net.{original(name)}", ADAPTER, "pt"),
    "NVIDIA under PEFT": (lambda name: f"net.base_model.model.{original(name)}", ADAPTER, "pt"),
    "NVIDIA without prefix": (original, PEFT, "safetensors"),
}
"""The name of a layer, the kinds of its tensors (down, up and, where there is one, alpha), and the kind of file."""


def write_lora(folder: Path, naming: str, pairs: Pairs, extra: dict[str, Tensor] | None = None) -> Path:
    """Write `pairs` as that trainer would. Where there is no alpha, it is in the numbers."""
    name_of, kinds, suffix = NAMINGS[naming]
    tensors = dict(extra or {})
    for layer, (up, down) in pairs.items():
        scaled = up if "alpha" in kinds else up * (ALPHA / RANK)
        values = (down, scaled.contiguous(), torch.tensor(ALPHA))
        tensors |= {f"{name_of(layer)}.{kind}": value for kind, value in zip(kinds, values, strict=False)}
    file = folder / f"{flat(naming)}.{suffix}"
    save_file(tensors, file) if suffix == "safetensors" else torch.save(tensors, file)
    return file
