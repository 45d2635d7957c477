"""The whole way from a request to a video, on this machine."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..observer import NullObserver, Observer
from ..request import FPS, GenerationRequest
from ..video import LocalVideo
from .decode import decode_activation_bytes, decode_chunks, decode_tiles
from .denoise import denoise, denoise_activation_bytes, make_schedule, nothing_given
from .encode import encode_activation_bytes, encode_prompt
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .latents import SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, denormalize, initial_noise, latent_frames
from .model import LocalModel
from .placement import OneAtATime, Placement
from .prompt_cache import PromptCache

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, CosmosTransformer3DModel

GUARDRAIL_BYTES = 4 * 2**30
"""Room for the guardrail's models: a 0.6B language model and a face detector."""


class _Progress:
    """Counts units of work: one for the prompts, one for each step, one for each decoded latent frame."""

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

    The 2B model has more than any request may ask for; the demo checkpoint ends at 25 frames of 64x64.
    """
    frames, height, width = transformer.config["max_size"]
    return replace(
        request,
        num_frames=min(request.num_frames, (frames - 1) * TEMPORAL_COMPRESSION + 1),
        height=min(request.height, height * SPATIAL_COMPRESSION),
        width=min(request.width, width * SPATIAL_COMPRESSION),
    )


def generate(
    model: LocalModel,
    request: GenerationRequest,
    *,
    placement: Placement | None = None,
    observer: Observer | None = None,
    guardrail: SafetyCheckerFactory | None = None,
    prompts: PromptCache | None = None,
) -> LocalVideo:
    """Make the video that `request` asks for.

    Without `placement` everything runs on the CPU; without `guardrail` no guard model is loaded. `prompts` keeps this
    model's embeddings from run to run. What the observer raises to stop the work passes through. Raises
    `UnsafeContentError` when the guardrail refuses the prompt or the video.
    """
    placement = placement or OneAtATime("cpu")
    seed = request.seed_or_random()
    units = 1 + request.num_inference_steps + latent_frames(request.num_frames)
    progress = _Progress(observer or NullObserver(), units)

    if guardrail:
        progress.start("Checking the prompt")
        check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))
    embeds = _encode(model, request, prompts or PromptCache(), placement, progress)
    latents = _denoise(model, request, seed, embeds, placement, progress)
    latents = denormalize(model.vae, latents)
    frames = _decode(model, request, latents, placement, progress)
    if guardrail:
        progress.start("Checking the video")
        frames = check_frames(guardrail, frames, placement.make_room(GUARDRAIL_BYTES))
    return LocalVideo(frames, latents.cpu(), seed, FPS)


def _encode(
    model: LocalModel, request: GenerationRequest, prompts: PromptCache, placement: Placement, progress: _Progress
) -> tuple[Tensor, Tensor | None]:
    """The embeddings of the prompt and of the negative prompt; None for that which guidance 1 does not need."""
    language_model = model.text_encoder.language_model

    def encode(text: str) -> Tensor:
        placement.use(model.text_encoder, encode_activation_bytes(language_model))
        with _stoppable(language_model.layers, progress.observer):
            return encode_prompt(model.text_encoder, model.tokenizer, text).cpu()

    progress.start("Encoding the prompt")
    positive = prompts.get_or_encode(request.prompt, encode)
    negative = None if request.guidance_scale == 1 else prompts.get_or_encode(request.negative_prompt, encode)
    progress.advance()
    return positive, negative


def _denoise(
    model: LocalModel,
    request: GenerationRequest,
    seed: int,
    embeds: tuple[Tensor, Tensor | None],
    placement: Placement,
    progress: _Progress,
) -> Tensor:
    progress.start("Denoising")
    transformer, steps = model.transformer, request.num_inference_steps
    noise = initial_noise(seed, request.num_frames, request.height, request.width)
    activation_bytes = denoise_activation_bytes(transformer, noise)
    device = placement.use(transformer, activation_bytes)
    positive = embeds[0].to(device, transformer.dtype)
    negative = None if embeds[1] is None else embeds[1].to(device, transformer.dtype)
    scheduler = make_schedule(model.scheduler_config, steps)
    latents = noise.to(device)
    mask = nothing_given(latents)
    with _stoppable(transformer.transformer_blocks, progress.observer):
        for step in denoise(transformer, latents, scheduler, positive, negative, request.guidance_scale, mask):
            latents = step.latents
            progress.advance(f", step {step.index + 1} of {steps}", step.denoised)
            # Showing the preview may have loaded another model in the transformer's place.
            placement.use(transformer, activation_bytes)
    return latents


def _decode(
    model: LocalModel, request: GenerationRequest, latents: Tensor, placement: Placement, progress: _Progress
) -> Tensor:
    progress.start("Decoding")
    device = placement.use(model.vae, decode_activation_bytes(model.vae, latents))
    latents = latents.to(device)
    try:
        return _decode_whole(model.vae, latents, request, progress)
    except torch.cuda.OutOfMemoryError:
        progress.start("Decoding in tiles: memory is short")
    with _stoppable([model.vae.decoder], progress.observer):
        return decode_tiles(model.vae, latents)[: request.num_frames].cpu()


def _decode_whole(vae: "AutoencoderKLWan", latents: Tensor, request: GenerationRequest, progress: _Progress) -> Tensor:
    frames = torch.empty(request.num_frames, request.height, request.width, 3)
    start = 0
    for chunk in decode_chunks(vae, latents):
        progress.observer.raise_if_stopped()
        kept = chunk[: len(frames) - start]
        frames[start : start + len(kept)] = kept
        start += len(kept)
        progress.advance(f", frame {start} of {len(frames)}")
    return frames


@contextmanager
def _stoppable(blocks: Iterable[torch.nn.Module], observer: Observer) -> Iterator[None]:
    """Let the observer stop the work before each block: a pass of the 2B model takes seconds, a block does not."""
    hooks = [block.register_forward_pre_hook(lambda *_: observer.raise_if_stopped()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
