"""Noise to latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .finite import TRANSFORMER, check_finite
from .schedule import Solver
from .variant import CONDITIONING_TIMESTEP

if TYPE_CHECKING:
    from .transformer import CosmosTransformer


@dataclass(frozen=True)
class Step:
    """The state after one step. `latents` and `denoised`, the present guess of clean latents: (1, 16, T, H/8, W/8)."""

    index: int
    latents: Tensor
    denoised: Tensor


def condition_mask(latents: Tensor, known: int = 0) -> Tensor:
    """(1, 1, T, H/8, W/8): 1 on the first `known` latent frames, which are given, and 0 on those to be made."""
    mask = latents.new_zeros((1, 1, *latents.shape[2:]))
    mask[:, :, :known] = 1
    return mask


def nothing_given(latents: Tensor) -> Tensor:
    """What is known of a video that is made of text alone: (1, 16, 0, H/8, W/8)."""
    return latents[:, :, :0]


def predict_velocity(
    transformer: "CosmosTransformer",
    latents: Tensor,
    timestep: Tensor,
    prompt_embeds: Tensor,
    mask: Tensor,
) -> Tensor:
    """One pass of the transformer: as `predict_velocities` for one prompt."""
    return predict_velocities(transformer, latents, timestep, [prompt_embeds], mask)[0]


@torch.inference_mode()
def predict_velocities(
    transformer: "CosmosTransformer",
    latents: Tensor,
    timestep: Tensor,
    prompts_embeds: Sequence[Tensor],
    mask: Tensor,
) -> list[Tensor]:
    """A pass of the transformer for each prompt: the flow's velocities, float32, of the shape of `latents`.

    `timestep`: the flow sigma in 0..1, (1,) where it is the same for all latent frames, else (T,). diffusers computes
    the same for every token apart.
    `prompts_embeds`: (1, 512, text_embed_dim) each, projected; `transformer.crossattn_proj` must be the identity.
    `mask`: of `condition_mask`.
    """
    dtype = transformer.compute_dtype or transformer.dtype
    latents, mask = latents.to(dtype), mask.to(dtype)
    moment = transformer.moment(latents, timestep)
    return [transformer(latents, moment, embeds.to(dtype), mask).float() for embeds in prompts_embeds]


def timesteps_of(
    sigma: Tensor, frames: int, known: int, conditioning_timestep: float | None = CONDITIONING_TIMESTEP
) -> Tensor:
    """The transformer's timestep at `sigma`, (1,), of which the first `known` of `frames` latent frames have none.

    `conditioning_timestep`: of a `Variant`.
    """
    if known == 0 or conditioning_timestep is None:
        return sigma
    return torch.cat([sigma.new_full((known,), conditioning_timestep), sigma.expand(frames - known)])


def denoise(
    transformer: "CosmosTransformer",
    noise: Tensor,
    solver: Solver,
    prompt_embeds: Tensor,
    negative_prompt_embeds: Tensor | None,
    guidance_scale: float,
    known: Tensor,
    conditioning_timestep: float | None = CONDITIONING_TIMESTEP,
) -> Iterator[Step]:
    """Yield the state after each step of `solver` (fresh from `make_solver`), from `noise` to clean latents.

    v = cond + guidance_scale * (cond - uncond). Without `negative_prompt_embeds` v = cond: half the work.
    `known`: (1, 16, k, H/8, W/8) in unit scale, the first latent frames of the video, as of `encode_frames`, or
    `nothing_given`. The transformer is given them; they come out with a trace of the noise, 0.005 of it.
    `conditioning_timestep`: of the checkpoint's `Variant`.
    Raises `NotANumberError` at the first step whose velocity is not all numbers.

    Source: `Cosmos2_5_PredictBasePipeline.__call__` of diffusers.
    """
    latents, count = noise, known.shape[2]
    prompts = [prompt_embeds] if negative_prompt_embeds is None else [prompt_embeds, negative_prompt_embeds]
    mask, known_velocity = condition_mask(noise, count), noise[:, :, :count] - known
    for index, sigma in enumerate(solver.sigmas[:-1]):
        sigma = sigma.reshape(1).to(latents.device)
        timestep = timesteps_of(sigma, noise.shape[2], count, conditioning_timestep)
        seen = torch.cat([known, latents[:, :, count:]], dim=2)
        velocity, *negatives = predict_velocities(transformer, seen, timestep, prompts, mask)
        for negative in negatives:
            velocity = velocity + guidance_scale * (velocity - negative)
        check_finite(velocity, TRANSFORMER, f"in step {index + 1}")
        velocity = torch.cat([known_velocity, velocity[:, :, count:]], dim=2)
        latents, denoised = solver.step(index, velocity, latents)
        yield Step(index, latents, denoised)
