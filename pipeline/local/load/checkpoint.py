"""Load a Cosmos-Predict2.5 checkpoint from disk. Nothing is ever downloaded."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch import nn
from transformers.models.qwen2_5_vl import Qwen2_5_VLTextModel

from ...observer import Observer
from .. import library
from ..compat import Qwen2_5_VLRotaryEmbedding
from ..model import LocalModel, TextEncoder
from ..schedule import is_usable
from ..transformer import use_less_memory
from ..variant import OTHERS, Variant
from ..ways import OURS, Ways
from .parts import (
    Parts,
    check_text_features,
    file_parts,
    folder_parts,
    language_model_name,
    read_config,
    vae_file_parts,
)
from .text_encoder import read_text_config
from .tokenizer import load_tokenizer
from .weights import Source, index_tensors, load_tensors, weight_files


def load_pipeline_folder(
    folder: Path,
    dtype: torch.dtype | None = None,
    text_dtype: torch.dtype | None = None,
    variant: Variant | None = None,
    *,
    vae_dtype: torch.dtype | None = None,
    ways: Ways = OURS,
    observer: Observer | None = None,
) -> LocalModel:
    """Load a folder in diffusers layout, with its weights in `dtype`, or in the files' dtype if None.

    Its own scheduler is used if it is a UniPC with flow sigmas and the variant needs no other.
    `variant`: None recognises it by shapes and names.
    `text_dtype`, `vae_dtype`: for the text encoder and the VAE, if different. The text encoder's files are in bfloat16,
    and in that dtype its weights are not copied. `ways`: from `canary.check`. `observer`: is told the progress.
    Raises `CheckpointNotFoundError` for a missing part and `WrongCheckpointError` for a part of another model.
    """
    own_config = read_config(folder, "scheduler", "scheduler_config.json")
    parts, types = folder_parts(folder, variant), (dtype, text_dtype, vae_dtype)
    if not is_usable(own_config):
        kind = own_config.get("_class_name", "no scheduler")
        note = f"The folder's scheduler ({kind}) is not UniPC with flow sigmas: NVIDIA's own is used."
        return _assemble(parts, *types, ways, observer, notes=(note,))
    if variant or parts.variant is OTHERS:  # diffusers' converter gives every model the scheduler of the post-trained
        return _assemble(parts, *types, ways, observer)
    return _assemble(parts, *types, ways, observer, scheduler_config=own_config)


def load_single_files(
    transformer: Path,
    vae: Path | None,
    text_encoder_folder: Path | None,
    dtype: torch.dtype | None = None,
    text_dtype: torch.dtype | None = None,
    variant: Variant | None = None,
    *,
    vae_dtype: torch.dtype | None = None,
    ways: Ways = OURS,
    observer: Observer | None = None,
    rest: Path | None = None,
) -> LocalModel:
    """Load single files: a transformer, a VAE and a text encoder's folder.

    `transformer`: .pt or .safetensors, with NVIDIA's names or diffusers'. `vae`: the Wan 2.1 VAE, with its own names or
    diffusers'. `text_encoder`: a transformers folder with Qwen2.5-VL and its tokenizer. The dtypes, `variant` and
    `ways` are as in `load_pipeline_folder`. `rest`, and None for a part, are as in `file_parts`.
    Raises `WrongCheckpointError` for a file of another model.
    """
    parts = file_parts(transformer, vae, text_encoder_folder, variant, rest)
    return _assemble(parts, dtype, text_dtype, vae_dtype, ways, observer)


def load_vae_file(path: Path, dtype: torch.dtype | None) -> AutoencoderKLWan:
    """Load the Wan 2.1 VAE from one file, with its own parameter names or diffusers'."""
    return _load_vae(*vae_file_parts(path), dtype)


def _assemble(
    parts: Parts,
    dtype: torch.dtype | None,
    text_dtype: torch.dtype | None,
    vae_dtype: torch.dtype | None,
    ways: Ways,
    observer: Observer | None,
    **details: Any,
) -> LocalModel:
    """Build the model. `details`: fields that differ from the defaults."""
    tokenizer = load_tokenizer(parts.tokenizer)
    transformer = _on_meta(CosmosTransformer3DModel, parts.transformer_config)
    load_tensors(transformer, parts.transformer, dtype, "the Cosmos-Predict2.5 transformer", observer)
    # float16 is too small for what goes through Qwen2.5, and bfloat16 is what it comes in.
    text_dtype = text_dtype or (torch.bfloat16 if dtype == torch.float16 else dtype)
    load_language_model = (
        partial(_load_language_model, observer=observer) if ways.text_encoder else library.load_language_model
    )
    language_model = load_language_model(parts.text_encoder, text_dtype)
    features = language_model.config.num_hidden_layers * language_model.config.hidden_size
    check_text_features(parts.text_encoder, features, transformer.config.crossattn_proj_in_channels)
    projection = transformer.crossattn_proj.to(language_model.dtype)
    text_encoder = TextEncoder(language_model, projection, whole=not ways.text_encoder)
    transformer.crossattn_proj = nn.Identity()
    vae = _load_vae(parts.vae_config, parts.vae, vae_dtype or dtype, observer)
    model = LocalModel(
        name=parts.name,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        transformer=use_less_memory(transformer) if ways.transformer else library.use_librarys(transformer),
        vae=vae,
        scheduler_config=parts.variant.scheduler_config,
        variant=parts.variant,
        ways=ways,
    )
    return replace(model, **details)


def _load_vae(
    config: Mapping[str, Any],
    sources: dict[str, Source],
    dtype: torch.dtype | None,
    observer: Observer | None = None,
) -> AutoencoderKLWan:
    vae = _on_meta(AutoencoderKLWan, config)
    load_tensors(vae, sources, dtype, "the Wan 2.1 VAE", observer)
    return vae


def _load_language_model(
    folder: Path, dtype: torch.dtype | None, observer: Observer | None = None
) -> Qwen2_5_VLTextModel:
    config = read_text_config(folder).text_config
    language_model = empty_language_model(config)
    sources = index_tensors(weight_files(folder), language_model_name)
    load_tensors(language_model, sources, dtype, "Qwen2.5-VL", observer)
    return language_model


def empty_language_model(config: Any) -> Qwen2_5_VLTextModel:
    """Return Qwen2.5-VL's language model without weights, on the meta device."""
    with torch.device("meta"):
        language_model = Qwen2_5_VLTextModel(config)
    # Their frequencies are computed, not stored. transformers 4 has one in every layer too.
    for module in language_model.modules():
        if isinstance(getattr(module, "rotary_emb", None), Qwen2_5_VLRotaryEmbedding):
            module.rotary_emb = Qwen2_5_VLRotaryEmbedding(config=config)
    return language_model


def _on_meta(cls: Any, config: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return cls.from_config(config)
