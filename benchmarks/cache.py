"""What ComfyUI's step caches skip and cost on the demo: EasyCache and LazyCache on the MODEL of the Checkpoint Loader.

    .demo/env/bin/python benchmarks/cache.py

At guidance 2, with the UniPC Sampler unless a row names KSampler's. Each video is compared with that of the same
prompt, seed and sampler at the full number of passes. Rows without a cache take fewer steps instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from cosmos_predict25.devtools import comfy_on_cpu  # noqa: F401

# isort: split
import comfy.sample
import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from torch import Tensor

from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.nodes.native.clip import load_clip
from cosmos_predict25.nodes.native.model import load_transformer
from cosmos_predict25.nodes.native.sampler import sampler
from cosmos_predict25.nodes.native.vae import load_vae
from cosmos_predict25.pipeline.local.latents import initial_noise
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.load.parts import folder_parts
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, FEW_STEPS, SCHEDULES, STANDARD

PROMPTS = (
    "A large red circle moves left over a blue background.",
    "A small green square moves up over a white background.",
    "A yellow triangle moves right over a black background.",
)
CFG = 3.0
NODES = {"EasyCache": EasyCacheNode, "LazyCache": LazyCacheNode}
END = 0.95


@dataclass(frozen=True)
class Way:
    """A way to make a video. `cache`: the name of a node. `sampler`: a schedule of ours, or KSampler's name of one."""

    steps: int
    cache: str = ""
    threshold: float = 0.0
    start: float = 0.15
    sampler: str = STANDARD

    def __str__(self) -> str:
        cache = f"{self.cache} {self.threshold:g} from {self.start:g}" if self.cache else "no cache"
        schedule = "" if self.sampler == STANDARD else f", {self.sampler}"
        return f"{self.steps} steps{schedule}, {cache}"


def easy(steps: int, threshold: float, **more: Any) -> Way:
    return Way(steps, "EasyCache", threshold, **more)


FULL, DEMO, KSAMPLER = Way(35), Way(20), Way(35, sampler="dpmpp_2m")
WAYS = {
    FULL: [
        *(easy(35, threshold) for threshold in (0.05, 0.1, 0.2)),
        easy(35, 0.05, start=0.5),
        Way(35, "LazyCache", 0.2),
        DEMO,
        Way(15, sampler=FEW_STEPS),
    ],
    KSAMPLER: [easy(35, 0.05, sampler=KSAMPLER.sampler)],
    DEMO: [easy(20, threshold) for threshold in (0.05, 0.1)],
}
"""The full number of passes -> the ways that are compared with it."""


class Maker:
    """The demo's parts."""

    def __init__(self) -> None:
        parts = folder_parts(DEMO_FOLDER)
        self.model, projection = load_transformer(parts)
        self.clip, self.vae = load_clip(parts, projection), load_vae(parts)

    def condition(self, text: str) -> Any:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def video(self, way: Way, prompt: str, seed: int) -> tuple[Tensor, int]:
        """Return the frames and the number of passes."""
        model: ModelPatcher = self.model
        if way.cache:
            model = NODES[way.cache].execute(model, way.threshold, way.start, END, False)[0]
        noise = initial_noise(seed, 25, 96, 96)
        inputs = self.condition(prompt), self.condition(DEFAULT_NEGATIVE_PROMPT), torch.zeros_like(noise)
        with passes_of(self.model) as passes:
            if way.sampler in SCHEDULES:
                sampling = self.model.get_model_object("model_sampling")
                sigmas = comfy.samplers.calculate_sigmas(sampling, "karras", way.steps)
                made = comfy.sample.sample_custom(
                    model, noise, CFG, sampler(way.sampler), sigmas, *inputs, disable_pbar=True
                )
            else:
                made = comfy.sample.sample(
                    model, noise, way.steps, CFG, way.sampler, "karras", *inputs, disable_pbar=True
                )
        return self.vae.decode(made)[0], sum(passes)


@contextmanager
def passes_of(model: ModelPatcher) -> Iterator[list[int]]:
    """Yield the batch sizes that go through the network while entered. Each prompt in a batch is a pass."""
    batches: list[int] = []
    block: Any = model.model.diffusion_model.blocks[0]
    hook = block.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    try:
        yield batches
    finally:
        hook.remove()


def rows_of(maker: Maker, full: Way, ways: list[Way]) -> list[list[str]]:
    found: dict[Way, list[tuple[int, float]]] = {way: [] for way in ways}
    for seed, prompt in enumerate(PROMPTS):
        wanted, _ = maker.video(full, prompt, seed)
        for way in ways:
            frames, passes = maker.video(way, prompt, seed)
            found[way].append((passes, psnr(frames, wanted)))
            print(way, prompt, *found[way][-1], flush=True)
    rows = []
    for way, videos in found.items():
        passes, decibels = zip(*videos, strict=True)
        share = mean(passes) / (2 * full.steps)
        rows.append([str(way), f"{2 * full.steps}", f"{share:.0%}", f"{mean(decibels):.1f}", f"{min(decibels):.1f}"])
    return rows


def main() -> None:
    torch.set_num_threads(1)
    header = ["way", "of passes", "left", "PSNR, dB", "lowest, dB"]
    with torch.inference_mode():
        maker = Maker()
        rows = [row for full, ways in WAYS.items() for row in rows_of(maker, full, ways)]
    publish(header, rows, f"Means over {len(PROMPTS)} prompts, and the worst video. Caches end at {END:g}.")


if __name__ == "__main__":
    main()
