"""The sigmas that the denoising goes through, and how it gets from one to the next."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from ..request import DISTILLED, FEW_STEPS

SCHEDULER_CONFIG: Mapping[str, Any] = {
    "use_karras_sigmas": True,
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "sigma_max": 200.0,
    "sigma_min": 0.01,
}
"""The sampler of Cosmos-Predict2.5: Karras sigmas 200 to 0.01, as flow sigmas s / (1 + s)."""

FEW_STEPS_SIGMA_MIN, FEW_STEPS_RHO = 0.1, 10
DISTILLED_SIGMAS = (1, 15 / 16, 5 / 6, 5 / 8)
"""Flow sigmas of NVIDIA's distilled checkpoint, which has them as angles, atan(s / (1 - s)), in cosmos-predict2.5."""


class Solver(Protocol):
    """Goes from noise to clean latents. `sigmas`: (steps + 1,), of the flow, 1 for noise alone, the last one 0."""

    sigmas: Tensor

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The latents at `sigmas[index + 1]`, and the clean ones as guessed, from the velocity at `sigmas[index]`."""
        ...


class UniPC:
    """diffusers' UniPC of second order, as `config` has it, over any sigmas."""

    def __init__(self, config: Mapping[str, Any], sigmas: Tensor) -> None:
        self.sigmas = sigmas.cpu()
        self._scheduler: Any = UniPCMultistepScheduler.from_config(dict(config))
        self._scheduler.set_timesteps(len(sigmas) - 1)
        self._scheduler.sigmas = self.sigmas
        self._scheduler.set_begin_index(0)

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        timestep = self._scheduler.timesteps[index]
        latents = self._scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents, self._scheduler.model_outputs[-1]


class Renoising:
    """Guesses the clean latents in each step and puts the noise that all began with back on them."""

    def __init__(self, sigmas: Tensor, noise: Tensor) -> None:
        self.sigmas = sigmas
        self._noise = noise

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        denoised = latents - self.sigmas[index].item() * velocity
        return torch.lerp(denoised, self._noise, self.sigmas[index + 1].item()), denoised


def standard_sigmas(config: Mapping[str, Any], num_inference_steps: int) -> Tensor:
    """Those of a checkpoint's own scheduler."""
    scheduler: Any = UniPCMultistepScheduler.from_config(dict(config))
    scheduler.set_timesteps(num_inference_steps)
    return scheduler.sigmas


def few_steps_sigmas(first: float, num_inference_steps: int) -> Tensor:
    """Karras sigmas from the flow sigma `first` to 0.1 with rho 10, and 0. Source: Karras et al. 2022, equation 5.

    To half of the first one where that is less, as when the last few steps of many are made anew.
    """
    highest = first / (1 - first)
    start, end = (sigma ** (1 / FEW_STEPS_RHO) for sigma in (highest, min(FEW_STEPS_SIGMA_MIN, highest / 2)))
    sigmas = (start + torch.linspace(0, 1, num_inference_steps) * (end - start)) ** FEW_STEPS_RHO
    return torch.cat([sigmas / (1 + sigmas), torch.zeros(1)])


def distilled_sigmas(num_inference_steps: int) -> Tensor:
    """The first 1 to 4 of `DISTILLED_SIGMAS`, and 0."""
    return torch.tensor([*DISTILLED_SIGMAS[:num_inference_steps], 0.0])


def make_solver(
    schedule: str,
    config: Mapping[str, Any],
    sigmas: Tensor,
    noise: Tensor,
    unipc: Callable[[Mapping[str, Any], Tensor], Solver] = UniPC,
) -> Solver:
    """What takes `noise`, (1, 16, T, H/8, W/8), down `schedule`, one of a request. `config`: the checkpoint's own.

    `sigmas`: (steps + 1,), those of the standard schedule; the others have as many, and "few steps" begins as it does.
    `unipc`: `UniPC`, or the one of `library`.
    """
    steps = len(sigmas) - 1
    if schedule == DISTILLED:
        return Renoising(distilled_sigmas(steps), noise)
    return unipc(config, few_steps_sigmas(sigmas[0].item(), steps) if schedule == FEW_STEPS else sigmas)
