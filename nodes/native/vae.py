"""ComfyUI's VAE, for the Wan 2.1 VAE and for the same kind in another shape, such as the demo's."""

from typing import Any

import comfy.model_patcher
import comfy.sd
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher

from ...pipeline.local.load.original_names import bare_name, diffusers_vae_name
from ...pipeline.local.load.parts import Parts
from ...pipeline.local.load.weights import check_same_tensors
from .compat import WanVAE
from .tensors import read_tensors

WAN_DIM_MULT, WAN_RES_BLOCKS = [1, 2, 4, 4], 2


def load_vae(parts: Parts) -> comfy.sd.VAE:
    """Load the VAE. Raises `WrongCheckpointError` if the files hold another one."""
    vae = _load(parts)
    vae.patcher.cached_patcher_init = (_load_patcher, (parts,))
    return vae


def _load_patcher(parts: Parts, disable_dynamic: bool = False) -> ModelPatcher:
    """ComfyUI calls this to load the VAE again, for another device."""
    return load_vae(parts).patcher


def _load(parts: Parts) -> comfy.sd.VAE:
    dim_mult = parts.vae_config.get("dim_mult", WAN_DIM_MULT)
    num_res_blocks = parts.vae_config.get("num_res_blocks", WAN_RES_BLOCKS)
    network = _network(parts.vae_config["base_dim"], dim_mult, num_res_blocks)
    by_diffusers = {diffusers_vae_name(name, num_res_blocks): name for name in network.state_dict()}
    expected = ((name, network.state_dict()[native]) for name, native in by_diffusers.items())
    check_same_tensors(expected, parts.vae, "the Wan 2.1 VAE")
    names = {bare_name(parts.vae[diffusers].name): native for diffusers, native in by_diffusers.items()}
    tensors = read_tensors({source.file.path for source in parts.vae.values()}, names.get)
    if (dim_mult, num_res_blocks) == (WAN_DIM_MULT, WAN_RES_BLOCKS):
        return comfy.sd.VAE(sd=tensors)
    return _with_another_network(network, tensors)


def _network(dim: int, dim_mult: list[int], num_res_blocks: int) -> WanVAE:
    with torch.device("meta"):
        return WanVAE(
            dim=dim,
            z_dim=16,
            dim_mult=dim_mult,
            num_res_blocks=num_res_blocks,
            temperal_downsample=[False, True, True],
        )


def _with_another_network(network: WanVAE, tensors: dict[str, Any]) -> comfy.sd.VAE:
    """ComfyUI's VAE with a network whose shape it would not recognise."""
    like_wans = {
        name: torch.empty_like(value, device="cpu")
        for name, value in _network(8, WAN_DIM_MULT, WAN_RES_BLOCKS).state_dict().items()
    }
    vae = comfy.sd.VAE(sd=like_wans)
    network.load_state_dict(tensors, assign=True)
    vae.first_stage_model = network.eval().requires_grad_(False).to(vae.vae_dtype)
    vae.patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=vae.device, offload_device=model_management.vae_offload_device()
    )
    return vae
