"""NVIDIA's parameter names of the transformer, Wan's of the VAE, and names that identify other models.

The first table is that of diffusers' `scripts/convert_cosmos_to_diffusers.py`, for Cosmos 2.0 and later.
"""

import re
from collections.abc import Iterable

PARTS = {
    "t_embedder.1.": "time_embed.t_embedder.",
    "t_embedding_norm.": "time_embed.norm.",
    "x_embedder.proj.1.": "patch_embed.proj.",
    "final_layer.adaln_modulation.": "norm_out.linear_",
    "final_layer.linear.": "proj_out.",
    "crossattn_proj.": "crossattn_proj.",
    "extra_pos_embedder.": "learnable_pos_embed.",
}
BLOCK_PARTS = {
    "adaln_modulation_self_attn.": "norm1.linear_",
    "adaln_modulation_cross_attn.": "norm2.linear_",
    "adaln_modulation_mlp.": "norm3.linear_",
    "self_attn.": "attn1.",
    "cross_attn.": "attn2.",
    "mlp.layer1.": "ff.net.0.proj.",
    "mlp.layer2.": "ff.net.2.",
}
ATTENTION_PARTS = {
    "q_proj.": "to_q.",
    "k_proj.": "to_k.",
    "v_proj.": "to_v.",
    "output_proj.": "to_out.0.",
    "q_norm.": "norm_q.",
    "k_norm.": "norm_k.",
}
NOT_WEIGHTS = ("accum_", "pos_embedder.")
WRAPPERS = re.compile(
    r"(?:^|(?<=[._]))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|module)[._]"
)
"""Prefixes of name segments from compiling, sharding, checkpointing and distributed training."""
CONTAINERS = re.compile(
    r"((net|base_model|model|transformer|diffusion_model|unet|dit|pipe|pipeline|vae|first_stage_model|"
    r"text_encoder|cond_stage_model|language_model)\.)*"
)
"""Names of the container in a training program, a pipeline or a file of several parts. No part's own name begins so."""

VAE_PARTS = {
    "conv1.": "quant_conv.",
    "conv2.": "post_quant_conv.",
    "encoder.conv1.": "encoder.conv_in.",
    "encoder.downsamples.": "encoder.down_blocks.",
    "encoder.head.0.": "encoder.norm_out.",
    "encoder.head.2.": "encoder.conv_out.",
    "decoder.conv1.": "decoder.conv_in.",
    "decoder.head.0.": "decoder.norm_out.",
    "decoder.head.2.": "decoder.conv_out.",
}
VAE_LAYERS = {
    ".middle.0.": ".mid_block.resnets.0.",
    ".middle.1.": ".mid_block.attentions.0.",
    ".middle.2.": ".mid_block.resnets.1.",
    ".residual.0.": ".norm1.",
    ".residual.2.": ".conv1.",
    ".residual.3.": ".norm2.",
    ".residual.6.": ".conv2.",
    ".shortcut.": ".conv_shortcut.",
}

OTHER_MODELS = {
    "Cosmos 1.0": "blocks.block0.",
    "a VAE": "decoder.",
    "Wan": "patch_embedding.",
    "Flux": "double_blocks.",
    "Stable Diffusion 3 or Flux": "joint_blocks.",
    "Stable Diffusion 1, 2 or XL": "input_blocks.",
    "LTX-Video": "patchify_proj.",
    "a text encoder": "layers.",
}
"""Other models in the same folders, by the start of a name that only they have."""
OTHER_NETWORKS = {
    "an action-conditioned Cosmos-Predict2.5": "action_embed",
    "a multiview Cosmos-Predict2.5": r"view_embed|adaln_view_|cross_view_attn",
    "Cosmos-Transfer2.5": r"control_(embedder|blocks)|controlnet_blocks",
}
"""Networks with all of Cosmos-Predict2.5's parameters and these."""


def bare_name(name: str) -> str:
    """Return a parameter's name in its part (transformer, LoRA, text encoder, VAE), without any prefixes."""
    return CONTAINERS.sub("", WRAPPERS.sub("", name), count=1)


def _replace_start(name: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def diffusers_name(name: str) -> str | None:
    """Return diffusers' name for an original name or one of its own, or None if it is not a weight."""
    name = bare_name(name)
    if name.startswith(NOT_WEIGHTS) or name.endswith("_extra_state"):
        return None
    if not name.startswith("blocks."):
        return _replace_start(name, PARTS)
    _, index, rest = name.split(".", 2)
    rest = _replace_start(rest, BLOCK_PARTS)
    for attention in ("attn1.", "attn2."):
        if rest.startswith(attention):
            rest = attention + _replace_start(rest.removeprefix(attention), ATTENTION_PARTS)
    return f"transformer_blocks.{index}.{rest}"


def original_name(name: str) -> str:
    """Return the original name for one of diffusers'."""
    parts, block_parts, attention_parts = (
        {new: old for old, new in table.items()} for table in (PARTS, BLOCK_PARTS, ATTENTION_PARTS)
    )
    if not name.startswith("transformer_blocks."):
        return _replace_start(name, parts)
    _, index, rest = name.split(".", 2)
    for attention in ("attn1.", "attn2."):
        if rest.startswith(attention):
            rest = attention + _replace_start(rest.removeprefix(attention), attention_parts)
    return f"blocks.{index}.{_replace_start(rest, block_parts)}"


def diffusers_vae_name(name: str, num_res_blocks: int = 2) -> str:
    """Return diffusers' name for one of Wan's VAE or one of its own."""
    name = bare_name(name)
    if name.startswith("decoder.upsamples."):
        _, _, index, rest = name.split(".", 3)
        block, place = divmod(int(index), num_res_blocks + 2)
        layer = f"resnets.{place}" if place <= num_res_blocks else "upsamplers.0"
        name = f"decoder.up_blocks.{block}.{layer}.{rest}"
    name = _replace_start(name, VAE_PARTS)
    for old, new in VAE_LAYERS.items():
        name = name.replace(old, new)
    return name


def name_of_other_model(names: Iterable[str]) -> str:
    """Return the name of another model, recognised by its parameters' names."""
    stripped = [bare_name(name) for name in names]
    for model, start in OTHER_MODELS.items():
        if any(name.startswith(start) for name in stripped):
            return model
    return f"an unknown model whose first parameters are {', '.join(stripped[:3])}"


def name_of_other_network(names: Iterable[str]) -> str | None:
    """Return NVIDIA's name of a network that extends Cosmos-Predict2.5, or None."""
    stripped = [bare_name(name) for name in names]
    for network, pattern in OTHER_NETWORKS.items():
        if any(re.search(pattern, name) for name in stripped):
            return network
    return None
