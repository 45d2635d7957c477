"""Longer videos of the demo: by ComfyUI's context windows and by Extend Video Locally.

    .demo/env/bin/python benchmarks/windows.py

In a real ComfyUI, with 49 frames where the demo makes 25 at once.
"""

import itertools
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.graph import (
    MODEL,
    NEGATIVE,
    Output,
    empty,
    first,
    frames_of,
    pictures,
    sampled,
    text,
)
from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.devtools.toy.adherence import detect_attributes, steps_of
from cosmos_predict25.devtools.toy.world import Scene, SceneObject
from cosmos_predict25.pipeline.local.load.find import DEMO

FRAMES, MADE_AT_ONCE, STEPS, GUIDANCE = 49, 25, 20, 2.0
SCENES = (("red", "circle", "blue"), ("yellow", "square", "black"), ("white", "triangle", "green"))
WINDOW = {
    "context_length": 21, "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid",
    "retain_first_frame": False, "split_conds_to_windows": False,
}  # fmt: skip
WINDOWS = {
    "windows of 21, overlap 4": ("standard_static", 4, False),
    "windows of 21, overlap 12": ("standard_static", 12, False),
    "windows of 21, overlap 12, freenoise": ("standard_static", 12, True),
    "windows of 21, overlap 12, uniform": ("standard_uniform", 12, False),
}


def by_windows(prompt: str, seed: int, schedule: str, overlap: int, freenoise: bool) -> Output:
    options = {"context_schedule": schedule, "context_overlap": overlap, "freenoise": freenoise}
    model = first("WanContextWindowsManual", model=MODEL, **WINDOW, **options)
    return pictures(sampled(model, text(prompt), latent=empty(FRAMES), steps=STEPS, cfg=GUIDANCE + 1, seed=seed))


def by_extending(prompt: str, seed: int) -> Output:
    loader = {"checkpoint": DEMO, "guardrail": False, "transformer": "none", "vae": "none", "text_encoder": "none"}
    size = {"num_frames": MADE_AT_ONCE, "width": 96, "height": 96}
    inputs = {
        "model": first("CosmosPredict25Loader", **loader),
        "prompt": first("CosmosPredict25Prompt", prompt=prompt, negative_prompt=NEGATIVE),
        "settings": first(
            "CosmosPredict25SamplerSettings", num_inference_steps=STEPS, guidance_scale=GUIDANCE, seed=seed, **size
        ),
    }
    source = first("CosmosPredict25Generate", **inputs)
    longer = first("CosmosPredict25Extend", **inputs, video=source, new_frames=FRAMES - MADE_AT_ONCE, overlap=5)
    return first("GetVideoComponents", video=longer)


def look(frames: Tensor, color: str, shape: str, background: str) -> tuple[bool, float, float, float]:
    """Whether it shows what was asked for, its largest step by its median, and neighbours' PSNR: worst and median."""
    assert len(frames) == FRAMES
    seen = detect_attributes(frames)
    obeys = [(thing.color, thing.shape) for thing in seen.objects] == [(color, shape)] and seen.background == background
    steps = steps_of(Scene((SceneObject(color, shape),), "left", background), frames)
    jump = float("nan") if steps is None else float(steps.max() / steps.median())
    neighbours = [psnr(after, before) for before, after in itertools.pairwise(frames)]
    return obeys, jump, min(neighbours), median(neighbours)


def row(server: ComfyUI, name: str) -> list[str]:
    found, seconds = [], []
    for seed, (color, shape, background) in enumerate(SCENES):
        prompt = f"A large {color} {shape} moves left over a {background} background."
        images = by_windows(prompt, seed, *WINDOWS[name]) if name in WINDOWS else by_extending(prompt, seed)
        begin = time.monotonic()
        frames = frames_of(server, images)
        seconds.append(time.monotonic() - begin)
        found.append(look(frames, color, shape, background))
    obeys, jumps, worst, usual = zip(*found, strict=True)
    jumps = [jump for jump in jumps if jump == jump]
    return [
        name, f"{sum(obeys)} of {len(obeys)}", f"{median(jumps):.1f}" if jumps else "-", f"{mean(worst):.1f}",
        f"{mean(usual):.1f}", f"{median(seconds):.1f}",
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    header = ["way", "shows what was asked for", "largest step", "PSNR at it", "PSNR of neighbours", "seconds"]
    with tempfile.TemporaryDirectory() as base:
        source = environment.source_folder(environment.NEWEST)
        with ComfyUI(source, Path(base), environment.REPO) as server:
            frames_of(server, pictures())
            names = [*WINDOWS, "Extend, overlap 5"]
            publish(header, [row(server, name) for name in names])


if __name__ == "__main__":
    main()
