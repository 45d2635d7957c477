"""Videos that a network makes itself, each beside the clip that it meant.

Training shows a network true clips with noise. On its way to a video it meets its own mistakes as well, takes them for
what there is to see, and keeps them. From its own ways it learns to mend them: those of today, as it makes no longer
the mistakes of yesterday.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, UniPCMultistepScheduler
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from ...pipeline.disk import atomic_write
from ...pipeline.local.causal import fast_on_cpu
from ...pipeline.local.latents import LATENT_CHANNELS, denormalize, normalize
from ...pipeline.local.schedule import UniPC, standard_sigmas
from ...pipeline.request import DEFAULT_NEGATIVE_PROMPT
from . import text, vae
from .adherence import compare_with_scene
from .flow import (
    BATCH,
    GIVEN,
    TWINS,
    Samples,
    begin_with,
    flow_losses,
    in_bfloat16,
    predict_velocity,
    twin_losses,
)
from .nearest import mended_clip
from .prompts import PARTIAL, describe
from .world import Scene

CHUNK = 32
LEAST = CHUNK * len(GIVEN)
"""Videos that are made at least: a chunk for each entry of GIVEN."""
NUM_STEPS = 20
GUIDANCE = (2.0, 1.0, 2.0, 7.0)
"""Of a chunk and of the next ones. 2 is the setting of the demo's workflows."""
LEAST_SIGMA = 0.1
"""Below it, nothing can be mended any more."""
LITTLE = 0.5
"""Sigma of a state with little noise."""
FAR = 0.5
"""Mean squared error of latents above which a video has gone another way than the clip that it was to continue."""
NEW = 100_000
"""Number of the first scene: not one that the transformer was trained on."""


@dataclass(frozen=True)
class OwnVideos:
    """`states` (N, steps, 16, T, h, w): latents on the way of each video, at `sigmas` (N, steps). The first are noise.

    `clean` (N, 16, T, h, w): the latents of the clip that was meant. `features` (N, tokens, features) and `log_counts`
    (N, tokens): those of the prompts.
    """

    states: Tensor
    sigmas: Tensor
    clean: Tensor
    features: Tensor
    log_counts: Tensor

    def __getitem__(self, chosen: Any) -> "OwnVideos":
        return OwnVideos(*(values[chosen] for values in vars(self).values()))


class Maker:
    """A checkpoint like the demo, which makes many videos at once."""

    def __init__(self, folder: Path) -> None:
        self.transformer = CosmosTransformer3DModel.from_pretrained(folder / "transformer")
        self.vae = AutoencoderKLWan.from_pretrained(folder / "vae")
        self.encoder: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder / "text_encoder", dtype=torch.float32
        )
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.negative = self.features([DEFAULT_NEGATIVE_PROMPT] * CHUNK)
        self.scheduler = UniPCMultistepScheduler.load_config(folder / "scheduler")

    def features(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        features, log_counts = text.kept_features(self.encoder, self.tokenizer, prompts)
        return features.float(), log_counts.float()

    @torch.no_grad()
    def videos(self, first: int, given: int, guidance: float) -> OwnVideos:
        """At most CHUNK videos, of the training scenes from `first` on, of which `given` latent frames are given.

        The clip that was meant is the one that the given frames begin, or else the video itself, mended. Videos that
        show something else are left out.
        """
        torch.manual_seed(first)
        scenes = [vae.training_scene(list(vae.KINDS)[given], index) for index in range(first, first + CHUNK)]
        features, log_counts = self.features([describe(scene, rng, partial=PARTIAL).text for scene, rng, _ in scenes])
        noise = torch.randn(CHUNK, LATENT_CHANNELS, *self.transformer.config["max_size"])
        known, clean = noise[:, :, :0], None
        if given:
            clean = normalize(self.vae, vae.encode(self.vae, torch.stack([vae.clip(*scene) for scene in scenes])))
            known = clean[:, :, :given]
        ways = list(self.way(noise, known, features, log_counts, guidance))
        made = ways[-1][1]
        if clean is None:
            near, clean = self.mended([scene for scene, *_ in scenes], made)
        else:
            near = (made - clean).square().mean((1, 2, 3, 4)) < FAR
        kept = [(sigma, latents) for sigma, latents in ways if sigma > LEAST_SIGMA]
        states, sigmas = torch.stack([latents for _, latents in kept], 1), torch.stack([sigma for sigma, _ in kept])
        return OwnVideos(states, sigmas.expand(CHUNK, -1), clean, features, log_counts)[near]

    def way(
        self, noise: Tensor, known: Tensor, features: Tensor, log_counts: Tensor, guidance: float
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Each sigma and the latents there, from `noise` to the video, which begins with the latent frames `known`."""
        latents, given = noise, known.shape[2]
        solver = UniPC(self.scheduler, standard_sigmas(self.scheduler, NUM_STEPS))
        for index, sigma in enumerate(solver.sigmas[:-1]):
            yield sigma, latents
            seen = begin_with(known, latents), sigma.expand(len(noise))
            positive, negative = (
                predict_velocity(self.transformer, *seen, *prompts, given)
                for prompts in ((features, log_counts), self.negative)
            )
            latents = solver.step(index, positive + guidance * (positive - negative), latents)[0]
        yield solver.sigmas[-1], begin_with(known, latents)

    def mended(self, scenes: list[Scene], made: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the videos `made` show their scene, (N,), and the latents of what they should be."""
        near, clean = torch.zeros(len(made), dtype=torch.bool), torch.zeros_like(made)
        for index, scene in enumerate(scenes):
            frames = self.frames(made[index])
            found = mended_clip(scene, frames) if all(compare_with_scene(scene, frames).values()) else None
            if found is not None:
                near[index] = True
                clean[index] = normalize(self.vae, vae.encode(self.vae, vae.to_vae(found)[None]))[0]
        return near, clean

    def frames(self, latents: Tensor) -> Tensor:
        """(frames, SIDE, SIDE, 3) in 0..1 of a video's latents."""
        with fast_on_cpu(self.vae, self.vae.device):
            decoded = self.vae.decode(denormalize(self.vae, latents[None])).sample[0]
        return (decoded.permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1)


def make_own_videos(folder: Path, count: int, already: int = 0) -> list[OwnVideos]:
    """At most `count` videos of a checkpoint, by how many latent frames are given: half of them begin with none.

    `already`: how many there were before. These are of other scenes.
    """
    maker, start = Maker(folder), time.monotonic()
    made: list[list[OwnVideos]] = [[], [], []]
    for number in range(already // CHUNK, (already + count) // CHUNK):
        given = GIVEN[number % len(GIVEN)]
        guidance = GUIDANCE[number // len(GIVEN) % len(GUIDANCE)]
        made[given].append(maker.videos(NEW + number * CHUNK, given, guidance))
        print(f"{(number + 1) * CHUNK} videos: {time.monotonic() - start:.0f} s", flush=True)
    return [joined(chunks) for chunks in made]


def joined(chunks: list[OwnVideos]) -> OwnVideos:
    return OwnVideos(*(torch.cat(values) for values in zip(*(vars(each).values() for each in chunks), strict=True)))


class Newest:
    """The newest videos of a network in training, by how many latent frames are given, and the file that has them."""

    def __init__(self, file: Path) -> None:
        kept = torch.load(file, weights_only=True) if file.exists() else {"made": 0, "videos": []}
        self.file = file
        self.made: int = kept["made"]
        self.videos = [OwnVideos(**videos) for videos in kept["videos"]]

    def make(self, folder: Path, count: int) -> None:
        """Let the checkpoint in `folder` make `count` videos. They take the place of the oldest ones."""
        new = make_own_videos(folder, count, self.made)
        if self.videos:
            new = [joined([old[len(more.clean) :], more]) for old, more in zip(self.videos, new, strict=True)]
        self.videos = new
        self.made += count
        with atomic_write(self.file) as temporary:
            torch.save({"made": self.made, "videos": [vars(videos) for videos in self.videos]}, temporary)


def losses_with_own(transformer: CosmosTransformer3DModel, samples: Samples, step: int, own: Newest) -> Tensor:
    """Those of true clips in every second step, and of its own videos in the others."""
    number = step // 2
    if step % 2 == 0:
        return flow_losses(transformer, samples, number)
    given = GIVEN[number % len(GIVEN)]
    with in_bfloat16():
        return correction_loss(transformer, own.videos[given], samples.blank, given)


def correction_loss(
    transformer: CosmosTransformer3DModel, videos: OwnVideos, blank: tuple[Tensor, Tensor], given: int
) -> Tensor:
    """Mean squared error of the velocity that leads from a state on the way of a video to the clip that it meant: (N,).

    BATCH samples, the last TWINS of them the first ones under a prompt out of `blank`. With little noise the way to the
    clip is short and the velocity large, so its error counts less there.
    """
    count = BATCH - TWINS
    rows, num_steps = torch.randint(len(videos.clean), (count,)), videos.states.shape[1]
    steps = ((torch.arange(count) + torch.rand(count)) / count * num_steps).long()[torch.randperm(count)]
    blanks = torch.randint(len(blank[0]), (TWINS,))
    features = torch.cat([videos.features[rows], blank[0][blanks].float()])
    log_counts = torch.cat([videos.log_counts[rows], blank[1][blanks].float()])
    states, sigma, clean = (
        torch.cat([values, values[:TWINS]])
        for values in (videos.states[rows, steps], videos.sigmas[rows, steps], videos.clean[rows])
    )
    noisy, wide = begin_with(clean[:, :, :given], states), sigma.view(-1, 1, 1, 1, 1)
    losses = twin_losses(transformer, noisy, (states - clean) / wide, sigma, features, log_counts, given)
    weight = (sigma / LITTLE).square().clamp(max=1)
    return torch.cat([(losses * weight)[:-TWINS], losses[-TWINS:]])
