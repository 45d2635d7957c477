"""Latents: how many there are of a video, the noise that they start from, and their two scales."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

LATENT_CHANNELS = 16
SPATIAL_COMPRESSION = 8
TEMPORAL_COMPRESSION = 4


def latent_frames(num_frames: int) -> int:
    """Return how many latent frames hold `num_frames` frames: the model makes 4k+1 frames from k+1 latents."""
    return -(-(num_frames - 1) // TEMPORAL_COMPRESSION) + 1


def initial_noise(seed: int, num_frames: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return unit noise (1, 16, T, height/8, width/8), float32.

    It is drawn on the CPU, so a seed means the same on every device.
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
    """Return latents, (N, 16, T, h, w) in the VAE's scale, in unit scale: mean 0 and variance 1 in each channel."""
    mean, std = _mean_and_std(vae, latents)
    return (latents - mean) / std


def denormalize(vae: "AutoencoderKLWan", latents: Tensor) -> Tensor:
    """Return latents, (N, 16, T, h, w) in unit scale, in the scale that the VAE decodes."""
    mean, std = _mean_and_std(vae, latents)
    return latents * std + mean


def _mean_and_std(vae: "AutoencoderKLWan", latents: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (latents.new_tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return mean, std
