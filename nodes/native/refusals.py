"""Refuse inputs that ComfyUI's samplers accept but that ruin this model's video, before the first step."""

from collections.abc import Mapping
from typing import Any

from ...pipeline.errors import InvalidRequestError
from ...pipeline.local.latents import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, latent_frames
from ...pipeline.request import NUM_FRAMES
from .compat import CONST, COSMOS_RFLOW, ModelSamplingContinuousV

PICTURES = ("concat_latent_image", "vace_frames")
"""Keys under which other models' nodes put pictures into the conditioning."""
MAX_TIMESTEP = 1.0
MAX_LATENT_FRAMES = latent_frames(NUM_FRAMES.maximum)
TIME = 2
"""The dimension of latents that windows of a video are cut in."""


def refuse(model: Any, conds: Mapping[str, Any]) -> None:
    """Raise `InvalidRequestError` for a schedule, a picture, a prompt or a size of another model.

    `conds`: the arguments of `extra_conds`.
    """
    _refuse_schedule(model.model_sampling)
    _refuse_pictures(conds)
    _refuse_prompt(conds, model.model_config.unet_config["crossattn_emb_channels"])
    _refuse_size(model, tuple(conds["noise"].shape[2:]))


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
            "InpaintModelConditioning, which this model ignores. Connect CLIP Text Encode (Prompt) to the sampler. To "
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


def _refuse_size(model: Any, size: tuple[int, ...]) -> None:
    """For what the model makes at once: the whole video, or a window of it."""
    network = model.diffusion_model
    frames, height, width = _at_once(model, size)
    is_learned = network.extra_per_block_abs_pos_emb
    most = network.max_frames if is_learned else MAX_LATENT_FRAMES
    fits = not is_learned or (height <= network.max_img_h and width <= network.max_img_w)
    if frames <= most and fits:
        return
    limit = _video(most, network.max_img_h, network.max_img_w) if is_learned else f"{_frames(most)} frames"
    # A window may have a latent frame before it, which is not its own.
    advice = (
        f" For a longer one, put Wan Context Windows behind the Checkpoint Loader (Cosmos Predict2.5), with a "
        f"context_length of at most {_frames(most - is_learned)}, or use Extend Video Locally (Cosmos Predict2.5)."
    )
    got = _video(frames, height, width) if is_learned else f"{_frames(frames)} frames"
    raise InvalidRequestError(f"This checkpoint makes at most {limit} at once, got {got}.{advice if fits else ''}")


def _at_once(model: Any, size: tuple[int, ...]) -> tuple[int, ...]:
    """The latent frames, rows and columns of one pass. Context windows cut the frames."""
    windows = model.current_patcher and model.current_patcher.model_options.get("context_handler")
    if not windows or windows.dim != TIME or windows.context_length >= size[0]:
        return size
    before = model.diffusion_model.extra_per_block_abs_pos_emb and getattr(windows, "causal_window_fix", False)
    return (windows.context_length + before, *size[1:])


def _video(frames: int, height: int, width: int) -> str:
    """A video of so many latents."""
    return f"{width * SPATIAL_COMPRESSION}x{height * SPATIAL_COMPRESSION} and {_frames(frames)} frames"


def _frames(latents: int) -> int:
    return (latents - 1) * TEMPORAL_COMPRESSION + 1
