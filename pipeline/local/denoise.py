"""Noise to latents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from .latents import KNOWN_TIMESTEP

if TYPE_CHECKING:
    from .transformer import CosmosTransformer

SCHEDULER_CONFIG: Mapping[str, Any] = {
    "use_karras_sigmas": True,
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "sigma_max": 200.0,
    "sigma_min": 0.01,
}
"""The sampler of Cosmos-Predict2.5: Karras sigmas 200 to 0.01, as flow sigmas s / (1 + s)."""


@dataclass(frozen=True)
class Step:
    """The state after one step. `latents` and `denoised`, the present guess of clean latents: (1, 16, T, H/8, W/8)."""

    index: int
    latents: Tensor
    denoised: Tensor


def make_schedule(config: Mapping[str, Any], num_inference_steps: int) -> UniPCMultistepScheduler:
    """A fresh scheduler with its `num_inference_steps` sigmas set."""
    scheduler: Any = UniPCMultistepScheduler.from_config(dict(config))
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


def condition_mask(latents: Tensor, known: int = 0) -> Tensor:
    """(1, 1, T, H/8, W/8): 1 on the first `known` latent frames, which are given, and 0 on those to be made."""
    mask = latents.new_zeros((1, 1, *latents.shape[2:]))
    mask[:, :, :known] = 1
    return mask


def nothing_given(latents: Tensor) -> Tensor:
    """What is known of a video that is made of text alone: (1, 16, 0, H/8, W/8)."""
    return latents[:, :, :0]


@torch.inference_mode()
def predict_velocity(
    transformer: "CosmosTransformer",
    latents: Tensor,
    timestep: Tensor,
    prompt_embeds: Tensor,
    mask: Tensor,
) -> Tensor:
    """One pass of the transformer: the flow's velocity, float32, of the shape of `latents`.

    `timestep`: the flow sigma in 0..1, (1,) where it is the same for all latent frames, else (T,). diffusers computes
    the same for every token apart.
    `prompt_embeds`: (1, 512, text_embed_dim), projected; `transformer.crossattn_proj` must be the identity.
    `mask`: of `condition_mask`.
    """
    dtype = transformer.compute_dtype or transformer.dtype
    return transformer(latents.to(dtype), timestep, prompt_embeds.to(dtype), mask.to(dtype)).float()


def timesteps_of(sigma: Tensor, frames: int, known: int) -> Tensor:
    """The transformer's timestep at `sigma`, (1,), of which the first `known` of `frames` latent frames have none."""
    if known == 0:
        return sigma
    return torch.cat([sigma.new_full((known,), KNOWN_TIMESTEP), sigma.expand(frames - known)])


def denoise(
    transformer: "CosmosTransformer",
    noise: Tensor,
    scheduler: UniPCMultistepScheduler,
    prompt_embeds: Tensor,
    negative_prompt_embeds: Tensor | None,
    guidance_scale: float,
    known: Tensor,
) -> Iterator[Step]:
    """Yield the state after each step of `scheduler` (fresh from `make_schedule`), from `noise` to clean latents.

    v = cond + guidance_scale * (cond - uncond). Without `negative_prompt_embeds` v = cond: half the work.
    `known`: (1, 16, k, H/8, W/8) in unit scale, the first latent frames of the video, as of `encode_frames`, or
    `nothing_given`. The transformer is given them; they come out with a trace of the noise, 0.005 of it.

    Source: `Cosmos2_5_PredictBasePipeline.__call__` of diffusers.
    """
    latents, count = noise, known.shape[2]
    mask, known_velocity = condition_mask(noise, count), noise[:, :, :count] - known
    for index, step in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index].reshape(1).to(latents.device)
        timestep = timesteps_of(sigma, noise.shape[2], count)
        seen = torch.cat([known, latents[:, :, count:]], dim=2)
        velocity = predict_velocity(transformer, seen, timestep, prompt_embeds, mask)
        if negative_prompt_embeds is not None:
            negative = predict_velocity(transformer, seen, timestep, negative_prompt_embeds, mask)
            velocity = velocity + guidance_scale * (velocity - negative)
        velocity = torch.cat([known_velocity, velocity[:, :, count:]], dim=2)
        latents = scheduler.step(velocity, step, latents, return_dict=False)[0]
        denoised: Any = scheduler.model_outputs[-1]
        yield Step(index, latents, denoised)
