"""Refuse inputs that ComfyUI's samplers accept but that ruin this model's video, before the first step."""

import operator
from collections.abc import Mapping
from typing import Any

from ...pipeline.errors import InvalidRequestError
from ...pipeline.local.latents import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION
from .compat import CONST, COSMOS_RFLOW, ModelSamplingContinuousV

PICTURES = ("concat_latent_image", "vace_frames")
"""Keys under which other models' nodes put pictures into the conditioning."""
MAX_TIMESTEP = 1.0


def refuse(model: Any, conds: Mapping[str, Any]) -> None:
    """Raise `InvalidRequestError` for a schedule, a picture, a prompt or a size of another model.

    `conds`: the arguments of `extra_conds`.
    """
    _refuse_schedule(model.model_sampling)
    _refuse_pictures(conds)
    _refuse_prompt(conds, model.model_config.unet_config["crossattn_emb_channels"])
    _refuse_size(model.diffusion_model, tuple(conds["noise"].shape[2:]))


def _refuse_schedule(sampling: Any) -> None:
    """The network was trained on flow, whose timesteps go from 0 to 1."""
    timestep = float(sampling.timestep(sampling.sigma_max))
    is_flow = isinstance(sampling, (COSMOS_RFLOW, CONST, ModelSamplingContinuousV))
    if is_flow and timestep <= MAX_TIMESTEP:
        return
    reason = (
        f"timesteps up to {timestep:.4g}, but this model takes 0 to 1" if is_flow else "noise for another kind of model"
    )
    raise InvalidRequestError(
        f"A ModelSampling node gives {reason}, which would ruin the video. ModelSamplingSD3, ModelSamplingDiscrete, "
        "ModelSamplingStableCascade and ModelSamplingContinuousEDM other than cosmos_rflow do this. Remove the node: "
        "the Checkpoint Loader (Cosmos Predict2.5) sets the model's own schedule."
    )


def _refuse_pictures(conds: Mapping[str, Any]) -> None:
    found = [name for name in PICTURES if conds.get(name) is not None]
    if found:
        raise InvalidRequestError(
            f"The conditioning has a picture ({found[0]}) from a node such as WanImageToVideo or "
            "InpaintModelConditioning, which this model ignores. Connect CLIP Text Encode directly to the sampler. To "
            "start from a picture or a clip, use Start Latent (Cosmos Predict2.5). To redo a part of the picture, use "
            "Set Latent Noise Mask."
        )


def _refuse_prompt(conds: Mapping[str, Any], taken: int) -> None:
    embeds = conds.get("cross_attn")
    got = 0 if embeds is None else embeds.shape[-1]
    if got != taken:
        raise InvalidRequestError(
            f"The conditioning has {got} values per token, but this model takes {taken}: it comes from another model. "
            "Connect CLIP Text Encode (Prompt) to the CLIP of the same Checkpoint Loader (Cosmos Predict2.5)."
        )


def _refuse_size(network: Any, size: tuple[int, ...]) -> None:
    """Refuse a video that is larger than the learned positions."""
    largest = (network.max_frames, network.max_img_h, network.max_img_w)
    if network.extra_per_block_abs_pos_emb and any(map(operator.gt, size, largest)):
        raise InvalidRequestError(f"This checkpoint makes at most {_video(*largest)}, got {_video(*size)}.")


def _video(frames: int, height: int, width: int) -> str:
    """Return the size of a video of this many latents, in words."""
    pixels = f"{width * SPATIAL_COMPRESSION}x{height * SPATIAL_COMPRESSION}"
    return f"{pixels} and {(frames - 1) * TEMPORAL_COMPRESSION + 1} frames"
