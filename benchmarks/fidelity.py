"""With real weights: is ours what the stock pipeline makes, and what do fewer steps cost? For benchmarks/generate.py.

Nobody has measured the second on NVIDIA's model: on the demo fewer steps lose less than any reuse of former ones does.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_predict25.devtools.metrics import psnr, ssim
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.devtools.stock import load_stock
from cosmos_predict25.pipeline.local.decode import decode
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocities
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.generate import clamp_request, generate, plan_for
from cosmos_predict25.pipeline.local.latents import denormalize, initial_noise
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.local.placement import OneAtATime
from cosmos_predict25.pipeline.local.prompt_cache import PromptCache
from cosmos_predict25.pipeline.local.schedule import make_solver, standard_sigmas
from cosmos_predict25.pipeline.request import FEW_STEPS, STANDARD, GenerationRequest

PROMPTS = (
    "A yellow forklift carries a pallet of boxes across a bright warehouse, seen from the side.",
    "A robot arm picks a red cube from a white table and puts it into a blue bin.",
    "A car drives through a wet city street at night, neon signs are mirrored in the puddles.",
    "Waves break on black rocks at sunset while gulls fly low over the water.",
    "A chef cuts a carrot into thin slices on a wooden board, close to the camera.",
    "A golden retriever runs through tall grass towards the camera.",
    "A conveyor belt moves rough rocks through a dim quarry plant, the camera stands still.",
    "Snow falls slowly on a mountain village, smoke rises from the chimneys.",
    "A glass of water is tipped over and the water runs across a marble counter.",
    "A cyclist rides down a forest path, the camera follows behind.",
)
GUIDANCE = 7.0
DENSE = 12


@dataclass(frozen=True)
class Scheme:
    """`dense`: after so many steps only every second one asks the model; None for all of them."""

    schedule: str
    steps: int
    dense: int | None = None

    def asks(self, index: int) -> bool:
        """The last step always does."""
        return self.dense is None or index < self.dense or (index - self.dense) % 2 == 1 or index == self.steps - 1

    @property
    def passes(self) -> int:
        return 2 * sum(map(self.asks, range(self.steps)))

    def __str__(self) -> str:
        return f"{self.schedule}, {self.steps} steps" + (f", every second from {self.dense} on" if self.dense else "")


EXACT = Scheme(STANDARD, 35)
SCHEMES = (EXACT, Scheme(STANDARD, 20), Scheme(FEW_STEPS, 15), Scheme(FEW_STEPS, 12), Scheme(STANDARD, 35, DENSE))


def publish_fidelity(folder: Path, shape: dict[str, Any]) -> None:
    """`shape`: width, height and num_frames of the videos."""
    shape = {**shape, "num_inference_steps": EXACT.steps}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    publish(*stock_table(folder, shape, device))
    publish(*schemes_table(folder, shape, device))


def stock_table(folder: Path, shape: dict[str, Any], device: torch.device) -> tuple[list[str], list[list[str]]]:
    """Ours and stock in bfloat16, one after the other on the same machine."""
    model = load_pipeline_folder(folder, torch.bfloat16)
    request = GenerationRequest(prompt=PROMPTS[0], seed=0, guidance_scale=GUIDANCE, **shape)
    request = clamp_request(request, model.transformer)
    placement = OneAtATime(device)
    ours = generate(model, request, placement=placement).frames
    placement.make_room(0)
    pipeline = load_stock(folder, torch.bfloat16).to(device)
    stock = pipeline(
        prompt=request.prompt,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames[0]
    stock = torch.from_numpy(stock)[: len(ours)]
    levels = 255 * (ours - stock).abs()
    header = ["steps", "PSNR of ours to stock, dB", "SSIM", "mean difference, levels", "largest"]
    figures = f"{psnr(ours, stock):.1f}", f"{ssim(ours, stock):.4f}", f"{levels.mean():.2f}", f"{levels.max():.0f}"
    return header, [[str(request.num_inference_steps), *figures]]


def schemes_table(folder: Path, shape: dict[str, Any], device: torch.device) -> tuple[list[str], list[list[str]], str]:
    """Each scheme against exact, in the mean over all prompts."""
    model, placement, prompts = load_pipeline_folder(folder, torch.bfloat16), OneAtATime(device), PromptCache(size=20)
    found: dict[Scheme, list[list[float]]] = {scheme: [] for scheme in SCHEMES}
    for seed, prompt in enumerate(PROMPTS):
        request = GenerationRequest(prompt=prompt, seed=seed, **shape)
        request, exact = clamp_request(request, model.transformer), torch.empty(0)
        for scheme in SCHEMES:
            begin = time.perf_counter()
            frames = make(model, request, scheme, placement, prompts)
            seconds = time.perf_counter() - begin
            exact = frames if scheme is EXACT else exact
            found[scheme].append([seconds, psnr(frames, exact), ssim(frames, exact)])
            print(prompt, scheme, *found[scheme][-1], flush=True)
    rows = []
    for scheme, runs in found.items():
        seconds, decibels, similarity = torch.tensor(runs).mean(0).tolist()
        similar = ["", ""] if scheme is EXACT else [f"{decibels:.1f}", f"{similarity:.4f}"]
        rows.append([str(scheme), str(scheme.passes), f"{seconds:.1f}", *similar])
    header = ["scheme", "passes", "s / video", "PSNR to exact, dB", "SSIM"]
    return header, rows, f"{len(PROMPTS)} prompts, guidance {GUIDANCE:g}, measured on {folder.name}."


def make(
    model: LocalModel, request: GenerationRequest, scheme: Scheme, placement: OneAtATime, prompts: PromptCache
) -> Tensor:
    """As `generate`, but for the steps that do not ask the model: they go on as its last two guesses did."""
    plan = plan_for(model, request, placement)

    def encode(text: str) -> Tensor:
        device = placement.use(model.text_encoder, plan.memory_required(plan.encode))
        return encode_prompt(model.text_encoder, model.tokenizer, text, device).cpu()

    embeds = [prompts.get_or_encode(text, encode) for text in (request.prompt, request.negative_prompt)]
    device = placement.use(model.transformer, plan.memory_required(plan.denoise))
    model.transformer.chunks = plan.chunks
    noise = initial_noise(request.seed_or_random(), request.num_frames, request.height, request.width, device)
    latents = denoise(model, noise, scheme, [embed.to(device) for embed in embeds])
    device = placement.use(model.vae, plan.memory_required(plan.decode))
    return decode(model.vae, denormalize(model.vae, latents).to(device), request.num_frames, plan.grid, lambda *_: None)


def denoise(model: LocalModel, noise: Tensor, scheme: Scheme, embeds: list[Tensor]) -> Tensor:
    sigmas = standard_sigmas(model.scheduler_config, scheme.steps)
    solver = make_solver(scheme.schedule, model.scheduler_config, sigmas, noise)
    latents, mask = noise, condition_mask(noise)
    prompts = [model.transformer.prompt(each, noise) for each in embeds]
    known: list[tuple[float, Tensor]] = []
    for index, sigma in enumerate(solver.sigmas[:-1].tolist()):
        moment = math.log((1 - sigma) / sigma)
        if scheme.asks(index):
            positive, negative = predict_velocities(
                model.transformer, latents, noise.new_tensor([sigma]), prompts, mask
            )
            velocity = positive + GUIDANCE * (positive - negative)
            known = [*known[-1:], (moment, latents - sigma * velocity)]
        else:
            (before, older), (last, newer) = known
            velocity = (latents - torch.lerp(older, newer, (moment - before) / (last - before))) / sigma
        latents, _ = solver.step(index, velocity, latents)
    return latents
