"""Load a Cosmos-Predict2.5 checkpoint from disk. Nothing is ever downloaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, UniPCMultistepScheduler
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import nn
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLTextModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding

from ...errors import CheckpointNotFoundError, WrongCheckpointError
from ..denoise import SCHEDULER_CONFIG
from ..model import LocalModel, TextEncoder
from ..transformer import use_less_memory
from .original_names import diffusers_name, name_of_other_model
from .weights import Source, TensorFile, as_wrong_checkpoint, index_tensors, load_tensors, weight_files

PATCH = 4
"""Values of one channel in a patch: 1 x 2 x 2."""


def load_pipeline_folder(folder: Path, dtype: torch.dtype | None = None) -> LocalModel:
    """Load a folder in diffusers layout, with its weights in `dtype`, or in their own where that is None.

    Raises `CheckpointNotFoundError` for a missing part and `WrongCheckpointError` for another model's.
    """
    config = _config(CosmosTransformer3DModel, folder, "transformer")
    if not config.get("use_crossattn_projection"):
        raise WrongCheckpointError(
            f"{folder / 'transformer'} is not Cosmos-Predict2.5: it has no text projection (crossattn_proj), "
            "so it is Cosmos-Predict2 or older."
        )
    vae = _on_meta(AutoencoderKLWan, _config(AutoencoderKLWan, folder, "vae"))
    load_tensors(vae, index_tensors(weight_files(folder / "vae"), str), dtype, "the Wan 2.1 VAE")
    return _assemble(
        folder.name,
        tokenizer_folder=_part(folder, "tokenizer"),
        text_encoder_folder=_part(folder, "text_encoder"),
        transformer_config=config,
        transformer_sources=index_tensors(weight_files(folder / "transformer"), str),
        vae=vae,
        scheduler_config=_config(UniPCMultistepScheduler, folder, "scheduler"),
        dtype=dtype,
    )


def load_single_files(
    transformer: Path, vae: Path, text_encoder_folder: Path, dtype: torch.dtype | None = None
) -> LocalModel:
    """Load a transformer file (.pt or .safetensors, NVIDIA's names or diffusers'), a Wan 2.1 VAE file (its own names or
    diffusers') and a transformers folder with Qwen2.5-VL and its tokenizer, in `dtype` or, for None, as they are.

    Raises `WrongCheckpointError` for a file of another model.
    """
    sources = index_tensors([transformer], diffusers_name)
    return _assemble(
        transformer.stem,
        tokenizer_folder=text_encoder_folder,
        text_encoder_folder=text_encoder_folder,
        transformer_config=transformer_config(transformer, sources),
        transformer_sources=sources,
        vae=load_vae_file(vae, dtype),
        scheduler_config=SCHEDULER_CONFIG,
        dtype=dtype,
    )


def transformer_config(path: Path, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The transformer's config, read off the shapes in its file.

    Raises `WrongCheckpointError` for another model's file.
    """

    def shape(name: str) -> tuple[int, ...]:
        source = sources[name]
        return source.file.shape(source.name)

    if "patch_embed.proj.weight" not in sources or "transformer_blocks.0.attn2.to_k.weight" not in sources:
        names = [source.name for source in sources.values()]
        raise WrongCheckpointError(f"{path} is not Cosmos-Predict2.5 but {name_of_other_model(names)}.")
    if "crossattn_proj.0.weight" not in sources:
        raise WrongCheckpointError(f"{path} is Cosmos-Predict2, not 2.5: it has no text projection (crossattn_proj).")
    hidden_size, patch_values = shape("patch_embed.proj.weight")
    head_dim = shape("transformer_blocks.0.attn1.norm_q.weight")[0]
    return {
        "in_channels": patch_values // PATCH - 1,
        "out_channels": shape("proj_out.weight")[0] // PATCH,
        "num_attention_heads": hidden_size // head_dim,
        "attention_head_dim": head_dim,
        "num_layers": len({name.split(".")[1] for name in sources if name.startswith("transformer_blocks.")}),
        "mlp_ratio": shape("transformer_blocks.0.ff.net.0.proj.weight")[0] / hidden_size,
        "text_embed_dim": shape("transformer_blocks.0.attn2.to_k.weight")[1],
        "adaln_lora_dim": shape("transformer_blocks.0.norm1.linear_1.weight")[0],
        "rope_scale": (1.0, 3.0, 3.0),
        "extra_pos_embed_type": None,
        "use_crossattn_projection": True,
        "crossattn_proj_in_channels": shape("crossattn_proj.0.weight")[1],
        "encoder_hidden_states_channels": shape("crossattn_proj.0.weight")[0],
    }


def load_vae_file(path: Path, dtype: torch.dtype | None) -> AutoencoderKLWan:
    """The Wan 2.1 VAE from one file, with its own parameter names or diffusers'."""
    file = TensorFile(path)
    names = {name: name for name in file.names}
    if "encoder.conv1.weight" in names:
        names = convert_wan_vae_to_diffusers(names)
    first = names.get("encoder.conv_in.weight")
    if first is None or len(file.shape(first)) != 5:
        raise WrongCheckpointError(f"{path} is not the Wan 2.1 VAE: it has no encoder.conv1 or encoder.conv_in.")
    vae = _on_meta(AutoencoderKLWan, {"base_dim": file.shape(first)[0]})
    load_tensors(vae, {parameter: Source(file, name) for parameter, name in names.items()}, dtype, "the Wan 2.1 VAE")
    return vae


def _assemble(
    name: str,
    *,
    tokenizer_folder: Path,
    text_encoder_folder: Path,
    transformer_config: Mapping[str, Any],
    transformer_sources: dict[str, Source],
    vae: AutoencoderKLWan,
    scheduler_config: Mapping[str, Any],
    dtype: torch.dtype | None,
) -> LocalModel:
    transformer = _on_meta(CosmosTransformer3DModel, transformer_config)
    load_tensors(transformer, transformer_sources, dtype, "the Cosmos-Predict2.5 transformer")
    # float16 is too small for what goes through Qwen2.5, and bfloat16 is what it comes in.
    language_model = _load_language_model(text_encoder_folder, torch.bfloat16 if dtype == torch.float16 else dtype)
    features = language_model.config.num_hidden_layers * language_model.config.hidden_size
    if features != transformer.config.crossattn_proj_in_channels:
        raise WrongCheckpointError(
            f"{text_encoder_folder} gives {features} features for each token, but the transformer takes "
            f"{transformer.config.crossattn_proj_in_channels}. Use the text encoder of the same checkpoint "
            "(for the 2B and 14B models that is Cosmos-Reason1-7B)."
        )
    text_encoder = TextEncoder(language_model, transformer.crossattn_proj)
    transformer.crossattn_proj = nn.Identity()
    with as_wrong_checkpoint(tokenizer_folder):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    return LocalModel(name, tokenizer, text_encoder, use_less_memory(transformer), vae, scheduler_config)


def _load_language_model(folder: Path, dtype: torch.dtype | None) -> Qwen2_5_VLTextModel:
    with as_wrong_checkpoint(folder):
        config: Any = Qwen2_5_VLConfig.from_pretrained(folder, local_files_only=True).text_config
    with torch.device("meta"):
        language_model = Qwen2_5_VLTextModel(config)
    # Their frequencies are computed, not stored. transformers 4 has one in every layer too.
    for module in language_model.modules():
        if isinstance(getattr(module, "rotary_emb", None), Qwen2_5_VLRotaryEmbedding):
            module.rotary_emb = Qwen2_5_VLRotaryEmbedding(config=config)
    load_tensors(language_model, index_tensors(weight_files(folder), _language_model_name), dtype, "Qwen2.5-VL")
    return language_model


def _language_model_name(name: str) -> str | None:
    name = name.removeprefix("model.")
    if name.startswith(("visual.", "lm_head.")):
        return None
    return name.removeprefix("language_model.")


def _on_meta(cls: Any, config: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return cls.from_config(config)


def _config(cls: Any, folder: Path, part: str) -> dict[str, Any]:
    place = _part(folder, part)
    with as_wrong_checkpoint(place):
        return cls.load_config(place, local_files_only=True)


def _part(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise CheckpointNotFoundError(f"{folder} lacks its folder {name}. Download the checkpoint again, all of it.")
    return folder / name
