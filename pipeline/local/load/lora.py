"""LoRA files of any trainer: which layers of the transformer they change, and how."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import WrongCheckpointError
from .original_names import original_name
from .weights import TensorFile, as_wrong_checkpoint

PREFIXES = re.compile(
    r"((base_model\.model|transformer|diffusion_model|model|net|unet)\.)*(lora_unet_|lora_transformer_|lycoris_)?"
)
UP, DOWN = "lora_up.weight", "lora_down.weight"
KINDS = {
    DOWN: r"(lora_A|lora_down|lora\.down)(\.(?!bias)\w+)*",
    UP: r"(lora_B|lora_up|lora\.up)(\.(?!bias)\w+)*",
    "dora_scale": r"dora_scale|lora_magnitude_vector(\.\w+)*",
    "alpha": "alpha",
    "diff": "diff",
}
"""ComfyUI's name of what a tensor is -> all names of it. PEFT puts an adapter's name, such as "default", into some."""

OTHER_LORAS = {
    "Wan": r"blocks_\d+_(self|cross)_attn_[qkvo]_(lora|alpha)",
    "Flux or HunyuanVideo": "double_blocks_|single_transformer_blocks_",
    "Stable Diffusion 1, 2 or XL": "(input|output|down|up|mid)_blocks?_|text_model_encoder_",
    "Stable Diffusion 3 or Qwen-Image": r"transformer_blocks_\d+_attn_|joint_blocks_",
    "a language model": r"layers_\d+_(self_attn|mlp)_",
}
"""Models that people have LoRAs for, by what their names have in them, with "_" for every ".": each trainer's do."""


@dataclass(frozen=True)
class Lora:
    """What of a file fits a model.

    `tensors`: named by diffusers' name of the layer and one of `KINDS`. `left_out`: the file's names for the rest.
    """

    tensors: dict[str, Tensor]
    left_out: list[str]


def read_lora(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    """Read a LoRA from a .safetensors file or a pickle, named by diffusers, PEFT, NVIDIA, kohya or ComfyUI.

    `shapes`: diffusers' names of the model's layers, and the shapes of their weights. Alpha comes from the file's
    tensors or from the metadata that diffusers writes; without, the scale is 1.
    Raises `WrongCheckpointError` when no layer fits.
    """
    with as_wrong_checkpoint(path):
        return _read(TensorFile(path), shapes)


def _read(file: TensorFile, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    named = find_layers(file.names, shapes)
    fitting = {layer: kinds for layer, kinds in named.items() if _fits(file, kinds, shapes[layer])}
    if not fitting:
        raise WrongCheckpointError(f"{file.path} changes nothing in this model. {_what_it_is(file, named, shapes)}")
    tensors = {f"{layer}.{kind}": file.read(name, None) for layer in fitting for kind, name in fitting[layer].items()}
    settings = _peft_settings(file.metadata)
    for layer, kinds in fitting.items():
        if "dora_scale" in kinds:  # PEFT has it flat
            scale = tensors[f"{layer}.dora_scale"]
            tensors[f"{layer}.dora_scale"] = scale[:, None] if scale.ndim == 1 else scale
        if settings and DOWN in kinds and "alpha" not in kinds:
            tensors[f"{layer}.alpha"] = torch.tensor(_alpha(settings, kinds[DOWN], len(tensors[f"{layer}.{DOWN}"])))
    used = {name for kinds in fitting.values() for name in kinds.values()}
    return Lora(tensors, [name for name in file.names if name not in used])


def find_layers(names: list[str], layers: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Layer -> kind -> name, for those of `names` that belong to one of `layers`."""
    spellings = {}
    for layer in layers:
        original = original_name(f"{layer}.weight").removesuffix(".weight")
        for name in (layer, original):
            spellings[name] = spellings[name.replace(".", "_")] = layer
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        rest = PREFIXES.sub("", name, count=1)
        for kind, pattern in KINDS.items():
            match = re.fullmatch(rf"(.+?)\.({pattern})", rest)
            if match and match[1] in spellings:
                found[spellings[match[1]]][kind] = name
    return found


def _fits(file: TensorFile, kinds: Mapping[str, str], shape: tuple[int, ...]) -> bool:
    if "diff" in kinds:
        return file.shape(kinds["diff"]) == shape
    if not {UP, DOWN} <= kinds.keys():
        return False
    up, down = file.shape(kinds[UP]), file.shape(kinds[DOWN])
    return (up[0], *down[1:]) == shape and up[1] == down[0]


def _peft_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's LoraConfig, as diffusers writes it into a file's metadata; empty where there is none."""
    settings = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    return {name.removeprefix("transformer."): value for name, value in settings.items()}


def _alpha(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """The alpha by which alpha / rank is PEFT's scale of the layer whose tensor is `name`."""
    alpha = settings.get("lora_alpha", rank)
    for pattern, value in settings.get("alpha_pattern", {}).items():
        if re.match(rf"(.*\.)?({pattern})\.lora_", name):
            alpha = value
    return float(alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha)


def _what_it_is(file: TensorFile, named: Mapping[str, Mapping[str, str]], shapes: Mapping[str, Any]) -> str:
    first = f"Its first tensors are {', '.join(file.names[:3])}."
    for layer, kinds in named.items():
        if {UP, DOWN} <= kinds.keys():
            shape = (file.shape(kinds[UP])[0], *file.shape(kinds[DOWN])[1:])
            return f"{first} It is for a model of another size: {layer} is {shape} there, and {shapes[layer]} here."
    names = [PREFIXES.sub("", name, count=1).replace(".", "_") for name in file.names]
    for model, pattern in OTHER_LORAS.items():
        if any(re.search(pattern, name) for name in names):
            return f"{first} It seems to be for {model}."
    if any(re.search("lokr_|hada_", name) for name in names):
        return f"{first} It is a LoKr or LoHa: ComfyUI's own Load LoRA takes these, for KSampler."
    if not any("lora" in name for name in file.names):
        return f"{first} It seems not to be a LoRA."
    return f"{first} It is for a model that is not known here."
