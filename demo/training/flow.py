"""The transformer: CosmosTransformer3DModel as a rectified flow from noise to the latents of the toy world."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from ...pipeline.local.latents import SPATIAL_COMPRESSION, latent_frames
from ..world import NUM_FRAMES, SIDE
from .log import Log
from .muon import Optimizer
from .state import Resumable

BATCH = 32
LEARNING_RATE = 4e-3
EMA_DECAY = 0.997
NOT_MATRICES = ("patch_embed", "time_embed", "proj_out", "learnable_pos_embed")
"""Beginnings of the names of parameters that AdamW trains instead of Muon though they have two axes."""
UNCONDITIONAL = 0.1
"""Share of the samples whose prompt is replaced by the default negative prompt or by the empty one."""
LOG_SIGMA_MEAN, LOG_SIGMA_STD = 1.0, 1.7
"""Training noise: the sampler goes from sigma 200 to 0.01, and what is where is decided between 30 and 1."""


def new_transformer(text_features: int) -> CosmosTransformer3DModel:
    """Cosmos-Predict2.5's own configuration but for the sizes and the learned positions, which Cosmos 1.0 has.

    With rotary positions alone, attention over tokens of pure noise gives every token the same: where a thing is would
    be decided by chance, not by the prompt, until a far larger network has learned to take its hints from the noise.
    """
    transformer = CosmosTransformer3DModel(
        in_channels=17,
        out_channels=16,
        num_attention_heads=4,
        attention_head_dim=32,
        num_layers=4,
        max_size=(latent_frames(NUM_FRAMES), SIDE // SPATIAL_COMPRESSION, SIDE // SPATIAL_COMPRESSION),
        text_embed_dim=96,
        adaln_lora_dim=32,
        rope_scale=(1.0, 3.0, 3.0),
        extra_pos_embed_type="learnable",
        use_crossattn_projection=True,
        crossattn_proj_in_channels=text_features,
        encoder_hidden_states_channels=96,
    )
    open_gates(transformer)
    nn.init.zeros_(transformer.proj_out.weight)
    for positions in transformer.learnable_pos_embed.parameters():
        nn.init.normal_(positions, std=0.1)
    return transformer


def open_gates(transformer: CosmosTransformer3DModel) -> None:
    """Start with no shift, no scale and gates of one at every timestep, so that all blocks learn at once."""
    embed = transformer.time_embed.t_embedder
    channels = embed.linear_1.in_features
    nn.init.zeros_(embed.linear_2.weight)
    with torch.no_grad():
        # The first half of the timestep's embedding are cosines of up to one radian, the last of them nearly 1.
        embed.linear_1.weight[0] = 0
        embed.linear_1.weight[0, channels // 4 : channels // 2] = 4 / channels
        embed.linear_2.weight[2 * channels :, 0] = 1 / functional.silu(torch.tensor(1.0))
    for name, module in transformer.named_modules():
        if name.endswith("linear_2") and module is not embed.linear_2:
            nn.init.zeros_(module.weight)


def sample_sigma(count: int) -> Tensor:
    """Flow sigmas (count,) in 0..1: log-normal before s / (1 + s), one from each of `count` equally likely ranges."""
    shares = (torch.arange(count) + torch.rand(count)) / count
    log_sigma = LOG_SIGMA_MEAN + LOG_SIGMA_STD * math.sqrt(2) * torch.erfinv(2 * shares.clamp(1e-4, 1 - 1e-4) - 1)
    return torch.sigmoid(log_sigma.clamp(-4.6, 5.3))


def velocity_loss(
    transformer: CosmosTransformer3DModel, latents: Tensor, sigma: Tensor, features: Tensor, log_counts: Tensor
) -> Tensor:
    """Mean squared error of the velocity, noise - latents, at (1 - sigma) latents + sigma noise: (N,).

    `latents` (N, 16, T, h, w), `sigma` (N,), `features` (N, tokens, features), `log_counts` (N, tokens).
    Source: `Cosmos2_5_PredictBasePipeline.__call__` and `UniPCMultistepScheduler` with flow sigmas.
    """
    noise = torch.randn_like(latents)
    wide = sigma.view(-1, 1, 1, 1, 1)
    no_mask = latents.new_zeros((len(latents), 1, *latents.shape[2:]))
    velocity = transformer(
        hidden_states=(1 - wide) * latents + wide * noise,
        timestep=sigma,
        encoder_hidden_states=features,
        attention_mask=log_counts,
        condition_mask=no_mask,
        padding_mask=no_mask[:1, :, 0],
        return_dict=False,
    )[0]
    return (velocity.float() - (noise - latents)).square().mean((1, 2, 3, 4))


class Samples:
    """The training set: latents of unit scale and, for each, the features of a few sentences about it."""

    def __init__(self, latents: Tensor, features: Tensor, log_counts: Tensor, blank: tuple[Tensor, Tensor]) -> None:
        """`features`: (scenes, captions, tokens, features). `blank`: those of the prompts that ask for nothing."""
        self.latents, self.features, self.log_counts, self.blank = latents, features, log_counts, blank

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = random.Random(f"flow {step}")
        latents, features, log_counts = [], [], []
        for _ in range(BATCH):
            scene = rng.randrange(len(self.latents))
            number = rng.randrange(self.features.shape[1])
            latents.append(self.latents[scene])
            if rng.random() < UNCONDITIONAL:
                number = rng.randrange(len(self.blank[0]))
                features.append(self.blank[0][number])
                log_counts.append(self.blank[1][number])
            else:
                features.append(self.features[scene, number])
                log_counts.append(self.log_counts[scene, number])
        return torch.stack(latents).float(), torch.stack(features).float(), torch.stack(log_counts).float()


def train_flow(samples: Samples, state_file: Path, num_steps: int, log: Log) -> Iterator[CosmosTransformer3DModel]:
    """Yields the average of the weights over the last steps whenever the state was saved, and at the end."""
    torch.manual_seed(0)
    transformer = new_transformer(samples.features.shape[-1])
    average = torch.optim.swa_utils.AveragedModel(
        transformer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)
    )
    for block in transformer.transformer_blocks:
        block.compile()
    optimizer = Optimizer(transformer, LEARNING_RATE, others=NOT_MATRICES)
    parts = {"transformer": transformer, "average": average, "optimizer": optimizer}
    steps = Resumable(state_file, num_steps, 250, **parts)
    recent = None
    for step in steps:
        if step and step % 250 == 0:
            yield average.module
        torch.manual_seed(step)
        latents, features, log_counts = samples.batch(step)
        sigma = sample_sigma(BATCH)
        loss = velocity_loss(transformer, latents, sigma, features, log_counts).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.step(learning_rate_factor(step, num_steps))
        average.update_parameters(transformer)
        recent = loss.item() if recent is None else 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 0:
            log(f"flow step {step}: loss {recent:.4f}, {steps.seconds:.0f} s")
    yield average.module


def learning_rate_factor(step: int, num_steps: int) -> float:
    """Linear warm-up over 100 steps, then constant, then linear to a twentieth over the last third."""
    return min((step + 1) / 100, 1.0) * min(1.0, 0.05 + 0.95 * 3 * (num_steps - step) / num_steps)
