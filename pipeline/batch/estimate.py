"""How long jobs will take: the arithmetic of their passes by the rate of the device."""

import time
from collections.abc import Iterable

import torch

from ..local.latents import SPATIAL_COMPRESSION, latent_frames
from ..local.model import LocalModel, sizes_of
from ..request import GenerationRequest

SIDE = {"cuda": 8192, "cpu": 1024}
"""Of the square matrices that are multiplied."""
SECONDS = 0.5


def flops_of(request: GenerationRequest, model: LocalModel) -> float:
    """Return the floating point operations of all passes of a video.

    2 per weight and token, and 4 per channel and pair of tokens in each block's attention to itself.
    """
    sizes = sizes_of(model)
    tokens = latent_frames(request.num_frames) * request.height * request.width
    tokens //= SPATIAL_COMPRESSION**2 * sizes.patch
    weights = sizes.transformer.weights / sizes.itemsize
    attention = 4 * model.transformer.config["num_layers"] * sizes.channels * tokens**2
    passes = request.num_inference_steps * (1 if request.guidance_scale == 1 else 2)
    return passes * (2 * weights * tokens + attention)


def flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of matrix products on `device`, for half a second."""
    side = SIDE.get(device.type, SIDE["cpu"])
    matrix = torch.zeros(side, side, device=device, dtype=dtype)
    float((matrix @ matrix)[0, 0])
    begun, products = time.monotonic(), 0
    while (seconds := time.monotonic() - begun) < SECONDS or not products:
        float((matrix @ matrix)[0, 0])  # waits for the device
        products += 1
    return 2 * side**3 * products / seconds


def seconds_on(device: str, model: LocalModel, requests: Iterable[GenerationRequest]) -> float:
    """Return the seconds that all passes of `requests` take on `device` at the rate of its matrix products."""
    dtype = model.transformer.compute_dtype or model.transformer.dtype
    return sum(flops_of(request, model) for request in requests) / flops_per_second(torch.device(device), dtype)
