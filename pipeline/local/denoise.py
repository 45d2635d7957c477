"""Denoise: from noise to latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .finite import TRANSFORMER, check_finite
from .schedule import Solver
from .sizes import KEPT_TOKENS, MAX_TOKENS, Chunks, ModelSizes
from .variant import CONDITIONING_TIMESTEP

if TYPE_CHECKING:
    from .transformer import CosmosTransformer, Prompt


@dataclass(frozen=True)
class Step:
    """The state after a step. `denoised`: the estimate of the clean latents. Both are (1, 16, T, H/8, W/8)."""

    index: int
    latents: Tensor
    denoised: Tensor


def condition_mask(latents: Tensor, num_conditioning_latents: int = 0) -> Tensor:
    """Return the mask (1, 1, T, H/8, W/8): 1 on the first `num_conditioning_latents` latent frames, 0 on the rest."""
    mask = latents.new_zeros((1, 1, *latents.shape[2:]))
    mask[:, :, :num_conditioning_latents] = 1
    return mask


def no_conditioning_latents(latents: Tensor) -> Tensor:
    """Return the conditioning latents of a video made from text alone: (1, 16, 0, H/8, W/8)."""
    return latents[:, :, :0]


def predict_velocity(
    transformer: "CosmosTransformer",
    latents: Tensor,
    timestep: Tensor,
    prompt_embeds: Tensor,
    mask: Tensor,
) -> Tensor:
    """Return the velocity for one prompt, as `predict_velocities` does for several."""
    return predict_velocities(transformer, latents, timestep, [transformer.prompt(prompt_embeds, latents)], mask)[0]


@torch.inference_mode()
def predict_velocities(
    transformer: "CosmosTransformer",
    latents: Tensor,
    timestep: Tensor,
    prompts: "Sequence[Prompt]",
    mask: Tensor,
) -> list[Tensor]:
    """Return the flow's velocity for each prompt, float32, of the shape of `latents`: one pass of the transformer each.

    `timestep`: the flow sigma in 0..1, (1,) if all latent frames share it, else (T,). diffusers computes the same value
    for every token separately. `prompts`: from `transformer.prompt`; `transformer.crossattn_proj` must be the identity.
    `mask`: from `condition_mask`.
    """
    dtype = transformer.compute_dtype or transformer.dtype
    latents, mask = latents.to(dtype), mask.to(dtype)
    shared = transformer.at(latents, timestep)
    return [transformer(latents, shared, prompt, mask).float() for prompt in prompts]


def denoise_activation_bytes(sizes: ModelSizes, tokens: int, chunks: Chunks) -> int:
    """Return the bytes that one pass takes.

    That is the residual stream in float32, keys and values, the current queries and their output, the rotary table, and
    one chunk inside a block. The tests count it.
    """
    residual = 4 * tokens * sizes.channels
    keys_and_values = 2 * tokens * sizes.channels * sizes.itemsize
    queries = 2 * min(tokens, chunks.queries or tokens) * sizes.channels * sizes.itemsize
    table = 2 * tokens * sizes.head_dim * 4
    chunk_values = 15 if chunks.queries is None else 5
    chunk = chunk_values * min(tokens, chunks.tokens) * sizes.channels * sizes.itemsize
    return residual + keys_and_values + queries + table + chunk


def kept_bytes(sizes: ModelSizes, tokens: int) -> int:
    """Return the bytes of the keys and values that two prompts keep for all passes of a video of `tokens` in all."""
    return 4 * MAX_TOKENS * sizes.channels * sizes.itemsize * sizes.blocks if tokens <= KEPT_TOKENS else 0


def timesteps_of(
    sigma: Tensor,
    num_latents: int,
    num_conditioning_latents: int,
    conditioning_timestep: float | None = CONDITIONING_TIMESTEP,
) -> Tensor:
    """Return the transformer's timestep at `sigma`, (1,), for a video of `num_latents` latent frames.

    The shape is (1,), or (num_latents,) if the conditioning latents have their own timestep, `conditioning_timestep` of
    the checkpoint's `Variant`.
    """
    if num_conditioning_latents == 0 or conditioning_timestep is None:
        return sigma
    conditioning = sigma.new_full((num_conditioning_latents,), conditioning_timestep)
    return torch.cat([conditioning, sigma.expand(num_latents - num_conditioning_latents)])


def denoise(
    transformer: "CosmosTransformer",
    noise: Tensor,
    solver: Solver,
    prompt_embeds: Tensor,
    negative_prompt_embeds: Tensor | None,
    guidance_scale: float,
    conditioning_latents: Tensor,
    conditioning_timestep: float | None = CONDITIONING_TIMESTEP,
) -> Iterator[Step]:
    """Yield the state after each step of `solver` (fresh from `make_solver`), from `noise` to clean latents.

    v = cond + guidance_scale * (cond - uncond). Without `negative_prompt_embeds`, v = cond at half the cost.
    `conditioning_latents`: (1, 16, k, H/8, W/8) in unit scale, the first latent frames of the video, from
    `encode_frames` or `no_conditioning_latents`. They come out with 0.005 of the noise.
    `conditioning_timestep`: from the checkpoint's `Variant`.
    Raises `NotANumberError` at the first step whose velocity contains NaN.

    Source: `Cosmos2_5_PredictBasePipeline.__call__` of diffusers.
    """
    latents, count = noise, conditioning_latents.shape[2]
    asked = [prompt_embeds] if negative_prompt_embeds is None else [prompt_embeds, negative_prompt_embeds]
    prompts = [transformer.prompt(embeds, noise) for embeds in asked]
    mask, conditioning_velocity = condition_mask(noise, count), noise[:, :, :count] - conditioning_latents
    for index, sigma in enumerate(solver.sigmas[:-1]):
        sigma = sigma.reshape(1).to(latents.device)
        timestep = timesteps_of(sigma, noise.shape[2], count, conditioning_timestep)
        seen = torch.cat([conditioning_latents, latents[:, :, count:]], dim=2)
        velocity, *negatives = predict_velocities(transformer, seen, timestep, prompts, mask)
        for negative in negatives:
            velocity = velocity + guidance_scale * (velocity - negative)
        check_finite(velocity, TRANSFORMER, f"in step {index + 1}")
        velocity = torch.cat([conditioning_velocity, velocity[:, :, count:]], dim=2)
        latents, denoised = solver.step(index, velocity, latents)
        yield Step(index, latents, denoised)
