"""Latents to frames."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor

from .latents import SPATIAL_COMPRESSION

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan


@torch.inference_mode()
def decode_chunks(vae: "AutoencoderKLWan", latents: Tensor) -> Iterator[Tensor]:
    """Decode latent frame by latent frame: one frame for the first, four for each further one.

    `latents`: (1, 16, T, h, w) as from `denormalize`. Yields (frames, 8h, 8w, 3), float32 in 0..1, on the VAE's device.

    What the causal convolutions remember travels from chunk to chunk, so the frames are those of `vae.decode`, without
    holding the whole video on the device. Source: `AutoencoderKLWan._decode` of diffusers.
    """
    memory = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    features = vae.post_quant_conv(latents.to(vae.dtype))
    for index in range(features.shape[2]):
        chunk = vae.decoder(features[:, :, index : index + 1], feat_cache=memory, feat_idx=[0], first_chunk=index == 0)
        yield (chunk[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)


@torch.inference_mode()
def decode_tiles(vae: "AutoencoderKLWan", latents: Tensor) -> Tensor:
    """All frames, (frames, 8h, 8w, 3), float32 in 0..1, decoded in tiles of 256 pixels that overlap by 64.

    Takes less memory than `decode_chunks` and two thirds more work at 1280x704, and the blended seams differ a little
    from it. `latents`: as from `denormalize`.
    """
    vae.enable_tiling(256, 256, 192, 192)
    try:
        video = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    finally:
        vae.disable_tiling()
    return (video[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)


def decode_activation_bytes(vae: "AutoencoderKLWan", latents: Tensor) -> int:
    """Memory for decoding beside the weights: 56 values per pixel and base channel, as tests/ counts them."""
    pixels = latents.shape[-2] * latents.shape[-1] * SPATIAL_COMPRESSION**2
    return 56 * pixels * vae.config["base_dim"] * vae.dtype.itemsize
