"""The sigmas of the denoising steps, and the solvers that step between them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from ..request import DISTILLED, DISTILLED_ODE, FEW_STEPS

ONLY_NOISE = 1 - 2**-20
"""Replaces the flow sigma 1, which is infinity in ComfyUI's sigmas. Scaling by it does not round in float32."""
FEW_STEPS_SIGMA_MIN, FEW_STEPS_RHO = 0.1, 10
OTHER_SPACINGS = ("use_exponential_sigmas", "use_beta_sigmas", "use_dynamic_shifting", "shift_terminal")
"""Options of diffusers' UniPC that no Cosmos-Predict2.5 was trained for."""
DISTILLED_SIGMAS = (1, 15 / 16, 5 / 6, 5 / 8)
"""Flow sigmas of NVIDIA's distilled checkpoint. cosmos-predict2.5 has them as angles, atan(s / (1 - s)).

DFD has the same, rounded down to thousandths. Source: hao-ai-lab/FastVideo, pull request 1767.
"""


class Solver(Protocol):
    """Goes from noise to clean latents. `sigmas`: flow sigmas, (steps + 1,), from 1 (pure noise) to 0."""

    sigmas: Tensor

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents at `sigmas[index + 1]` and the clean estimate, given the velocity at `sigmas[index]`."""
        ...


class UniPC:
    """diffusers' second-order UniPC, configured by `config`, over any sigmas."""

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
    """Estimates the clean latents in each step, and adds the initial noise again."""

    def __init__(self, sigmas: Tensor, noise: Tensor) -> None:
        self.sigmas = sigmas
        self._noise = noise

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        denoised = latents - self.sigmas[index].item() * velocity
        return torch.lerp(denoised, self._noise, self.sigmas[index + 1].item()), denoised


class Euler:
    """Follows the flow's ODE in straight steps, without new noise."""

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        sigma, following = self.sigmas[index].item(), self.sigmas[index + 1].item()
        return latents + (following - sigma) * velocity, latents - sigma * velocity


def is_usable(config: Mapping[str, Any]) -> bool:
    """Return whether `config`, of a folder's scheduler, is a UniPC with flow sigmas, the only supported kind."""
    if config.get("_class_name", UniPCMultistepScheduler.__name__) != UniPCMultistepScheduler.__name__:
        return False
    is_flow = config.get("use_flow_sigmas") is True and config.get("prediction_type") == "flow_prediction"
    if not is_flow or any(config.get(spacing) for spacing in OTHER_SPACINGS):
        return False
    try:
        sigmas = standard_sigmas(config, 35)
    except (TypeError, ValueError, ArithmeticError):
        return False
    return bool(sigmas[0] <= 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all())


def standard_sigmas(config: Mapping[str, Any], num_inference_steps: int) -> Tensor:
    """Return the sigmas of a checkpoint's own scheduler.

    Without Karras they have NVIDIA's spacing, from 1 - 1 / 1000 down to a step above 0; diffusers ends 1 / 1000 higher.
    Source: `FlowUniPCMultistepScheduler.set_timesteps` of cosmos-predict2.5.
    """
    if not config.get("use_karras_sigmas"):
        return shifted_sigmas(config.get("flow_shift", 1.0), num_inference_steps)
    scheduler: Any = UniPCMultistepScheduler.from_config(dict(config))
    scheduler.set_timesteps(num_inference_steps)
    return scheduler.sigmas


def shifted_sigmas(shift: float, num_inference_steps: int) -> Tensor:
    """Return evenly spaced flow sigmas and 0. `shift` moves the ones in between towards 1."""
    sigmas = torch.linspace(1 - 1 / 1000, 0, num_inference_steps + 1, dtype=torch.float64)
    return (shift * sigmas / (1 + (shift - 1) * sigmas)).float()


def few_steps_sigmas(first: float, num_inference_steps: int) -> Tensor:
    """Return Karras sigmas from the flow sigma `first` to 0.1 with rho 10, and 0. Source: Karras et al. 2022, eq. 5.

    They end at half of `first` if that is less, as when only the last few of many steps are repeated.
    """
    highest = first / (1 - first)
    start, end = (sigma ** (1 / FEW_STEPS_RHO) for sigma in (highest, min(FEW_STEPS_SIGMA_MIN, highest / 2)))
    sigmas = (start + torch.linspace(0, 1, num_inference_steps) * (end - start)) ** FEW_STEPS_RHO
    return torch.cat([sigmas / (1 + sigmas), torch.zeros(1)])


def distilled_sigmas(num_inference_steps: int) -> Tensor:
    """Return the first 1 to 4 of `DISTILLED_SIGMAS`, and 0."""
    return torch.tensor([*DISTILLED_SIGMAS[:num_inference_steps], 0.0])


def make_solver(
    schedule: str,
    config: Mapping[str, Any],
    sigmas: Tensor,
    noise: Tensor,
    unipc: Callable[[Mapping[str, Any], Tensor], Solver] = UniPC,
) -> Solver:
    """Return a solver that takes `noise`, (1, 16, T, H/8, W/8), down `schedule`, a request's.

    `config`: the checkpoint's scheduler. `sigmas`: (steps + 1,), of the standard schedule; the others have the same
    number, and "few steps" has the same first one. `unipc`: `UniPC`, or the one in `library`.
    """
    steps = len(sigmas) - 1
    if schedule == DISTILLED:
        return Renoising(distilled_sigmas(steps), noise)
    if schedule == DISTILLED_ODE:
        return Euler(distilled_sigmas(steps))
    return unipc(config, few_steps_sigmas(sigmas[0].item(), steps) if schedule == FEW_STEPS else sigmas)
