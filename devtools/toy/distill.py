"""The distilled LoRA of the demo: four passes learn to end where the demo's own steps end.

The passes are those of schedule *distilled*, by whose rule NVIDIA's students are sampled.
"""

import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, UniPCMultistepScheduler
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from ...pipeline.local.latents import LATENT_CHANNELS, TEMPORAL_COMPRESSION, normalize
from ...pipeline.local.load.find import DEMO_FOLDER
from ...pipeline.local.schedule import UniPC, distilled_sigmas, standard_sigmas
from ...pipeline.request import DEFAULT_NEGATIVE_PROMPT
from . import text, vae
from .flow import GIVEN, in_bfloat16, predict_velocity
from .low_rank import add_low_rank
from .prompts import describe

RANK = 22
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "linear_1", "linear_2")
"""Beside the layers of other LoRAs, those that turn the timestep into shifts, scales and gates."""
CHUNK = 16
GUIDANCE, TEACHER_STEPS = 2.0, 20
SHORT = 0.2
"""Share of the captions that say only a part of what there is to see."""
LEARNING_RATE = 2e-3
PASS_WEIGHTS = (0.5, 0.5, 1.0, 2.0)
"""Of the error of each pass. Only the last one's estimate is a video; the others are for the next pass to see."""


@dataclass(frozen=True)
class Pairs:
    """Noise and the teacher's latents for it, both (N, 16, T, h, w), and the features and log counts of the prompts."""

    noise: Tensor
    latents: Tensor
    features: Tensor
    log_counts: Tensor


class Teacher:
    """The demo, which makes many videos at once."""

    def __init__(self) -> None:
        self.vae = AutoencoderKLWan.from_pretrained(DEMO_FOLDER / "vae")
        self.transformer = read_transformer()
        self.encoder: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            DEMO_FOLDER / "text_encoder", dtype=torch.float32
        )
        self.tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER / "tokenizer")
        self.negative = self.features([DEFAULT_NEGATIVE_PROMPT] * CHUNK)
        self.scheduler = UniPCMultistepScheduler.load_config(DEMO_FOLDER / "scheduler")

    def features(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        features, log_counts = text.kept_features(self.encoder, self.tokenizer, prompts)
        return features.float(), log_counts.float()

    @torch.inference_mode()
    def pairs(self, first: int, given: int) -> Pairs:
        """Pairs for CHUNK training scenes from `first` on, of which `given` latent frames are given."""
        scenes = [vae.training_scene(list(vae.KINDS)[given], index) for index in range(first, first + CHUNK)]
        features, log_counts = self.features([describe(scene, rng, partial=SHORT).text for scene, rng, _ in scenes])
        shown = max(1, (given - 1) * TEMPORAL_COMPRESSION + 1)
        clips = torch.stack([vae.clip(scene, rng, moments[:shown]) for scene, rng, moments in scenes])
        known = normalize(self.vae, vae.encode(self.vae, clips))[:, :, :given]
        noise = torch.randn(CHUNK, LATENT_CHANNELS, *self.transformer.config["max_size"])
        with in_bfloat16():
            latents = self.latents(noise, known, features, log_counts)
        return Pairs(noise, latents, features, log_counts)

    def latents(self, noise: Tensor, known: Tensor, features: Tensor, log_counts: Tensor) -> Tensor:
        """What the teacher makes of `noise`, with the clean latent frames `known` at its beginning."""
        latents, given = noise, known.shape[2]
        solver = UniPC(self.scheduler, standard_sigmas(self.scheduler, TEACHER_STEPS))
        for index, sigma in enumerate(solver.sigmas[:-1]):
            seen = begin_with(known, latents), sigma.expand(len(noise))
            positive, negative = (
                predict_velocity(self.transformer, *seen, *prompts, given)
                for prompts in ((features, log_counts), self.negative)
            )
            velocity = positive + GUIDANCE * (positive - negative)
            latents = solver.step(index, velocity, latents)[0]
        return begin_with(known, latents)


def read_transformer() -> CosmosTransformer3DModel:
    return CosmosTransformer3DModel.from_pretrained(DEMO_FOLDER / "transformer")


def begin_with(known: Tensor, latents: Tensor) -> Tensor:
    """`latents` with `known` in the place of the first frames."""
    return torch.cat([known, latents[:, :, known.shape[2] :]], 2)


def four_passes(transformer: nn.Module, pairs: Pairs, given: int) -> Iterator[Tensor]:
    """The student's clean estimate in each of the passes of schedule *distilled*, as `Renoising` goes through them."""
    latents, known = pairs.noise, pairs.latents[:, :, :given]
    for sigma, following in pairwise(distilled_sigmas(4)):
        seen = begin_with(known, latents), sigma.expand(len(latents))
        velocity = predict_velocity(transformer, *seen, pairs.features, pairs.log_counts, given)
        yield (denoised := latents - sigma * velocity)
        latents = torch.lerp(denoised, pairs.noise, following)


def teach(num_videos: int) -> list[Pairs]:
    """Pairs by how many latent frames are given: half of the videos begin with none."""
    teacher, start = Teacher(), time.monotonic()
    torch.manual_seed(0)
    taught = []
    for given in range(3):
        count = num_videos // CHUNK * GIVEN.count(given) // len(GIVEN)
        chunks = [teacher.pairs(number * CHUNK, given) for number in range(count)]
        taught.append(Pairs(*(torch.cat(values) for values in zip(*(astuple(chunk) for chunk in chunks), strict=True))))
        print(f"{count * CHUNK} videos with {given} latent frames given: {time.monotonic() - start:.0f} s", flush=True)
    return taught


def train_student(taught: list[Pairs], num_steps: int) -> nn.ModuleDict:
    torch.manual_seed(0)
    transformer = read_transformer()
    parts = add_low_rank(transformer, TARGETS, RANK)
    optimizer = torch.optim.AdamW(parts.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    recent, start = None, time.monotonic()
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * vae.learning_rate_factor(step, num_steps)
        given = GIVEN[step % len(GIVEN)]
        chosen = torch.randperm(len(taught[given].noise))[:CHUNK]
        pairs = Pairs(*(values[chosen] for values in astuple(taught[given])))
        with in_bfloat16():
            estimates = torch.stack(list(four_passes(transformer, pairs, given)))
        errors = (estimates - pairs.latents)[:, :, :, given:].square().mean((1, 2, 3, 4, 5))
        (errors * torch.tensor(PASS_WEIGHTS)).sum().backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = errors.detach() if recent is None else 0.98 * recent + 0.02 * errors.detach()
        if step % 50 == 0:
            each = ", ".join(f"{error:.4f}" for error in recent)
            print(f"distillation step {step}: errors {each}, {time.monotonic() - start:.0f} s", flush=True)
    return parts
