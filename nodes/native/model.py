"""ComfyUI's MODEL: its Cosmos-Predict2 network with Predict2.5's schedule, noise and rotary embedding."""

from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...pipeline.local.finite import TRANSFORMER, check_finite
from ...pipeline.local.load.original_names import diffusers_name
from ...pipeline.local.load.parts import Parts
from ...pipeline.local.load.saved import PROJECTION
from ...pipeline.local.load.weights import Source, check_same_tensors
from ...pipeline.local.variant import POST_TRAINED, Variant
from .compat import (
    COSMOS_RFLOW,
    CosmosI2VPredict2,
    CosmosPredict2,
    MiniTrainDIT,
    ModelSamplingCosmosRFlow,
    WrappersMP,
    calculate_parameters,
    detect_layer_quantization,
)
from .refusals import refuse
from .tensors import read_tensors, weights_alone
from .training import make_trainable

SHIFTED_SIGMAS = 100_000
"""Enough sigmas for "simple", which takes the nearest, to be exact to 5e-5 at any number of steps."""
MAX_SIZE = (128, 240, 240)
"""Latent frames, rows and columns in the position embedding of the 2B and 14B models."""


class UnitNoise(ModelSamplingCosmosRFlow, COSMOS_RFLOW):
    """Starts from noise of variance 1, as in training. ComfyUI scales it by 200/201."""

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        return super().noise_scaling(sigma + 1 if max_denoise else sigma, noise, latent_image)


class ShiftedNoise(UnitNoise):
    """Evenly spaced, shifted sigmas, for ComfyUI's scheduler "simple"."""

    def __init__(self, model_config: Any, shift: float) -> None:
        super().__init__(model_config)
        flow = torch.linspace(0, 1 - 1 / 1000, SHIFTED_SIGMAS + 1, dtype=torch.float64)[1:]
        sigmas = (shift * flow / (1 - flow)).float()
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())


def keep_known(
    sample: Callable[..., Tensor],
    guider: Any,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: Tensor,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    *more: Any,
) -> Tensor:
    """Restore the known frames of `latent_image`, since ComfyUI leaves the noise of a first stage in them.

    A second stage takes them for clean. Called by ComfyUI around its samplers.
    """
    samples = sample(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *more)
    if denoise_mask is None or latent_image is None:
        return samples
    return torch.where(denoise_mask > 0, samples, latent_image.to(samples))


class CosmosPredict25Model(CosmosPredict2):
    def __init__(self, model_config: "CosmosPredict25", device: torch.device | None = None) -> None:
        super().__init__(model_config, image_to_video=True, device=device)
        make_trainable(self.diffusion_model)
        shift = model_config.variant.scheduler_config.get("flow_shift")
        self.model_sampling = ShiftedNoise(model_config, shift) if shift else UnitNoise(model_config)

    def extra_conds(self, **conds: Any) -> dict[str, Any]:
        """Called by ComfyUI before the first step. Raises `InvalidRequestError` as `refuse` does."""
        refuse(self, conds)
        # PerpNeg's empty conditioning comes without the latent, whose shape alone is read.
        own = {"latent_image": conds["noise"], "frame_rate": self.model_config.variant.rope_fps}
        return super().extra_conds(**{**own, **conds})

    def apply_model(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        """Raise `NotANumberError` at the first step that produces NaN, with any sampler."""
        denoised = super().apply_model(x, *args, **options)
        check_finite(denoised, TRANSFORMER, "in this step")
        return denoised

    def process_timestep(self, timestep: Tensor, x: Tensor, **conds: Any) -> Tensor:
        """Return the timestep of known frames as in training. ComfyUI has 0."""
        known = self.model_config.variant.conditioning_timestep
        return timestep if known is None else super().process_timestep(timestep, x, **conds).clamp(min=known)


class CosmosPredict25(CosmosI2VPredict2):
    sampling_settings = {"sigma_data": 1.0, "sigma_max": 200.0, "sigma_min": 0.01}  # noqa: RUF012 as in ComfyUI
    variant: Variant = POST_TRAINED

    def get_model(self, state_dict: Mapping[str, Tensor], prefix: str = "", device: torch.device | None = None):
        return CosmosPredict25Model(self, device)


def network_config(config: Mapping[str, Any], variant: Variant = POST_TRAINED) -> dict[str, Any]:
    """Return the config of ComfyUI's network from a transformer's config in diffusers' fields."""
    frames, height, width = config.get("max_size", MAX_SIZE)
    rope_t, rope_h, rope_w = config["rope_scale"]
    return {
        "image_model": "cosmos_predict2",
        "max_frames": frames,
        "max_img_h": height,
        "max_img_w": width,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "patch_spatial": 2,
        "patch_temporal": 1,
        "model_channels": config["num_attention_heads"] * config["attention_head_dim"],
        "concat_padding_mask": True,
        "crossattn_emb_channels": config["text_embed_dim"],
        "pos_emb_cls": "rope3d",
        "pos_emb_learnable": True,
        "pos_emb_interpolation": "crop",
        "min_fps": 1,
        "max_fps": 30,
        "use_adaln_lora": True,
        "adaln_lora_dim": config["adaln_lora_dim"],
        "num_blocks": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": config["mlp_ratio"],
        "extra_per_block_abs_pos_emb": config.get("extra_pos_embed_type") == "learnable",
        "rope_h_extrapolation_ratio": rope_h,
        "rope_w_extrapolation_ratio": rope_w,
        "rope_t_extrapolation_ratio": rope_t,
        "extra_h_extrapolation_ratio": 1.0,
        "extra_w_extrapolation_ratio": 1.0,
        "extra_t_extrapolation_ratio": 1.0,
        "rope_enable_fps_modulation": variant.rope_fps is not None,
    }


def load_transformer(parts: Parts, disable_dynamic: bool = False) -> tuple[ModelPatcher, dict[str, Tensor]]:
    """Load the MODEL, and the tensors of the text projection.

    `disable_dynamic`: without ComfyUI's dynamic loading, which does not work with nodes such as TorchCompileModel.
    Raises `WrongCheckpointError` if the files hold another network.
    """
    network, tensors, projection = _read(parts)
    model_config = CosmosPredict25(network)
    model_config.variant = parts.variant
    _use_own_latents(model_config.latent_format, parts.vae_config)
    patcher = _patcher(model_config, tensors, disable_dynamic)
    patcher.cached_patcher_init = (_load_patcher, (parts,))
    return patcher, projection


def _load_patcher(parts: Parts, disable_dynamic: bool = False) -> ModelPatcher:
    """ComfyUI calls this to load the model again, for a node that needs another copy."""
    return load_transformer(parts, disable_dynamic)[0]


def read_projection(parts: Parts) -> dict[str, Tensor]:
    """Load only the tensors of the text projection. Raises as `load_transformer` does."""
    return _read(parts)[2]


def _read(parts: Parts) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Return ComfyUI's config of the network, its tensors, and the text projection's tensors."""
    config = network_config(parts.transformer_config, parts.variant)
    names = native_names(config, parts.transformer_config, parts.transformer)
    # The projection may be in another file, with a transformer of its own.
    in_clip = {name: native for name, native in names.items() if native.startswith(PROJECTION)}
    in_model = {name: native for name, native in names.items() if name not in in_clip}
    files = {name: source.file.path for name, source in parts.transformer.items()}
    projection = read_tensors({path for name, path in files.items() if name in in_clip}, in_clip.get)
    tensors = read_tensors({path for name, path in files.items() if name not in in_clip}, in_model.get)
    return config, tensors, projection


def native_names(
    network: Mapping[str, Any], config: Mapping[str, Any], sources: Mapping[str, Source]
) -> dict[str, str]:
    """Map NVIDIA's and diffusers' parameter names to ComfyUI's, which are NVIDIA's.

    Raises `WrongCheckpointError` if `sources` do not fit the network.
    """
    with torch.device("meta"):
        transformer = MiniTrainDIT(**network, operations=comfy.ops.disable_weight_init)
        projection = nn.Linear(config["crossattn_proj_in_channels"], config["encoder_hidden_states_channels"])
    expected = {**transformer.state_dict(), **projection.state_dict(prefix=f"{PROJECTION}0.")}
    by_diffusers = {diffusers_name(name) or name: name for name in expected}
    shapes = {diffusers: expected[name] for diffusers, name in by_diffusers.items()}
    check_same_tensors(shapes.items(), weights_alone(sources), "the Cosmos-Predict2.5 transformer")
    return {name: native for diffusers, native in by_diffusers.items() for name in (diffusers, native)}


def _patcher(config: CosmosPredict25, tensors: dict[str, Tensor], disable_dynamic: bool) -> ModelPatcher:
    """Do the work of `comfy.sd.load_diffusion_model_state_dict` for a config that it does not know."""
    device, offload_device = model_management.get_torch_device(), model_management.unet_offload_device()
    quantized: Any = detect_layer_quantization(tensors, "")
    dtypes, parameters = config.supported_inference_dtypes, calculate_parameters(tensors)
    dtype = model_management.unet_dtype(
        model_params=parameters,
        supported_dtypes=dtypes,
        weight_dtype=None if quantized else comfy.utils.weight_dtype(tensors),
    )
    manual_cast = model_management.unet_manual_cast(None if quantized else dtype, device, dtypes)
    config.quant_config = quantized
    config.set_inference_dtype(dtype, manual_cast)
    model = config.get_model(tensors)
    patcher_class = ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=device, offload_device=offload_device)
    if not model_management.is_device_cpu(offload_device):
        model.to(offload_device)
    model.load_model_weights(tensors, "", assign=patcher.is_dynamic())
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "cosmos_predict25", keep_known)
    return patcher


def _use_own_latents(latent_format: Any, vae_config: Mapping[str, Any]) -> None:
    """Return the latent format. A VAE other than Wan's, such as the demo's, has another mean, deviation and colours."""
    for name in ("latents_mean", "latents_std"):
        if name in vae_config:
            setattr(latent_format, name, torch.tensor(vae_config[name]).view(1, -1, 1, 1, 1))
    if "_latent_rgb_factors" in vae_config:
        latent_format.latent_rgb_factors = vae_config["_latent_rgb_factors"]
        latent_format.latent_rgb_factors_bias = vae_config["_latent_rgb_factors_bias"]
