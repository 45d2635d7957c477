"""The VAE: AutoencoderKLWan, trained to give back clips of the toy world, and the latents that it makes of them."""

import math
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn

from ...pipeline.local.causal import fast_on_cpu
from ...pipeline.local.latents import SPATIAL_COMPRESSION, normalize
from .log import Log
from .muon import Optimizer
from .state import Resumable
from .world import NUM_FRAMES, SIDE, TIME, Scene, after_a_turn, later, random_scene, render

IMAGE_STEPS, CLIP_STEPS = 700, 2200
"""First single frames, which are quick, then clips, which teach the temporal convolutions."""
CROP = 32
"""Side of the squares cut out for training, at multiples of the latents' 8 pixels: convolutions do not mind."""
LEARNING_RATE = 6e-3
LATENT_NOISE = 0.2
"""Spread of the noise that the decoder learns to bear, as the transformer's latents are not exact."""
LATENT_WEIGHT = 1e-3
TWO = 0.5
"""Share of the training scenes with two objects."""
KINDS = {"whole": lambda _: TIME, "later": later, "turn": after_a_turn}
"""The kinds of training clips, and the instants of their frames. Of the last two there is a quarter of the first."""
ENCODED_AT_ONCE = 4
SMALLEST_STD = 0.25
"""Floor for latents_std: a latent channel that the VAE does not use is not blown up to unit variance."""


def new_vae() -> AutoencoderKLWan:
    vae = AutoencoderKLWan(base_dim=16, dim_mult=[1, 1, 2, 3], num_res_blocks=1)
    see_single_frames(vae)
    return vae


@torch.no_grad()
def see_single_frames(vae: AutoencoderKLWan) -> None:
    """Start with convolutions that see the present frame alone, as single frames teach them, and do not mix frames."""
    for name, module in vae.named_modules():
        if not isinstance(module, WanCausalConv3d) or module.kernel_size[0] == 1:
            continue
        module.weight[:, :, :-1] = 0
        if name.endswith("time_conv"):
            nn.init.zeros_(module.bias)
            copies = module.out_channels // module.in_channels
            module.weight.copy_(torch.eye(module.in_channels).repeat(copies, 1)[:, :, None, None, None] / 2)
            module.weight[:, :, 0] = 0
            if copies == 2:
                module.weight[:, :, 1] = 0
                module.weight[:, :, 2] *= 2


def clip(scene: Scene, rng: random.Random, time: Tensor = TIME) -> Tensor:
    """A clip as the VAE takes it: (3, frames, SIDE, SIDE), -1..1, at the instants `time`."""
    return to_vae(render(scene, rng, time))


def to_vae(frames: Tensor) -> Tensor:
    """(3, frames, SIDE, SIDE), -1..1, of (frames, SIDE, SIDE, 3), uint8."""
    return frames.permute(3, 0, 1, 2).float() / 127.5 - 1


def batch(step: int) -> Tensor:
    """(clips, 3, frames, CROP, CROP): 16 single frames, later 4 clips of 9 frames."""
    count, frames = (16, 1) if step < IMAGE_STEPS else (4, 9)
    clips = []
    for index in range(count):
        rng = random.Random(f"vae {step} {index}")
        scene = random_scene(rng, held_out=False, two=0.5)
        start = rng.randint(0, NUM_FRAMES - frames)
        top, left = (rng.randrange(0, SIDE - CROP + 1, 8) for _ in range(2))
        clips.append(clip(scene, rng)[:, start : start + frames, top : top + CROP, left : left + CROP])
    return torch.stack(clips)


def train_vae(state_file: Path, log: Log) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = new_vae()
    num_steps = IMAGE_STEPS + CLIP_STEPS
    optimizer = Optimizer(vae, LEARNING_RATE)
    for step in (steps := Resumable(state_file, num_steps, 50, vae=vae, optimizer=optimizer)):
        clips = batch(step)
        torch.manual_seed(step)
        latents = vae.encode(clips).latent_dist.mode()
        given_back = decode(vae, latents + LATENT_NOISE * torch.randn_like(latents))
        error = given_back - clips
        edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
        loss = error.abs().mean() + error.square().mean() + edges + LATENT_WEIGHT * latents.square().mean()
        loss.backward()
        optimizer.step(learning_rate_factor(step, num_steps))
        if step % 20 == 0:
            l1, spread = error.abs().mean().item(), latents.std().item()
            log(f"vae step {step}: l1 {l1:.4f}, latents {spread:.2f}, {steps.seconds:.0f} s")
    return vae


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """`vae.decode` without its clamp to -1..1, through which nothing is learned: (N, 3, frames, SIDE, SIDE)."""
    memory = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    features = vae.post_quant_conv(latents)
    chunks = [
        vae.decoder(features[:, :, index : index + 1], feat_cache=memory, feat_idx=[0], first_chunk=index == 0)
        for index in range(features.shape[2])
    ]
    return torch.cat(chunks, 2)


def learning_rate_factor(step: int, num_steps: int, warm_up: int = 20) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up))) / 2


@torch.inference_mode()
def encode_clips(vae: AutoencoderKLWan, kind: str, first: int, count: int) -> Tensor:
    """Latents of the training clips `first` to `first + count`, float16 (count, 16, 7, SIDE/8, SIDE/8)."""
    clips = [clip(*training_scene(kind, index)) for index in range(first, first + count)]
    return encode(vae, torch.stack(clips)).half()


def encode(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Latents (N, 16, T, h, w) of clips (N, 3, F, 8h, 8w) in -1..1, not normalised."""
    with fast_on_cpu(vae, vae.device):
        return torch.cat([vae.encode(few).latent_dist.mode() for few in clips.split(ENCODED_AT_ONCE)])


def training_scene(kind: str, index: int) -> tuple[Scene, random.Random, Tensor]:
    """Scene `index` of the training clips of `kind`, the random numbers to render it, and the instants."""
    rng = random.Random(f"{kind} {index}")
    scene = random_scene(rng, held_out=False, two=TWO)
    return scene, rng, KINDS[kind](rng)


def set_latent_scale(vae: AutoencoderKLWan, latents: Tensor) -> None:
    """Write the mean and spread of each channel of `latents`, (N, 16, T, h, w), into the VAE's config."""
    mean = latents.float().mean((0, 2, 3, 4))
    std = latents.float().std((0, 2, 3, 4)).clamp(min=SMALLEST_STD)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())


def set_preview_factors(vae: AutoencoderKLWan, latents: Tensor) -> None:
    """Write into the VAE's config how a pixel's colour, -1..1, is best had from a latent of unit scale, for previews.

    `latents`: of the first training scenes, (N, 16, T, h, w). diffusers leaves names that begin with _ alone.
    """
    frames = torch.stack([clip(*training_scene("whole", index))[:, 0] for index in range(len(latents))])
    colors = nn.functional.avg_pool2d(frames, SPATIAL_COMPRESSION).permute(0, 2, 3, 1).flatten(0, 2)
    values = normalize(vae, latents.float())[:, :, 0].permute(0, 2, 3, 1).flatten(0, 2)
    factors = torch.linalg.lstsq(torch.cat([values, torch.ones(len(values), 1)], 1), colors).solution
    vae.register_to_config(_latent_rgb_factors=factors[:-1].tolist(), _latent_rgb_factors_bias=factors[-1].tolist())
