"""Noise to latents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

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


def nothing_given(latents: Tensor) -> Tensor:
    """The condition mask for text alone, (1, 1, T, H/8, W/8): all of `latents` is to be made."""
    return latents.new_zeros((1, 1, *latents.shape[2:]))


@torch.inference_mode()
def predict_velocity(
    transformer: "CosmosTransformer",
    latents: Tensor,
    sigma: Tensor,
    prompt_embeds: Tensor,
    condition_mask: Tensor,
) -> Tensor:
    """One pass of the transformer: the flow's velocity, float32, of the shape of `latents`.

    `sigma`: (1,), the flow sigma in 0..1, which is also the timestep. It is the same for all latent frames, so a 1-D
    timestep gives what diffusers computes for every token apart.
    `prompt_embeds`: (1, 512, text_embed_dim), projected; `transformer.crossattn_proj` must be the identity.
    `condition_mask`: (1, 1, T, H/8, W/8), 1 where the latents are given and 0 where they are to be made.
    """
    dtype = transformer.compute_dtype or transformer.dtype
    return transformer(latents.to(dtype), sigma, prompt_embeds.to(dtype), condition_mask.to(dtype)).float()


def denoise(
    transformer: "CosmosTransformer",
    noise: Tensor,
    scheduler: UniPCMultistepScheduler,
    prompt_embeds: Tensor,
    negative_prompt_embeds: Tensor | None,
    guidance_scale: float,
    condition_mask: Tensor,
) -> Iterator[Step]:
    """Yield the state after each step of `scheduler` (fresh from `make_schedule`), from `noise` to clean latents.

    v = cond + guidance_scale * (cond - uncond). Without `negative_prompt_embeds` v = cond: half the work.
    `condition_mask`: as for `predict_velocity`; `nothing_given` for text alone.

    Source: `Cosmos2_5_PredictBasePipeline.__call__` of diffusers, for text without an image or a video.
    """
    latents = noise
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index].reshape(1).to(latents.device)
        velocity = predict_velocity(transformer, latents, sigma, prompt_embeds, condition_mask)
        if negative_prompt_embeds is not None:
            negative = predict_velocity(transformer, latents, sigma, negative_prompt_embeds, condition_mask)
            velocity = velocity + guidance_scale * (velocity - negative)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        denoised: Any = scheduler.model_outputs[-1]
        yield Step(index, latents, denoised)
