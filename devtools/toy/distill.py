"""The distilled LoRA of the demo: four passes learn to end at the clip that the demo's own steps mean.

The passes are those of schedule *distilled*, by whose rule NVIDIA's students are sampled.
"""

import time
from collections.abc import Iterator
from itertools import pairwise

import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor, nn

from ...pipeline.local.load.find import DEMO_FOLDER
from ...pipeline.local.schedule import distilled_sigmas
from . import vae
from .flow import GIVEN, begin_with, in_bfloat16, predict_velocity
from .low_rank import add_low_rank
from .own_videos import OwnVideos

RANK = 22
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "linear_1", "linear_2")
"""Beside the layers of other LoRAs, those that turn the timestep into shifts, scales and gates."""
BATCH = 16
LEARNING_RATE = 2e-3
PASS_WEIGHTS = (0.5, 0.5, 1.0, 2.0)
"""Of the error of each pass. Only the last one's estimate is a video; the others are for the next pass to see."""


def read_transformer() -> CosmosTransformer3DModel:
    return CosmosTransformer3DModel.from_pretrained(DEMO_FOLDER / "transformer")


def four_passes(transformer: nn.Module, videos: OwnVideos, given: int) -> Iterator[Tensor]:
    """The student's clean estimate in each of the passes of schedule *distilled*, as `Renoising` goes through them."""
    noise, known = videos.states[:, 0], videos.clean[:, :, :given]
    latents = noise
    for sigma, following in pairwise(distilled_sigmas(4)):
        seen = begin_with(known, latents), sigma.expand(len(latents))
        velocity = predict_velocity(transformer, *seen, videos.features, videos.log_counts, given)
        yield (denoised := latents - sigma * velocity)
        latents = torch.lerp(denoised, noise, following)


def train_student(taught: list[OwnVideos], num_steps: int) -> nn.ModuleDict:
    torch.manual_seed(0)
    transformer = read_transformer()
    parts = add_low_rank(transformer, TARGETS, RANK)
    optimizer = torch.optim.AdamW(parts.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    recent, start = None, time.monotonic()
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * vae.learning_rate_factor(step, num_steps)
        given = GIVEN[step % len(GIVEN)]
        videos = taught[given][torch.randperm(len(taught[given].clean))[:BATCH]]
        with in_bfloat16():
            estimates = torch.stack(list(four_passes(transformer, videos, given)))
        errors = (estimates - videos.clean)[:, :, :, given:].square().mean((1, 2, 3, 4, 5))
        (errors * torch.tensor(PASS_WEIGHTS)).sum().backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = errors.detach() if recent is None else 0.98 * recent + 0.02 * errors.detach()
        if step % 50 == 0:
            each = ", ".join(f"{error:.4f}" for error in recent)
            print(f"distillation step {step}: errors {each}, {time.monotonic() - start:.0f} s", flush=True)
    return parts
