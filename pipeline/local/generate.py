"""Make a video from a request, on this machine."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..observer import NullObserver, Observer
from ..request import NUM_FRAMES, SIDE, GenerationRequest
from ..start import Start
from ..video import LocalVideo
from . import library
from .condition import encode_frames
from .decode import decode
from .denoise import denoise, no_conditioning_latents
from .encode import encode_prompt
from .finite import TEXT_ENCODER, VAE, check_finite
from .flops import seconds_by_rate
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .latents import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, denormalize, initial_noise, latent_frames
from .model import LocalModel, sizes_of
from .placement import OneAtATime, Placement
from .plan import Plan, make_plan
from .prompt_cache import PromptCache
from .schedule import UniPC, make_solver, standard_sigmas
from .tiles import finer_grid
from .time_left import TimeLeft
from .unfinished import UnfinishedVideo

if TYPE_CHECKING:
    from diffusers import CosmosTransformer3DModel

SHOWN = 20
"""Number of a prompt's characters to show in an error."""
GUARDRAIL_BYTES = 4 * 2**30
"""Room for the guardrail's models: a 0.6B language model and a face detector."""


class Progress:
    """Counts units of work: one for the prompts, one for the start, one for each step and each decoded latent frame."""

    def __init__(self, observer: Observer, plan: Plan, request: GenerationRequest) -> None:
        self.observer = observer
        self.done = 0
        self._before_decoding = (2 if plan.condition else 1) + request.num_inference_steps
        rows, columns = plan.grid
        self.total = self._before_decoding + rows * columns * latent_frames(request.num_frames)

    def start(self, stage: str, detail: str = "") -> None:
        """Report a new stage."""
        self._stage = stage
        self.observer.progress(f"{stage}{detail}", self.done, self.total)

    def advance(self, detail: str = "", latents: Tensor | None = None) -> None:
        """Report that a unit of the current stage is finished."""
        self.done += 1
        self.observer.progress(f"{self._stage}{detail}", self.done, self.total, latents)

    def skip_to_decoding(self) -> None:
        """Count the units before decoding as done."""
        self.done = self._before_decoding


@dataclass(frozen=True)
class Prepared:
    """A request within a checkpoint's limits, and the plan for it."""

    request: GenerationRequest
    plan: Plan


def prepare(
    model: LocalModel, request: GenerationRequest, start: Start | None = None, placement: Placement | None = None
) -> Prepared:
    """Return the arguments for `generate`: `request` within the limits of `model`, and a plan for the free memory.

    Without `placement`, everything runs on the CPU. Raises `NotEnoughMemoryError` if the video is too large.
    """
    request, start = clamp_request(request, model.transformer), model.variant.start_of(start)
    num_conditioning_frames = len(start.conditioning_indices()) if start else 0
    return Prepared(request, plan_for(model, request, placement or OneAtATime("cpu"), num_conditioning_frames))


def largest_shape(transformer: "CosmosTransformer3DModel") -> tuple[int, int, int]:
    """Return the maximum frames, height and width that both a request and the positions of `transformer` allow.

    The 2B model has more positions than any request needs. The demo checkpoint's maximum is 25 frames of 96x96.
    """
    frames, height, width = transformer.config["max_size"]
    return (
        min(NUM_FRAMES.maximum, (frames - 1) * TEMPORAL_COMPRESSION + 1),
        min(SIDE.maximum, height * SPATIAL_COMPRESSION),
        min(SIDE.maximum, width * SPATIAL_COMPRESSION),
    )


def clamp_request(request: GenerationRequest, transformer: "CosmosTransformer3DModel") -> GenerationRequest:
    """Return `request` with frames, height and width limited to `largest_shape` of `transformer`."""
    frames, height, width = largest_shape(transformer)
    return replace(
        request,
        num_frames=min(request.num_frames, frames),
        height=min(request.height, height),
        width=min(request.width, width),
    )


def plan_for(
    model: LocalModel, request: GenerationRequest, placement: Placement, num_conditioning_frames: int = 0
) -> Plan:
    """Return the plan for this video in the free memory of `placement`. Raises `NotEnoughMemoryError`."""
    shape = request.num_frames, request.height, request.width
    return make_plan(sizes_of(model), *shape, placement.memory(), num_conditioning_frames)


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
    """Make the video described by `request`.

    `start`: the video begins with this picture, or with the last 5 frames of this clip at 16 fps, or the last one if
    the model's variant takes one. They are scaled and cropped to width x height, as the model copies them.
    `placement`: None runs everything on the CPU. `plan`: None uses `plan_for`. `guardrail`: None loads no guard model.
    `prompts` keeps this model's embeddings between runs, and `unfinished` the latents of a video that could not be
    decoded. Exceptions that the observer raises to stop the work pass through.
    Raises `UnsafeContentError` if the guardrail refuses the prompt or the video, `NotEnoughMemoryError` if the video is
    too large, and `NotANumberError` as soon as a part of the model produces NaN.
    """
    placement, start = placement or OneAtATime("cpu"), model.variant.start_of(start)
    conditioning_frames = start.conditioning_frames(request.width, request.height) if start else torch.empty(0)
    plan = plan or plan_for(model, request, placement, len(conditioning_frames))
    unfinished = unfinished or UnfinishedVideo()
    request = replace(request, seed=request.seed_or_random())
    latents = unfinished.latents_of(request, conditioning_frames)
    if latents is not None and unfinished.grid:
        plan = replace(plan, grid=unfinished.grid)
    progress = Progress(observer or NullObserver(), plan, request)
    run = Run(model, request, placement, plan, progress)

    if latents is None:
        if guardrail:
            progress.start("Checking the prompt")
            check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))
        latents = run.make_latents(conditioning_frames, prompts or PromptCache())
        unfinished.keep(request, conditioning_frames, latents)
    else:
        progress.skip_to_decoding()
    frames = run.decode(latents, unfinished)
    unfinished.clear()
    if guardrail:
        progress.start("Checking the video")
        frames = check_frames(guardrail, frames, placement.make_room(GUARDRAIL_BYTES))
    return LocalVideo(frames, latents.cpu(), request.seed_or_random(), model.variant.fps)


@dataclass(frozen=True)
class Run:
    """The steps of one video. `request` has its seed."""

    model: LocalModel
    request: GenerationRequest
    placement: Placement
    plan: Plan
    progress: Progress

    def make_latents(self, conditioning_frames: Tensor, prompts: PromptCache) -> Tensor:
        """Return the latents to decode, (1, 16, T, H/8, W/8), in the VAE's scale."""
        embeds = self.encode_prompts(prompts)
        conditioning_latents = self.encode_start(conditioning_frames) if len(conditioning_frames) else None
        return denormalize(self.model.vae, self.denoise(embeds, conditioning_latents))

    def encode_prompts(self, prompts: PromptCache) -> tuple[Tensor, Tensor | None]:
        """Return the embeddings of the prompt and of the negative prompt, the latter None at guidance 1."""
        encoder, request = self.model.text_encoder, self.request

        def encode(text: str) -> Tensor:
            device = self.placement.use(encoder, self.plan.memory_required(self.plan.encode))
            with self.stoppable(encoder.language_model.layers):
                embeds = encode_prompt(encoder, self.model.tokenizer, text, device).cpu()
            check_finite(embeds, TEXT_ENCODER, f"for the prompt that begins {text[:SHOWN]!r}")
            return embeds

        self.progress.start("Encoding the prompt")
        positive = prompts.get_or_encode(request.prompt, encode)
        negative = None if request.guidance_scale == 1 else prompts.get_or_encode(request.negative_prompt, encode)
        self.progress.advance()
        return positive, negative

    def encode_start(self, conditioning_frames: Tensor) -> Tensor:
        """Return the conditioning latents (1, 16, k, H/8, W/8) in unit scale."""
        self.progress.start("Encoding the start")
        assert self.plan.condition, "the plan is for a video without a start"
        device = self.placement.use(self.model.vae, self.plan.memory_required(self.plan.condition))
        with self.stoppable(self.model.vae.encoder.down_blocks):
            encode = encode_frames if self.model.ways.vae else library.encode_frames
            conditioning_latents = encode(self.model.vae, conditioning_frames, device)
        check_finite(conditioning_latents, VAE, "for the picture or clip to start from")
        self.progress.advance()
        return conditioning_latents

    def denoise(self, embeds: tuple[Tensor, Tensor | None], conditioning_latents: Tensor | None) -> Tensor:
        """Return the denoised latents in unit scale."""
        self.progress.start("Denoising")
        request, transformer = self.request, self.model.transformer
        device = self.placement.use(transformer, self.plan.memory_required(self.plan.denoise))
        time_left = TimeLeft(request.num_inference_steps, seconds_by_rate(request, transformer, device))
        if expected := time_left.before_the_steps():
            self.progress.start("Denoising", expected)
        transformer.chunks, transformer.fps = self.plan.chunks, self.model.variant.rope_fps
        positive, negative = (None if embed is None else embed.to(device) for embed in embeds)
        assert positive is not None
        latents = initial_noise(request.seed_or_random(), request.num_frames, request.height, request.width, device)
        sigmas = standard_sigmas(self.model.scheduler_config, request.num_inference_steps)
        unipc = UniPC if self.model.ways.solver else library.LibraryUniPC
        solver = make_solver(request.schedule, self.model.scheduler_config, sigmas, latents, unipc)
        if conditioning_latents is None:
            conditioning_latents = no_conditioning_latents(latents)
        conditioning_latents = conditioning_latents.to(device)
        inputs = latents, solver, positive, negative, request.guidance_scale, conditioning_latents
        with self.stoppable(transformer.transformer_blocks):
            for step in denoise(transformer, *inputs, self.model.variant.conditioning_timestep):
                latents = step.latents
                count = f", step {step.index + 1} of {request.num_inference_steps}"
                self.progress.advance(count + time_left.after_a_step(), step.denoised)
                # Showing the preview may have loaded another model in the transformer's place.
                self.placement.use(transformer, self.plan.memory_required(self.plan.denoise, begun=True))
        return latents

    def decode(self, latents: Tensor, unfinished: UnfinishedVideo) -> Tensor:
        """Return the frames of `decode`. If memory runs out, record a finer grid in `unfinished`."""
        self.progress.start("Decoding")
        vae, request, grid = self.model.vae, self.request, self.plan.grid
        unfinished.grid = grid

        def ran_out(error: Exception) -> bool:
            out = self.placement.ran_out(error)
            if out:
                unfinished.grid = finer_grid(unfinished.grid or grid, request.height, request.width)
            return out

        def report(tile: int, tiles: int, done: int) -> None:
            of_tile = f", tile {tile} of {tiles}" if tiles > 1 else ""
            self.progress.advance(f"{of_tile}, frame {done} of {request.num_frames}")

        device = self.placement.use(vae, self.plan.memory_required(self.plan.decode))
        with self.stoppable([vae.decoder.mid_block, vae.decoder.up_blocks[0]]):
            if not self.model.ways.vae:
                return library.decode(vae, latents.to(device), request.num_frames, report)
            return decode(vae, latents.to(device), request.num_frames, grid, report, ran_out)

    @contextmanager
    def stoppable(self, blocks: Iterable[torch.nn.Module]) -> Iterator[None]:
        """Let the observer stop the work before each block, since a pass of the 2B model takes seconds."""
        stop = self.progress.observer.raise_if_stopped
        hooks = [block.register_forward_pre_hook(lambda *_: stop()) for block in blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
