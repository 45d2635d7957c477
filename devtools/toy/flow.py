"""The transformer: CosmosTransformer3DModel as a rectified flow from noise to the latents of the toy world."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...pipeline.local.denoise import CONDITIONING_TIMESTEP
from ...pipeline.local.latents import SPATIAL_COMPRESSION, latent_frames
from .log import Log
from .muon import Optimizer
from .state import Resumable
from .world import NUM_FRAMES, SIDE

BATCH = 32
LEARNING_RATE = 4e-3
EMA_DECAY = 0.997
NOT_MATRICES = ("patch_embed", "time_embed", "proj_out", "learnable_pos_embed")
"""Beginnings of the names of parameters that AdamW trains instead of Muon though they have two axes."""
GIVEN = (0, 1, 0, 2)
"""How many latent frames are given in a step and in the next ones: the shares of the 2B model's training."""
TWINS = 8
"""How many samples of a batch are there a second time, under a prompt that asks for nothing."""
TWIN_WEIGHT = 20
"""Of the error of a twin with little noise, in which all is to be seen that a prompt could say."""
LOG_SIGMA_MEAN, LOG_SIGMA_STD = 1.0, 1.7
"""Training noise: the sampler goes from sigma 200 to 0.01, and what is where is decided between 30 and 1."""


def new_transformer(text_features: int) -> CosmosTransformer3DModel:
    """Cosmos-Predict2.5's own configuration but for the sizes and the learned positions, which Cosmos 1.0 has.

    With rotary positions alone, attention over tokens of pure noise gives every token the same: where an object is
    would be decided by chance, not by the prompt, until a far larger network has learned to take hints from the noise.
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


@contextmanager
def in_bfloat16() -> Iterator[None]:
    """Compute in bfloat16, with plain attention: on a CPU, the fused one's gradient takes a third of a step's time."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of every device, in spite of its name
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def sample_sigma(count: int) -> Tensor:
    """Flow sigmas (count,) in 0..1: log-normal before s / (1 + s), one from each of `count` equally likely ranges."""
    shares = (torch.arange(count) + torch.rand(count)) / count
    log_sigma = LOG_SIGMA_MEAN + LOG_SIGMA_STD * math.sqrt(2) * torch.erfinv(2 * shares.clamp(1e-4, 1 - 1e-4) - 1)
    return torch.sigmoid(log_sigma.clamp(-4.6, 5.3))


def batch_sigma() -> Tensor:
    """A sigma for each sample of a batch, (BATCH,): twins have the same."""
    sigma = sample_sigma(BATCH - TWINS)[torch.randperm(BATCH - TWINS)]
    return torch.cat([sigma, sigma[:TWINS]])


def velocity_loss(
    transformer: CosmosTransformer3DModel,
    latents: Tensor,
    sigma: Tensor,
    features: Tensor,
    log_counts: Tensor,
    given: int,
) -> Tensor:
    """Mean squared error of the velocity, noise - latents, at (1 - sigma) latents + sigma noise: (N,).

    `latents` (N, 16, T, h, w), `sigma` (N,), `features` (N, tokens, features), `log_counts` (N, tokens). The network
    sees the first `given` latent frames as they are, and the error is that of the others.
    The last `TWINS` samples are the first ones under a prompt that asks for nothing. What they are to learn is what the
    network says of the first. That is the same on average, and guidance, which enlarges the difference of the two,
    enlarges no error that they have in common.
    Source: `Cosmos2_5_PredictBasePipeline.__call__` and `UniPCMultistepScheduler` with flow sigmas.
    """
    noise = torch.randn_like(latents)
    noise[-TWINS:] = noise[:TWINS]
    wide = sigma.view(-1, 1, 1, 1, 1)
    noisy = begin_with(latents[:, :, :given], torch.lerp(latents, noise, wide))
    return twin_losses(transformer, noisy, noise - latents, sigma, features, log_counts, given)


def twin_losses(
    transformer: CosmosTransformer3DModel,
    noisy: Tensor,
    wanted: Tensor,
    sigma: Tensor,
    features: Tensor,
    log_counts: Tensor,
    given: int,
) -> Tensor:
    """Mean squared error of the velocity at `noisy` from `wanted`, of twins from that of the first: (N,)."""
    velocity = predict_velocity(transformer, noisy, sigma, features, log_counts, given)
    wanted = torch.cat([wanted[:-TWINS], velocity[:TWINS].detach()])
    errors = (velocity - wanted)[:, :, given:].square().mean((1, 2, 3, 4))
    clean = (1 / sigma[-TWINS:] - 1).clamp(max=1)
    return torch.cat([errors[:-TWINS], TWIN_WEIGHT * clean * errors[-TWINS:]])


def begin_with(known: Tensor, latents: Tensor) -> Tensor:
    """`latents` with `known` in the place of the first frames."""
    return torch.cat([known, latents[:, :, known.shape[2] :]], 2)


def predict_velocity(
    transformer: CosmosTransformer3DModel,
    latents: Tensor,
    sigma: Tensor,
    features: Tensor,
    log_counts: Tensor,
    given: int,
) -> Tensor:
    """The network's velocity at `latents`, (N, 16, T, h, w), whose first `given` latent frames are clean.

    The other arguments are those of `velocity_loss`.
    """
    mask = latents.new_zeros((len(latents), 1, *latents.shape[2:]))
    mask[:, :, :given] = 1
    return transformer(
        hidden_states=latents,
        timestep=timesteps(sigma, given, latents.shape[2]),
        encoder_hidden_states=features,
        attention_mask=log_counts,
        condition_mask=mask,
        padding_mask=torch.zeros_like(mask[:1, :, 0]),
        return_dict=False,
    )[0].float()


def timesteps(sigma: Tensor, given: int, frames: int) -> Tensor:
    """`sigma`, (N,), or with `given` frames one timestep for each latent frame: (N, 1, frames, 1, 1)."""
    if not given:
        return sigma
    each = sigma[:, None].repeat(1, frames)
    each[:, :given] = CONDITIONING_TIMESTEP
    return each.view(-1, 1, frames, 1, 1)


class Samples:
    """The training set: latents of unit scale and, for each, the features of a few sentences about it."""

    def __init__(
        self,
        latents: Tensor,
        features: Tensor,
        log_counts: Tensor,
        blank: tuple[Tensor, Tensor],
        kinds: Sequence[range],
    ) -> None:
        """`features`: (scenes, captions, tokens, features). `blank`: those of the prompts that ask for nothing.

        `kinds`: which scenes are of each of `vae.KINDS`.
        """
        self.latents, self.features, self.log_counts, self.blank = latents, features, log_counts, blank
        self.kinds = kinds

    def batch(self, step: int, given: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, features and log counts of BATCH samples, the last TWINS of them twins of the first.

        Clips that begin on the way have latent frames given, and those with a turn have both frames before it given.
        """
        rng = random.Random(f"flow {step}")
        scenes = [rng.choice(rng.choice(self.kinds[: given + 1])) for _ in range(BATCH - TWINS)]
        numbers = [rng.randrange(self.features.shape[1]) for _ in scenes]
        blanks = [rng.randrange(len(self.blank[0])) for _ in range(TWINS)]
        latents = self.latents[scenes + scenes[:TWINS]]
        features = torch.cat([self.features[scenes, numbers], self.blank[0][blanks]])
        log_counts = torch.cat([self.log_counts[scenes, numbers], self.blank[1][blanks]])
        return latents.float(), features.float(), log_counts.float()


def flow_losses(transformer: CosmosTransformer3DModel, samples: Samples, step: int) -> Tensor:
    """`velocity_loss` of the batch of a step of the training."""
    given = GIVEN[step % len(GIVEN)]
    latents, features, log_counts = samples.batch(step, given)
    with in_bfloat16():
        return velocity_loss(transformer, latents, batch_sigma(), features, log_counts, given)


def train_flow(
    transformer: CosmosTransformer3DModel,
    losses_at: Callable[[int], Tensor],
    state_file: Path,
    num_steps: int,
    log: Log,
    rate: float = 1.0,
) -> Iterator[tuple[int, CosmosTransformer3DModel]]:
    """Yields the steps done and the average of the weights over the last ones, with every saved state and at the end.

    `losses_at`: those of a step's batch, of which the last are of twins. `rate`: share of the learning rate.
    """
    average = torch.optim.swa_utils.AveragedModel(
        transformer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)
    )
    optimizer = Optimizer(transformer, LEARNING_RATE * rate, others=NOT_MATRICES)
    parts = {"transformer": transformer, "average": average, "optimizer": optimizer}
    steps = Resumable(state_file, num_steps, 250, **parts)
    recent = None
    for step in steps:
        if step and step % 250 == 0:
            yield step, average.module
        torch.manual_seed(step)
        losses = losses_at(step)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.step(learning_rate_factor(step, num_steps))
        average.update_parameters(transformer)
        loss = torch.stack([losses[:-TWINS].mean(), losses[-TWINS:].mean()]).detach()
        recent = loss if recent is None else 0.98 * recent + 0.02 * loss
        if step % 50 == 0:
            log(f"flow step {step}: loss {recent[0]:.4f}, twins {recent[1]:.4f}, {steps.seconds:.0f} s")
    yield num_steps, average.module


def learning_rate_factor(step: int, num_steps: int) -> float:
    """Linear warm-up over 100 steps, then constant, then linear to a twentieth over the last third."""
    return min((step + 1) / 100, 1.0) * min(1.0, 0.05 + 0.95 * 3 * (num_steps - step) / num_steps)
