"""ComfyUI's CLIP: the text encoder, its tokenizer, and optionally the parts for writing prompts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...pipeline.errors import WrongCheckpointError
from ...pipeline.local.load.find import DEMO_FOLDER, how_to_download, shards_of
from ...pipeline.local.load.original_names import bare_name, name_of_other_model
from ...pipeline.local.load.parts import Parts, check_text_features, language_model_name
from ...pipeline.local.load.saved import PROJECTION, TEXT_ENCODER, TRANSFORMER, VAE, own_part
from ...pipeline.local.load.text_encoder import read_text_config, rope_of
from ...pipeline.local.load.tokenizer import load_tokenizer
from ...pipeline.local.load.weights import check_same_tensors, index_tensors, weight_files
from .compat import (
    ClipTarget,
    Llama2_,
    Qwen25_7BVLI_Config,
    calculate_parameters,
    detect_layer_quantization,
    mixed_precision_ops,
)
from .encoder import ReasonEncoder
from .model import read_projection
from .tensors import read_tensors, weights_alone
from .tokenizer import PICTURE_TOKENS, ReasonTokenizer, comfyuis_tokenizer
from .writer import QWEN_VISION, ReasonWriter, VisionTower

CONFIG_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
)
VISION_FIELDS = {
    "hidden_size": "hidden_size",
    "out_hidden_size": "output_hidden_size",
    "intermediate_size": "intermediate_size",
    "num_heads": "num_heads",
    "depth": "num_layers",
    "window_size": "window_size",
    "fullatt_block_indexes": "fullatt_block_indexes",
}
"""transformers' name -> ComfyUI's."""


@dataclass(frozen=True)
class TextEncoderFiles:
    """`vision`: the config of ComfyUI's vision tower. `tied`: whether the embedding table is also lm_head."""

    files: list[Path]
    config: Qwen25_7BVLI_Config
    vision: dict[str, Any]
    tied: bool
    tokenizer: Any


def load_clip(
    parts: Parts, projection: dict[str, Tensor], writer: bool = False, disable_dynamic: bool = False
) -> comfy.sd.CLIP:
    """Load the CLIP. With `writer` it also writes prompts, which needs lm_head and the vision tower.

    `disable_dynamic`: without ComfyUI's dynamic loading, which does not work with hooks.
    Raises `WrongCheckpointError` for a text encoder of another kind or size, or without the parts for `writer`.
    """
    found = _files_in_folder(parts) if parts.text_encoder.is_dir() else _single_file(parts.text_encoder)
    features = found.config.num_hidden_layers * found.config.hidden_size
    check_text_features(parts.text_encoder, features, parts.transformer_config["crossattn_proj_in_channels"])
    found.config.lm_head = writer and not found.tied
    _check_tensors(found, writer)
    tensors = {**read_tensors(found.files, writer_name if writer else encoder_name), **projection}
    target = ClipTarget(ReasonTokenizer, ReasonWriter if writer else ReasonEncoder)
    target.params = {
        "config": found.config,
        "text_embed_dim": parts.transformer_config["encoder_hidden_states_channels"],
    }
    if writer:
        ends = (found.tokenizer.eos_token_id, found.tokenizer.pad_token_id)
        target.params |= {"vision": found.vision, "stop_tokens": ends}
    clip = comfy.sd.CLIP(
        target,
        tokenizer_data={"tokenizer": found.tokenizer},
        parameters=calculate_parameters(tensors),
        state_dict=[tensors],
        model_options=_options(tensors),
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (_load_patcher, (parts, writer))
    return clip


def _load_patcher(parts: Parts, writer: bool, disable_dynamic: bool = False) -> ModelPatcher:
    """ComfyUI calls this to load the CLIP again, for a node that needs another copy."""
    return load_clip(parts, read_projection(parts), writer, disable_dynamic).patcher


def encoder_name(name: str) -> str | None:
    """Return our name of a language model's parameter in a file."""
    inner = None if name.startswith((TRANSFORMER, VAE)) else language_model_name(name)
    return None if inner is None or inner.startswith(PROJECTION) else f"model.{inner}"


def writer_name(name: str) -> str | None:
    """Do the work of `encoder_name`, also for lm_head and the vision tower."""
    bare = bare_name(name)
    if name.startswith((TRANSFORMER, VAE)):
        return None
    if bare.startswith("visual."):
        return bare
    return f"model.{bare}" if bare.startswith("lm_head.") else encoder_name(name)


def _check_tensors(found: TextEncoderFiles, writer: bool) -> None:
    layers = comfy.ops.disable_weight_init
    with torch.device("meta"):
        expected = Llama2_(found.config, ops=layers).state_dict(prefix="model.")
        if writer:
            expected |= VisionTower(found.vision, ops=layers).state_dict(prefix="visual.")
    sources = weights_alone(index_tensors(found.files, writer_name if writer else encoder_name))
    what = "Qwen2.5-VL with lm_head and vision tower, which prompt_writer needs" if writer else "Qwen2.5-VL"
    check_same_tensors(expected.items(), sources, what)
    folder = found.files[0].parent
    if writer and PICTURE_TOKENS[1] not in found.tokenizer.get_vocab():
        raise WrongCheckpointError(
            f"{'The demo' if DEMO_FOLDER in folder.parents else folder} cannot write prompts: its "
            "tokenizer has no token for a picture. Choose NVIDIA's model as the checkpoint: its text encoder, "
            f"Cosmos-Reason1-7B, writes them. {how_to_download(Path('models', 'diffusers'))}"
        )


def _options(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the weights' own dtype where ComfyUI would use float16, and its scaled layers if the file has scales."""
    dtype = tensors["model.norm.weight"].dtype
    quantized = detect_layer_quantization(tensors, "")
    if not quantized:
        return {"dtype": dtype}
    layers = mixed_precision_ops(quantized, dtype, full_precision_mm=True)
    return {"dtype": dtype, "custom_operations": layers}


def _files_in_folder(parts: Parts) -> TextEncoderFiles:
    """Of a transformers folder."""
    config = read_text_config(parts.text_encoder)
    text, vision = config.text_config, config.vision_config
    language = Qwen25_7BVLI_Config(**{name: getattr(text, name) for name in CONFIG_FIELDS})
    rope = rope_of(text)
    language.rope_theta, language.rope_dims = rope["rope_theta"], rope["mrope_section"]
    language.head_dim = language.hidden_size // language.num_attention_heads
    return TextEncoderFiles(
        weight_files(parts.text_encoder),
        language,
        {ours: getattr(vision, theirs) for theirs, ours in VISION_FIELDS.items()},
        config.tie_word_embeddings,
        load_tokenizer(parts.tokenizer),
    )


def _single_file(path: Path) -> TextEncoderFiles:
    """Of a file alone, which is Qwen2.5-VL with heads of 128 channels. The rest of its config is in the shapes.

    Raises `WrongCheckpointError` for another model's file.
    """
    files = shards_of(path)
    sources = own_part(index_tensors(files, language_model_name), TEXT_ENCODER)
    if "layers.0.self_attn.q_proj.bias" not in sources or "embed_tokens.weight" not in sources:
        raise WrongCheckpointError(
            f"{path} is not Qwen2.5-VL but {name_of_other_model(source.name for source in sources.values())}."
        )
    shapes = {name: source.file.shape(source.name) for name, source in sources.items()}
    vocab_size, hidden_size = shapes["embed_tokens.weight"]
    config = Qwen25_7BVLI_Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=shapes["layers.0.mlp.up_proj.weight"][0],
        num_hidden_layers=len({name.split(".")[1] for name in sources if name.startswith("layers.")}),
        num_attention_heads=shapes["layers.0.self_attn.q_proj.weight"][0] // Qwen25_7BVLI_Config.head_dim,
        num_key_value_heads=shapes["layers.0.self_attn.k_proj.weight"][0] // Qwen25_7BVLI_Config.head_dim,
    )
    return TextEncoderFiles(
        files, config, {**QWEN_VISION, "output_hidden_size": hidden_size}, False, comfyuis_tokenizer()
    )
