"""Locate the parts of a checkpoint and read their shapes, for every loader. No weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointNotFoundError, WrongCheckpointError
from ..variant import POST_TRAINED, Variant, recognise
from .find import read_json, shards_of
from .original_names import bare_name, diffusers_name, diffusers_vae_name, name_of_other_model, name_of_other_network
from .reading import as_wrong_checkpoint
from .saved import VAE, own_part, projection_of, transformer_sources, without_projection
from .weights import Source, index_tensors, weight_files

PATCH = 4
"""Values per channel in a patch: 1 x 2 x 2."""


@dataclass(frozen=True)
class Parts:
    """A checkpoint on disk. Configs have diffusers' fields, the sources diffusers' parameter names."""

    name: str
    transformer_config: Mapping[str, Any]
    transformer: dict[str, Source]
    vae_config: Mapping[str, Any]
    vae: dict[str, Source]
    text_encoder: Path
    tokenizer: Path
    variant: Variant = POST_TRAINED


def folder_parts(folder: Path, variant: Variant | None = None) -> Parts:
    """Return the parts of a folder in diffusers layout. `variant`: None for the one found by `recognise`.

    Raises `CheckpointNotFoundError` for a missing part and `WrongCheckpointError` for a part of another model.
    """
    config = read_config(folder, "transformer")
    if not config.get("use_crossattn_projection"):
        raise WrongCheckpointError(
            f"{folder / 'transformer'} is not Cosmos-Predict2.5: it has no text projection (crossattn_proj), "
            "so it is Cosmos-Predict2 or older."
        )
    sources = index_tensors(weight_files(folder / "transformer"), diffusers_name)
    refuse_other_networks(folder / "transformer", sources)
    return Parts(
        name=folder.name,
        transformer_config=config,
        transformer=sources,
        vae_config=read_config(folder, "vae"),
        vae=index_tensors(weight_files(folder / "vae"), bare_name),
        text_encoder=part_folder(folder, "text_encoder"),
        tokenizer=part_folder(folder, "tokenizer"),
        variant=variant or recognise(folder, config.get("num_attention_heads", 0)),
    )


def file_parts(
    transformer: Path,
    vae: Path | None,
    text_encoder: Path | None,
    variant: Variant | None = None,
    rest: Path | None = None,
) -> Parts:
    """Return the parts of single files: a transformer, a VAE and a text encoder.

    `transformer`: .pt or .safetensors, with NVIDIA's names or diffusers'; any one of several shards will do. `vae`: the
    Wan 2.1 VAE, with its own names or diffusers'. `text_encoder`: with its tokenizer. Where these are None, they come
    from `rest`, or from the transformer's file if ComfyUI saved them with it. `rest`: a folder in diffusers layout, or
    a file, with the text projection that the transformer's file lacks. `variant`: as in `folder_parts`.
    Raises `WrongCheckpointError` for a file of another model.
    """
    sources = transformer_sources(transformer)
    base = folder_parts(rest) if rest and rest.is_dir() else None
    if rest:
        sources = {**projection_of(rest), **sources}
    config = transformer_config(transformer, sources)
    if base and without_projection(base.transformer) == without_projection(sources):
        config = base.transformer_config  # which knows more than shapes tell
    vae_parts = (base.vae_config, base.vae) if vae is None and base else vae_file_parts(vae or transformer)
    text = tokenizer = text_encoder or transformer
    if text_encoder is None and base:
        text, tokenizer = base.text_encoder, base.tokenizer
    found = recognise(transformer, config["num_attention_heads"])
    if base and found is POST_TRAINED:
        found = base.variant
    return Parts(transformer.stem, config, sources, *vae_parts, text, tokenizer, variant or found)


def refuse_other_networks(path: Path, sources: Mapping[str, Source]) -> None:
    """Raise `WrongCheckpointError`, with its name, for a network that extends this one, or a training state."""
    names = [source.name for source in sources.values()]
    if any(".base_layer." in name for name in names):
        raise WrongCheckpointError(
            f"{path} holds a LoRA along with the model it was trained on. Put it into models/loras and choose it in "
            "the LoRA Loader. Choose the model's own checkpoint here."
        )
    if any(name.startswith("net_ema.") for name in names):
        raise WrongCheckpointError(
            f"{path} is a state of NVIDIA's training with two networks. Choose its model_ema_bf16.pt, which NVIDIA's "
            "convert_distcp_to_pt.py writes beside it."
        )
    if network := name_of_other_network(names):
        raise WrongCheckpointError(
            f"{path} is {network}, which this pack cannot run. Choose a file of base/post-trained, base/pre-trained or "
            "base/distilled."
        )


def transformer_config(path: Path, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Derive the transformer's config from the shapes in its file.

    Raises `WrongCheckpointError` for another model's file.
    """

    def shape(name: str) -> tuple[int, ...]:
        source = sources[name]
        return source.file.shape(source.name)

    refuse_other_networks(path, sources)
    if "patch_embed.proj.weight" not in sources or "transformer_blocks.0.attn2.to_k.weight" not in sources:
        names = [source.name for source in sources.values()]
        raise WrongCheckpointError(f"{path} is not Cosmos-Predict2.5 but {name_of_other_model(names)}.")
    if "crossattn_proj.0.weight" not in sources:
        raise WrongCheckpointError(
            f"{path} has no text projection (crossattn_proj). Either it is Cosmos-Predict2, not 2.5, or ComfyUI saved "
            "it from a MODEL. Choose in projection_from the checkpoint that the MODEL was loaded from."
        )
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


def vae_file_parts(path: Path) -> tuple[dict[str, Any], dict[str, Source]]:
    """Return config and sources of a Wan 2.1 VAE file. Raises `WrongCheckpointError` for another file."""
    sources = own_part(index_tensors(shards_of(path), diffusers_vae_name), VAE)
    first = sources.get("encoder.conv_in.weight")
    shape = first.file.shape(first.name) if first else ()
    if len(shape) != 5:
        raise WrongCheckpointError(f"{path} is not the Wan 2.1 VAE: it has no encoder.conv1 or encoder.conv_in.")
    return {"base_dim": shape[0]}, sources


def check_text_features(text_encoder: Path, features: int, wanted: int) -> None:
    """Raise `WrongCheckpointError` unless the text encoder's features fit the transformer's projection."""
    if features != wanted:
        raise WrongCheckpointError(
            f"{text_encoder} has {features} features per token, but the transformer takes {wanted}. Use the text "
            "encoder of the same checkpoint (for the 2B and 14B models that is Cosmos-Reason1-7B)."
        )


def language_model_name(name: str) -> str | None:
    """Return a parameter's name in Qwen2.5-VL's language model, or None if it belongs to another part."""
    name = bare_name(name)
    return None if name.startswith(("visual.", "lm_head.")) else name


def read_config(folder: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """Return a part's config. Raises `CheckpointNotFoundError`, or `WrongCheckpointError` if it is not JSON."""
    place = part_folder(folder, part)
    with as_wrong_checkpoint(place):
        return dict(read_json(place / file))


def part_folder(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise CheckpointNotFoundError(f"{folder} has no folder {name}. Download the whole checkpoint again.")
    return folder / name
