"""Read LoRA files of any trainer: the layers of the transformer they change, and the factors."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import WrongCheckpointError
from .find import read_json
from .original_names import bare_name, diffusers_name, original_name
from .reading import as_wrong_checkpoint
from .saved import PROJECTION
from .weights import TensorFile

PREFIXES = re.compile("(lora_unet_|lora_transformer_|lycoris_)?")
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model", "adapter_config.json"
"""PEFT's names of the two files of an adapter."""
UP, DOWN = "lora_up.weight", "lora_down.weight"
LOKR = [f"lokr_{factor}" for factor in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")]
LOHA = [f"hada_{factor}" for factor in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")]
OFT = "oft_blocks"
"""Of OFT, and with one dimension more of BOFT: what turns the outputs of a layer, in blocks."""
BIAS = "diff_b"
"""Added to the bias of a layer. Only the text projection has one."""
DISTILLED = re.compile("distill", re.IGNORECASE)
KINDS = {
    DOWN: r"(lora_A|lora_down|lora\.down)(\.(?!bias)\w+)*",
    UP: r"(lora_B|lora_up|lora\.up)(\.(?!bias)\w+)*",
    "dora_scale": r"dora_scale|lora_magnitude_vector(\.\w+)*",
    "alpha": "alpha",
    "diff": "diff",
    BIAS: BIAS,
    OFT: OFT,
    "rescale": "rescale",
    **{kind: rf"{kind}(\.\w+)?" for kind in (*LOKR, *LOHA)},
}
"""ComfyUI's name of a kind of tensor -> all its names. PEFT adds an adapter's name, such as "default", to some."""
PRODUCTS = {"lokr_w1": ("lokr_w1_a", "lokr_w1_b"), "lokr_w2": ("lokr_w2_a", "lokr_w2_b")}
"""A factor -> the two factors whose product may replace it."""
RANKS = (DOWN, "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
"""Kinds with the rank as first dimension. A LoKr of two whole factors has none of them, and no scale."""

OTHER_LORAS = {
    "Wan": r"blocks_\d+_(self|cross)_attn_[qkvo]_(lora|alpha)",
    "Flux or HunyuanVideo": "double_blocks_|single_transformer_blocks_",
    "Stable Diffusion 1, 2 or XL": "(input|output|down|up|mid)_blocks?_|text_model_encoder_",
    "Stable Diffusion 3 or Qwen-Image": r"transformer_blocks_\d+_attn_|joint_blocks_",
    "a language model": r"layers_\d+_(self_attn|mlp)_",
}
"""Other models with LoRAs, by a part of their names with "_" for every ".", as in the names of all trainers."""


@dataclass(frozen=True)
class Lora:
    """The tensors of a file that fit a model.

    `tensors`: named by diffusers' name of the layer and one of `KINDS`. `left_out`: the file's names of the others,
    except the weights of a model in the same file. `assumes_alpha`: whether a layer has no alpha in the file, and
    alpha / rank is taken as 1. `is_distilled`: whether its name or its metadata says so.
    """

    tensors: dict[str, Tensor]
    left_out: list[str]
    assumes_alpha: bool = False
    is_distilled: bool = False


def read_lora(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    """Read a LoRA, LoKr, LoHa or OFT of a .safetensors file or a pickle.

    Its names are those of diffusers, PEFT, NVIDIA, kohya or ComfyUI.

    `shapes`: diffusers' names of the model's layers, and the shapes of their weights. Alpha comes from the file's
    tensors, from the metadata that diffusers writes, or from PEFT's config beside the file. Without any, the scale is
    1. Raises `WrongCheckpointError` if not all layers fit, or if a layer's tensors are of an unknown kind.
    """
    with as_wrong_checkpoint(path):
        return _read(TensorFile(path), shapes)


def _read(file: TensorFile, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    named = find_layers(file.names, shapes)
    fitting = {layer: kinds for layer, kinds in named.items() if _fits(file, kinds, shapes[layer])}
    if not fitting:
        raise WrongCheckpointError(f"{file.path} does not fit this model. {_what_it_is(file, named, shapes)}")
    _refuse_a_part_of_it(file, named, shapes)
    tensors = {f"{layer}.{kind}": file.read(name, None) for layer in fitting for kind, name in fitting[layer].items()}
    settings, assumes_alpha = _peft_settings(file), False
    for layer, kinds in fitting.items():
        if "dora_scale" in kinds:  # PEFT has it flat
            scale = tensors[f"{layer}.dora_scale"]
            tensors[f"{layer}.dora_scale"] = scale[:, None] if scale.ndim == 1 else scale
        ranked = next((kind for kind in RANKS if kind in kinds), None)
        if ranked and "alpha" not in kinds:
            assumes_alpha = assumes_alpha or not settings
            rank = len(tensors[f"{layer}.{ranked}"])
            tensors |= {f"{layer}.alpha": torch.tensor(_alpha(settings, kinds[ranked], rank))} if settings else {}
    used = {name for kinds in fitting.values() for name in kinds.values()}
    left_out = [name for name in file.names if name not in used and not _is_of_the_model(name, shapes)]
    return Lora(tensors, left_out, assumes_alpha, _is_distilled(file))


def _is_distilled(file: TensorFile) -> bool:
    """Look for the word in the file's name and in its metadata, except JSON, which may hold captions or a workflow."""
    texts = [file.path.stem, *(value for value in file.metadata.values() if not value.startswith(("{", "[")))]
    return any(DISTILLED.search(text) for text in texts)


def _spellings(layers: Iterable[str]) -> dict[str, str]:
    """Return each spelling of a layer's name -> the layer."""
    spellings = {}
    for layer in layers:
        original = original_name(f"{layer}.weight").removesuffix(".weight")
        for name in (layer, original):
            spellings[name] = spellings[name.replace(".", "_")] = layer
    return spellings


def find_layers(names: list[str], layers: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return layer -> kind -> name for the `names` that belong to one of `layers`."""
    spellings = _spellings(layers)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        rest = _bare(name)
        for kind, pattern in KINDS.items():
            match = re.fullmatch(rf"(.+?)\.({pattern})", rest)
            if match and match[1] in spellings and _may_have(spellings[match[1]], kind):
                found[spellings[match[1]]][kind] = name
    return found


def _may_have(layer: str, kind: str) -> bool:
    return kind != BIAS or layer.startswith(PROJECTION)


def _refuse_a_part_of_it(
    file: TensorFile, named: Mapping[str, Mapping[str, str]], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `WrongCheckpointError` where the rest of the file would change the model too, if it was understood."""
    for layer, kinds in named.items():
        if _shape_of_change(file, kinds) and not _fits(file, kinds, shapes[layer]):
            raise WrongCheckpointError(f"{file.path} fits this model in part alone. {_what_it_is(file, named, shapes)}")
    known = {name for kinds in named.values() for name in kinds.values()}
    layers = tuple(f"{spelling}." for spelling in _spellings(shapes))
    for name in file.names:
        if name not in known and _bare(name).startswith(layers) and not _is_of_the_model(name, shapes):
            raise WrongCheckpointError(
                f"{file.path} changes this model by {name}, of a kind that is not known here. LoRA, DoRA, LoHa, LoKr, "
                "OFT and .diff are. ComfyUI's own loader of LoRAs may take the file, for KSampler."
            )


def _bare(name: str) -> str:
    return bare_name(PREFIXES.sub("", bare_name(name), count=1))


def _is_of_the_model(name: str, shapes: Mapping[str, Any]) -> bool:
    """Return whether it is a weight of the model that a training saved along with its LoRA."""
    return ".base_layer." in name or (diffusers_name(name) or "").removesuffix(".weight") in shapes


def _fits(file: TensorFile, kinds: Mapping[str, str], shape: tuple[int, ...]) -> bool:
    if OFT in kinds:
        blocks, size = file.shape(kinds[OFT])[-3:-1]
        return blocks * size == shape[0]
    if BIAS in kinds and file.shape(kinds[BIAS]) != shape[:1]:
        return False
    if _shape_of_change(file, kinds) != shape:
        return False
    return UP not in kinds or file.shape(kinds[UP])[1] == file.shape(kinds[DOWN])[0]


def _shape_of_change(file: TensorFile, kinds: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the shape of the weight that a layer's tensors change, or None if one of them is missing."""
    if "diff" in kinds:
        return file.shape(kinds["diff"])
    if OFT in kinds:
        return file.shape(kinds[OFT])
    if kinds.keys() & {*LOKR, *LOHA}:
        return _product_shape(file, kinds)
    if {UP, DOWN} <= kinds.keys():
        return (file.shape(kinds[UP])[0], *file.shape(kinds[DOWN])[1:])
    return None


def _product_shape(file: TensorFile, kinds: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the shape of the product of a LoKr's or LoHa's factors, or None if one is missing."""

    def matrix(whole: str, left: str, right: str) -> tuple[int, ...] | None:
        if whole in kinds:
            return file.shape(kinds[whole])
        return (file.shape(kinds[left])[0], file.shape(kinds[right])[1]) if {left, right} <= kinds.keys() else None

    if kinds.keys() & {*LOHA}:
        first, second = matrix("", *LOHA[:2]), matrix("", *LOHA[2:4])
        return first if first == second else None
    first, second = (matrix(whole, *halves) for whole, halves in PRODUCTS.items())
    return tuple(one * other for one, other in zip(first, second, strict=True)) if first and second else None


def _peft_settings(file: TensorFile) -> dict[str, Any]:
    """Return PEFT's config from diffusers' metadata or from beside the file, or an empty one."""
    config = file.path.with_name(ADAPTER_CONFIG)
    if file.path.stem == ADAPTER_FILE and config.is_file():
        with as_wrong_checkpoint(config):
            return dict(read_json(config))
    settings = json.loads(file.metadata.get("lora_adapter_metadata", "{}"))
    return {name.removeprefix("transformer."): value for name, value in settings.items()}


def _alpha(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """Return PEFT's alpha for the layer whose tensor is `name`. Its scale is alpha / rank."""
    alpha = settings.get("lora_alpha", settings.get("alpha", rank))
    for pattern, value in settings.get("alpha_pattern", {}).items():
        if re.match(rf"(.*\.)?({pattern})\.(lora|lokr|hada)_", name):
            alpha = value
    return float(alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha)


def _what_it_is(file: TensorFile, named: Mapping[str, Mapping[str, str]], shapes: Mapping[str, Any]) -> str:
    first = f"Its first tensors are {', '.join(file.names[:3])}."
    for layer, kinds in named.items():
        if (shape := _shape_of_change(file, kinds)) and not _fits(file, kinds, shapes[layer]):
            size = f"{layer} has shape {shape} there, but {shapes[layer]} here"
            return f"{first} It is for a model of another size: {size}."
    names = [_bare(name).replace(".", "_") for name in file.names]
    for model, pattern in OTHER_LORAS.items():
        if any(re.search(pattern, name) for name in names):
            return f"{first} It seems to be for {model}."
    if not any(re.search("lora|lokr_|hada_", name) for name in file.names):
        return f"{first} It does not seem to be a LoRA."
    return f"{first} It is for an unknown model."
