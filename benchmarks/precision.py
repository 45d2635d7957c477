"""How near bfloat16 comes to float32, by which values are in float32, and what a pass takes.

    .demo/env/bin/python benchmarks/precision.py

One pass of a random transformer of 512 channels and 8 blocks, and videos of the demo, 36 steps.
"""

import copy
import statistics
import time
from dataclasses import replace

import torch
from torch import Tensor

from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.random_checkpoint import random_transformer
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.pipeline.local import transformer as arithmetic
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.local.transformer import CosmosTransformer, use_less_memory
from cosmos_predict25.pipeline.request import GenerationRequest

ARRANGEMENTS = {
    "nothing, as diffusers": (torch.bfloat16, torch.bfloat16),
    "the residual stream, as ours was": (torch.float32, torch.bfloat16),
    "time, modulations, last layer, as NVIDIA's": (torch.bfloat16, torch.float32),
    "both, as ours is": (torch.float32, torch.float32),
}
"""What is in float32 -> the type of the residual stream, and that of the timestep, modulations and last layer."""
TIMESTEPS = (0.995, 0.5, 0.009)
PROMPTS = (
    "A large red circle moves left over a blue background.",
    "A small green square moves up over a white background.",
    "A yellow triangle moves right over a black background.",
)
VIDEOS = [(prompt, 1.0) for prompt in PROMPTS] + [(PROMPTS[0], 7.0)]
CHANNELS_PER_HEAD, ROUNDS = 32, 5


def arrange(residual: torch.dtype, fine: torch.dtype) -> None:
    arithmetic.RESIDUAL_DTYPE, arithmetic.FINE_DTYPE = residual, fine


def wide_transformer() -> CosmosTransformer:
    torch.manual_seed(0)
    transformer = random_transformer(64, num_attention_heads=512 // CHANNELS_PER_HEAD, num_layers=8)
    transformer.crossattn_proj = torch.nn.Identity()
    for name, weight in transformer.named_parameters():
        if name.endswith("linear_2.weight"):
            weight.data.mul_(10)  # a new network's modulations are near 0, a trained one's are not
    return use_less_memory(transformer.eval().requires_grad_(False))


def velocity(transformer: CosmosTransformer, timestep: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, embeds = torch.randn(1, 16, 3, 16, 16, generator=generator), torch.randn(1, 512, 64, generator=generator)
    return predict_velocity(transformer, latents, torch.tensor([timestep]), embeds, condition_mask(latents))


def milliseconds(transformer: CosmosTransformer) -> float:
    """Of the processor's time, for one pass."""
    begin = time.process_time()
    velocity(transformer, 0.5)
    return 1000 * (time.process_time() - begin)


def frames(model: LocalModel, prompt: str, guidance: float) -> Tensor:
    settings = {"num_frames": 9, "num_inference_steps": 36, "width": 96, "height": 96}
    return generate(model, GenerationRequest(prompt=prompt, seed=1, guidance_scale=guidance, **settings)).frames


def main() -> None:
    # What is compared has the same weights, those of bfloat16, as NVIDIA's files have them.
    smaller = wide_transformer().to(torch.bfloat16)
    exact = copy.deepcopy(smaller).float()
    wanted = {timestep: velocity(exact, timestep) for timestep in TIMESTEPS}
    # All but the transformer in float32, so that its error alone shows.
    model = load_pipeline_folder(DEMO_FOLDER, torch.float32)
    demo = replace(model, transformer=load_pipeline_folder(DEMO_FOLDER, torch.bfloat16).transformer)
    full = replace(model, transformer=copy.deepcopy(demo.transformer).float())
    shown = [frames(full, *video) for video in VIDEOS]
    times: dict[str, list[float]] = {name: [] for name in ARRANGEMENTS}
    for _ in range(ROUNDS):
        for name, types in ARRANGEMENTS.items():
            arrange(*types)
            times[name].append(milliseconds(smaller))
    rows = []
    for name, types in ARRANGEMENTS.items():
        arrange(*types)
        errors = [
            ((velocity(smaller, timestep) - values).square().mean() / values.square().mean()).sqrt().item()
            for timestep, values in wanted.items()
        ]
        decibels = [psnr(frames(demo, *video), right) for video, right in zip(VIDEOS, shown, strict=True)]
        figures = [*(f"{error * 1000:.1f}e-3" for error in errors), *(f"{value:.0f}" for value in decibels)]
        rows.append([name, *figures, f"{statistics.median(times[name]):.1f}"])
    header = ["in float32", *(f"error at t {timestep}" for timestep in TIMESTEPS)]
    header += [f"demo {index}, dB" for index in (1, 2, 3)] + ["demo 1, guidance 7, dB", "ms of CPU / pass"]
    publish(header, rows, f"Errors are rms, of the velocity in float32. Medians of {ROUNDS} passes by turns.")


if __name__ == "__main__":
    main()
