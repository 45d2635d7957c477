"""The whole way from a request to a video, on this machine."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..observer import NullObserver, Observer
from ..request import FPS, GenerationRequest
from ..start import Start
from ..video import LocalVideo
from . import library
from .condition import encode_frames
from .decode import decode
from .denoise import denoise, nothing_given
from .encode import encode_prompt
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .latents import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, denormalize, initial_noise, latent_frames
from .model import LocalModel, sizes_of
from .placement import OneAtATime, Placement
from .plan import Plan, finer_grid, make_plan
from .prompt_cache import PromptCache
from .schedule import UniPC, make_solver, standard_sigmas
from .unfinished import UnfinishedVideo

if TYPE_CHECKING:
    from diffusers import CosmosTransformer3DModel

GUARDRAIL_BYTES = 4 * 2**30
"""Room for the guardrail's models: a 0.6B language model and a face detector."""


class _Progress:
    """Counts units of work: one for the prompts, one for the start, one for each step and each decoded latent frame."""

    def __init__(self, observer: Observer, total: int) -> None:
        self.observer = observer
        self.done = 0
        self.total = total

    def start(self, stage: str) -> None:
        """Report what goes on from now."""
        self._stage = stage
        self.observer.progress(stage, self.done, self.total)

    def advance(self, detail: str = "", latents: Tensor | None = None) -> None:
        """Report that a unit of the present stage is finished."""
        self.done += 1
        self.observer.progress(f"{self._stage}{detail}", self.done, self.total, latents)


def clamp_request(request: GenerationRequest, transformer: "CosmosTransformer3DModel") -> GenerationRequest:
    """`request` with no more frames, height and width than `transformer` has positions for.

    The 2B model has more than any request may ask for; the demo checkpoint ends at 25 frames of 96x96.
    """
    frames, height, width = transformer.config["max_size"]
    return replace(
        request,
        num_frames=min(request.num_frames, (frames - 1) * TEMPORAL_COMPRESSION + 1),
        height=min(request.height, height * SPATIAL_COMPRESSION),
        width=min(request.width, width * SPATIAL_COMPRESSION),
    )


def plan_for(model: LocalModel, request: GenerationRequest, placement: Placement, given: int = 0) -> Plan:
    """How `placement` can make this video, which starts from `given` frames, now. Raises `NotEnoughMemoryError`."""
    shape = request.num_frames, request.height, request.width
    return make_plan(sizes_of(model), *shape, placement.memory(), given)


def generate(
    model: LocalModel,
    request: GenerationRequest,
    *,
    start: Start | None = None,
    placement: Placement | None = None,
    plan: Plan | None = None,
    observer: Observer | None = None,
    guardrail: SafetyCheckerFactory | None = None,
    prompts: PromptCache | None = None,
    unfinished: UnfinishedVideo | None = None,
) -> LocalVideo:
    """Make the video that `request` asks for.

    With `start` the video begins with its picture, or its last 5 frames at 16 a second, scaled and cropped to width x
    height, as the model copies them. Without `placement` everything runs on the CPU; without `plan` that of `plan_for`
    is used; without `guardrail` no guard model is loaded. `prompts` keeps this model's embeddings from run to run, and
    `unfinished` the latents of a video whose decoding fails. What the observer raises to stop the work passes through.
    Raises `UnsafeContentError` when the guardrail refuses the prompt or the video, and `NotEnoughMemoryError` when the
    video is too large.
    """
    placement = placement or OneAtATime("cpu")
    given = start.given_frames(request.width, request.height) if start else torch.empty(0)
    plan = plan or plan_for(model, request, placement, len(given))
    unfinished = unfinished or UnfinishedVideo()
    request = replace(request, seed=request.seed_or_random())
    before = (2 if len(given) else 1) + request.num_inference_steps
    latents = unfinished.latents_of(request, given)
    grid = (unfinished.grid if latents is not None else None) or plan.grid
    total = before + math.prod(grid) * latent_frames(request.num_frames)
    progress = _Progress(observer or NullObserver(), total)

    if latents is None:
        if guardrail:
            progress.start("Checking the prompt")
            check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))
        embeds = _encode(model, request, prompts or PromptCache(), placement, plan, progress)
        known = _encode_start(model, given, placement, plan, progress) if len(given) else None
        latents = denormalize(model.vae, _denoise(model, request, embeds, known, placement, plan, progress))
        unfinished.keep(request, given, latents)
    else:
        progress.done = before
    frames = _decode(model, request, latents, placement, replace(plan, grid=grid), progress, unfinished)
    unfinished.clear()
    if guardrail:
        progress.start("Checking the video")
        frames = check_frames(guardrail, frames, placement.make_room(GUARDRAIL_BYTES))
    return LocalVideo(frames, latents.cpu(), request.seed_or_random(), FPS)


def _encode(
    model: LocalModel,
    request: GenerationRequest,
    prompts: PromptCache,
    placement: Placement,
    plan: Plan,
    progress: _Progress,
) -> tuple[Tensor, Tensor | None]:
    """The embeddings of the prompt and of the negative prompt; None for that which guidance 1 does not need."""

    def encode(text: str) -> Tensor:
        device = placement.use(model.text_encoder, plan.memory_required(plan.encode))
        with _stoppable(model.text_encoder.language_model.layers, progress.observer):
            return encode_prompt(model.text_encoder, model.tokenizer, text, device).cpu()

    progress.start("Encoding the prompt")
    positive = prompts.get_or_encode(request.prompt, encode)
    negative = None if request.guidance_scale == 1 else prompts.get_or_encode(request.negative_prompt, encode)
    progress.advance()
    return positive, negative


def _encode_start(model: LocalModel, given: Tensor, placement: Placement, plan: Plan, progress: _Progress) -> Tensor:
    progress.start("Encoding the start")
    assert plan.condition, "the plan is for a video without a start"
    device = placement.use(model.vae, plan.memory_required(plan.condition))
    with _stoppable(model.vae.encoder.down_blocks, progress.observer):
        known = (encode_frames if model.ways.vae else library.encode_frames)(model.vae, given, device)
    progress.advance()
    return known


def _denoise(
    model: LocalModel,
    request: GenerationRequest,
    embeds: tuple[Tensor, Tensor | None],
    known: Tensor | None,
    placement: Placement,
    plan: Plan,
    progress: _Progress,
) -> Tensor:
    progress.start("Denoising")
    transformer, steps = model.transformer, request.num_inference_steps
    memory_required = plan.memory_required(plan.denoise)
    device = placement.use(transformer, memory_required)
    transformer.chunks = plan.chunks
    positive, negative = (None if embed is None else embed.to(device) for embed in embeds)
    assert positive is not None
    latents = initial_noise(request.seed_or_random(), request.num_frames, request.height, request.width, device)
    sigmas = standard_sigmas(model.scheduler_config, steps)
    unipc = UniPC if model.ways.solver else library.LibraryUniPC
    solver = make_solver(request.schedule, model.scheduler_config, sigmas, latents, unipc)
    known = nothing_given(latents) if known is None else known.to(device)
    with _stoppable(transformer.transformer_blocks, progress.observer):
        for step in denoise(transformer, latents, solver, positive, negative, request.guidance_scale, known):
            latents = step.latents
            progress.advance(f", step {step.index + 1} of {steps}", step.denoised)
            # Showing the preview may have loaded another model in the transformer's place.
            placement.use(transformer, memory_required)
    return latents


def _decode(
    model: LocalModel,
    request: GenerationRequest,
    latents: Tensor,
    placement: Placement,
    plan: Plan,
    progress: _Progress,
    unfinished: UnfinishedVideo,
) -> Tensor:
    progress.start("Decoding")
    unfinished.grid = plan.grid

    def ran_out(error: Exception) -> bool:
        out = placement.ran_out(error)
        if out:
            unfinished.grid = finer_grid(unfinished.grid or plan.grid, request.height, request.width)
        return out

    def report(tile: int, tiles: int, done: int) -> None:
        of_tile = f", tile {tile} of {tiles}" if tiles > 1 else ""
        progress.advance(f"{of_tile}, frame {done} of {request.num_frames}")

    device = placement.use(model.vae, plan.memory_required(plan.decode))
    with _stoppable([model.vae.decoder.mid_block, model.vae.decoder.up_blocks[0]], progress.observer):
        if not model.ways.vae:
            return library.decode(model.vae, latents.to(device), request.num_frames, report)
        return decode(model.vae, latents.to(device), request.num_frames, plan.grid, report, ran_out)


@contextmanager
def _stoppable(blocks: Iterable[torch.nn.Module], observer: Observer) -> Iterator[None]:
    """Let the observer stop the work before each block: a pass of the 2B model takes seconds, a block does not."""
    hooks = [block.register_forward_pre_hook(lambda *_: observer.raise_if_stopped()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
