"""Latents: their number, the start noise, and their two scales."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

LATENT_CHANNELS = 16
SPATIAL_COMPRESSION = 8
TEMPORAL_COMPRESSION = 4


def latent_frames(num_frames: int) -> int:
    """Return the number of latent frames for `num_frames` frames: k+1 latents decode to 4k+1 frames."""
    return -(-(num_frames - 1) // TEMPORAL_COMPRESSION) + 1


def initial_noise(seed: int, num_frames: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return unit noise (1, 16, T, height/8, width/8), float32.

    It is drawn on the CPU, so a seed gives the same noise on every device.
    """
    shape = (
        1,
        LATENT_CHANNELS,
        latent_frames(num_frames),
        height // SPATIAL_COMPRESSION,
        width // SPATIAL_COMPRESSION,
    )
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def normalize(vae: "AutoencoderKLWan", latents: Tensor) -> Tensor:
    """Convert latents (N, 16, T, h, w) from the VAE's scale to unit scale: mean 0 and variance 1 per channel."""
    mean, std = _mean_and_std(vae, latents)
    return (latents - mean) / std


def denormalize(vae: "AutoencoderKLWan", latents: Tensor) -> Tensor:
    """Convert latents (N, 16, T, h, w) from unit scale to the scale that the VAE decodes."""
    mean, std = _mean_and_std(vae, latents)
    return latents * std + mean


def _mean_and_std(vae: "AutoencoderKLWan", latents: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (latents.new_tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return mean, std
