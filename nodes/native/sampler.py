"""Generate Locally's sampler as a SAMPLER of ComfyUI's."""

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...pipeline.errors import InvalidRequestError
from ...pipeline.local.schedule import ONLY_NOISE, make_solver
from ...pipeline.local.variant import KARRAS_CONFIG
from ...pipeline.request import FOUR_STEPS, MAX_DISTILLED_STEPS


def sampler(schedule: str) -> comfy.samplers.KSAMPLER:
    """Return the SAMPLER. `schedule`: a request's. "standard" uses the given sigmas, the others have their own."""
    return comfy.samplers.KSAMPLER(sample, {"schedule": schedule})


@torch.no_grad()
def sample(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    *,
    schedule: str,
) -> Tensor:
    """Return clean latents after the steps of ComfyUI's `sigmas`; flow sigmas are s / (1 + s).

    `x`: (B, 16, T, H/8, W/8), the latents times 1 + sigma, as ComfyUI's `COSMOS_RFLOW` has them.
    `model`: gives the denoised latents, after guidance.
    Raises `InvalidRequestError` for settings that a distilled schedule does not support.
    """
    latents = x / (1 + sigmas[0])
    if schedule in FOUR_STEPS:
        _check_distilled(model, sigmas, schedule)
    solver = make_solver(schedule, KARRAS_CONFIG, sigmas / (1 + sigmas), latents)
    for index, flow in enumerate(solver.sigmas[:-1].clamp(max=ONLY_NOISE).to(x)):
        sigma = flow / (1 - flow)
        x = latents * (1 + sigma)
        denoised = model(x, sigma.expand(len(x)), **(extra_args or {}))
        if callback:
            callback({"x": x, "i": index, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        latents, _ = solver.step(index, (latents - denoised) / flow, latents)
    return latents / (1 - solver.sigmas[-1].to(x))


def _check_distilled(model: Any, sigmas: Tensor, schedule: str) -> None:
    steps, guider = len(sigmas) - 1, model.inner_model
    if steps > MAX_DISTILLED_STEPS:
        raise InvalidRequestError(f"steps is {steps}, but the schedule {schedule!r} has 1 to {MAX_DISTILLED_STEPS}.")
    if getattr(guider, "cfg", 1) != 1:
        raise InvalidRequestError(f"cfg is {guider.cfg:g}, but the schedule {schedule!r} has no guidance: set it to 1.")
    if sigmas[0] < 0.99 * guider.inner_model.model_sampling.sigma_max:
        raise InvalidRequestError(f"The schedule {schedule!r} starts from pure noise: set denoise to 1.")
