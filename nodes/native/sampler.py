"""Generate Locally's sampler as a SAMPLER of ComfyUI's."""

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...pipeline.local.denoise import SCHEDULER_CONFIG, make_schedule


def unipc() -> comfy.samplers.KSAMPLER:
    return comfy.samplers.KSAMPLER(sample_unipc)


@torch.no_grad()
def sample_unipc(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
) -> Tensor:
    """diffusers' UniPC of second order over `sigmas`, which are ComfyUI's: s / (1 + s) are those of the flow.

    `x`: (B, 16, T, H/8, W/8), the latents times 1 + sigma, as ComfyUI's `COSMOS_RFLOW` has them.
    `model`: gives the denoised latents, after guidance.
    """
    flow = sigmas / (1 + sigmas)
    scheduler: Any = make_schedule(SCHEDULER_CONFIG, len(sigmas) - 1)
    scheduler.sigmas = flow.cpu()
    scheduler.set_begin_index(0)
    latents = x / (1 + sigmas[0])
    for index, timestep in enumerate(scheduler.timesteps):
        x = latents * (1 + sigmas[index])
        denoised = model(x, sigmas[index].expand(len(x)), **(extra_args or {}))
        if callback:
            callback({"x": x, "i": index, "sigma": sigmas[index], "sigma_hat": sigmas[index], "denoised": denoised})
        velocity = (latents - denoised) / flow[index]
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    return latents * (1 + sigmas[-1])
