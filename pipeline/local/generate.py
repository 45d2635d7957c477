"""The whole way from a request to a video, on this machine."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..observer import NullObserver, Observer
from ..request import FPS, GenerationRequest
from ..video import LocalVideo
from .decode import decode_chunks, decode_tiles, denormalize
from .denoise import (
    SPATIAL_COMPRESSION,
    TEMPORAL_COMPRESSION,
    denoise,
    initial_noise,
    latent_frames,
    make_schedule,
)
from .encode import MAX_TOKENS, TextEncoder, encode_prompt
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .placement import OneAtATime, Placement

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
    from transformers import PreTrainedTokenizerBase

GUARDRAIL_BYTES = 4 * 2**30
"""Room for the guardrail's models: a 0.6B language model and a face detector."""
KEPT_PROMPTS = 16


@dataclass(frozen=True)
class LocalModel:
    """The parts of one checkpoint, as `load_pipeline_folder` and `load_single_files` give them.

    `transformer.crossattn_proj` is the identity: the projection is part of `text_encoder`.
    `prompt_embeds`: the last embeddings by text, (1, 512, text_embed_dim), 1 MB each for the 2B model. With them a new
    seed or size needs no text encoder.
    """

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    text_encoder: TextEncoder
    transformer: "CosmosTransformer3DModel"
    vae: "AutoencoderKLWan"
    scheduler_config: Mapping[str, Any]
    prompt_embeds: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)


class _Progress:
    """Counts units of work: one for the prompts, one for each step, one for each decoded latent frame."""

    def __init__(self, observer: Observer, total: int) -> None:
        self.observer = observer
        self.done = 0
        self.total = total

    def advance(self, message: str, latents: Tensor | None = None) -> None:
        self.done += 1
        self.observer.progress(message, self.done, self.total, latents)


def fit(request: GenerationRequest, transformer: "CosmosTransformer3DModel") -> GenerationRequest:
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
) -> LocalVideo:
    """Make the video that `request` asks for.

    Without `placement` everything runs on the CPU; without `guardrail` no guard model is loaded. What the observer
    raises to stop the work passes through. Raises `UnsafeContentError` when the guardrail refuses the prompt or the
    video.
    """
    placement = placement or OneAtATime("cpu")
    observer = observer or NullObserver()
    seed = request.seed_or_random()
    progress = _Progress(observer, 1 + request.num_inference_steps + latent_frames(request.num_frames))

    observer.progress("Encoding the prompt", 0, progress.total)
    if guardrail:
        check_prompt(guardrail, request.prompt, placement.make_room(GUARDRAIL_BYTES))
    embeds = _encode(model, request, placement, observer)
    progress.advance("Denoising")
    latents = _denoise(model, request, seed, embeds, placement, progress)
    latents = denormalize(model.vae, latents)
    frames = _decode(model, request, latents, placement, progress)
    if guardrail:
        frames = check_frames(guardrail, frames, placement.make_room(GUARDRAIL_BYTES))
    return LocalVideo(frames, latents.cpu(), seed, FPS)


def _encode(
    model: LocalModel, request: GenerationRequest, placement: Placement, observer: Observer
) -> tuple[Tensor, Tensor | None]:
    positive = _embed(model, request.prompt, placement, observer)
    if request.guidance_scale == 1:
        return positive, None
    return positive, _embed(model, request.negative_prompt, placement, observer)


def _embed(model: LocalModel, text: str, placement: Placement, observer: Observer) -> Tensor:
    if text not in model.prompt_embeds:
        language_model = model.text_encoder.language_model
        features = MAX_TOKENS * language_model.config.num_hidden_layers * language_model.config.hidden_size
        placement.use(model.text_encoder, 3 * features * language_model.dtype.itemsize)
        with _stoppable(language_model.layers, observer):
            model.prompt_embeds[text] = encode_prompt(model.text_encoder, model.tokenizer, text).cpu()
    model.prompt_embeds.move_to_end(text)
    embeds = model.prompt_embeds[text]
    while len(model.prompt_embeds) > KEPT_PROMPTS:
        model.prompt_embeds.popitem(last=False)
    return embeds


def _denoise(
    model: LocalModel,
    request: GenerationRequest,
    seed: int,
    embeds: tuple[Tensor, Tensor | None],
    placement: Placement,
    progress: _Progress,
) -> Tensor:
    transformer, steps = model.transformer, request.num_inference_steps
    noise = initial_noise(seed, request.num_frames, request.height, request.width)
    activation_bytes = denoise_activation_bytes(transformer, noise)
    device = placement.use(transformer, activation_bytes)
    positive = embeds[0].to(device, transformer.dtype)
    negative = None if embeds[1] is None else embeds[1].to(device, transformer.dtype)
    scheduler = make_schedule(model.scheduler_config, steps)
    latents = noise
    with _stoppable(transformer.transformer_blocks, progress.observer):
        for step in denoise(transformer, noise.to(device), scheduler, positive, negative, request.guidance_scale):
            latents = step.latents
            message = f"Denoising, step {step.index + 1} of {steps}" if step.index + 1 < steps else "Decoding"
            progress.advance(message, step.denoised)
            # Showing the preview may have loaded another model in the transformer's place.
            placement.use(transformer, activation_bytes)
    return latents


def _decode(
    model: LocalModel, request: GenerationRequest, latents: Tensor, placement: Placement, progress: _Progress
) -> Tensor:
    device = placement.use(model.vae, decode_activation_bytes(model.vae, latents))
    latents = latents.to(device)
    try:
        return _decode_whole(model.vae, latents, request, progress)
    except torch.cuda.OutOfMemoryError:
        progress.observer.progress("Decoding in tiles: memory is short", progress.done, progress.total)
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
        progress.advance(f"Decoding, frame {start} of {len(frames)}")
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


def denoise_activation_bytes(transformer: "CosmosTransformer3DModel", latents: Tensor) -> int:
    """Memory for one pass beside the weights: 12.5 values per token and channel, as tests/ counts them."""
    config = transformer.config
    tokens = latents[0, 0].numel() // math.prod(config["patch_size"])
    channels = config["num_attention_heads"] * config["attention_head_dim"]
    return int(12.5 * tokens * channels * transformer.dtype.itemsize)


def decode_activation_bytes(vae: "AutoencoderKLWan", latents: Tensor) -> int:
    """Memory for decoding beside the weights: 56 values per pixel and base channel, as tests/ counts them."""
    pixels = latents.shape[-2] * latents.shape[-1] * 64
    return 56 * pixels * vae.config["base_dim"] * vae.dtype.itemsize
