"""The bytes alive on a GPU in each stage of a plan, counted at the real shapes without computing anything.

ComfyUI's own code loads and streams the weights, on fake tensors: weights on a CPU, work on a GPU that is not there.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLTextModel

from cosmos_predict25.pipeline.local.condition import encode_frames
from cosmos_predict25.pipeline.local.decode import middle_features, upsample
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocities, timesteps_of
from cosmos_predict25.pipeline.local.encode import layer_features
from cosmos_predict25.pipeline.local.latents import initial_noise, latent_frames
from cosmos_predict25.pipeline.local.model import LocalModel, TextEncoder
from cosmos_predict25.pipeline.local.plan import Plan, Stage
from cosmos_predict25.pipeline.local.sizes import MAX_TOKENS
from cosmos_predict25.pipeline.local.tiles import whole
from cosmos_predict25.pipeline.local.transformer import use_less_memory

GPU = torch.device("cuda", 0)
FAKE = FakeTensorMode()
"""One for all: fake tensors of two do not mix."""
SHAPES = {"2b": {"heads": 16, "blocks": 28}, "14b": {"heads": 40, "blocks": 36}}
"""Of the transformer. The text encoder and the VAE are the same."""
TEXT = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}  # fmt: skip


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors on one type of device, made while entered, that were alive at once."""

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.peak = 0
        self._device = device
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._alive:
            self._alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, storage._cdata)
            self.peak = max(self.peak, sum(self._alive.values()))


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Tensors without values, on a CPU unless they are put on the GPU that is not there."""
    with (
        mock.patch("torch.cuda.synchronize"),
        mock.patch("torch.nn.Module._apply", apply_to_fakes),
        FAKE,
        torch.inference_mode(),
    ):
        yield


def apply_to_fakes(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """As `Module._apply`, which cannot put a fake tensor of another device into a parameter."""
    for child in module.children() if recurse else ():
        apply_to_fakes(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(function(parameter.data), requires_grad=False)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else function(buffer)
    return module


def build_model(heads: int, blocks: int, dtype: torch.dtype = torch.bfloat16, text_layers: int = 28) -> LocalModel:
    """A checkpoint of the real widths, without values; to be called within `fake_gpu`."""
    torch.set_default_dtype(dtype)
    try:
        config: Any = Qwen2_5_VLConfig(text_config={**TEXT, "num_hidden_layers": text_layers}).text_config
        transformer = CosmosTransformer3DModel(
            in_channels=17, num_attention_heads=heads, num_layers=blocks, extra_pos_embed_type=None
        )
        features = nn.Sequential(Linear(text_layers * TEXT["hidden_size"], 1024), nn.GELU())
        text_encoder = TextEncoder(Qwen2_5_VLTextModel(config), features)
        tokenizer: Any = None
        vae: Any = AutoencoderKLWan()
    finally:
        torch.set_default_dtype(torch.float32)
    parts = (text_encoder, use_less_memory(transformer), vae)
    for part in parts:
        part.requires_grad_(False)
    return LocalModel("no values", tokenizer, *parts, {})


def account(model: LocalModel, plan: Plan, stage: str, num_frames: int, height: int, width: int, given: int = 0) -> int:
    """The peak of one stage of `plan`, encode, condition, denoise or decode, in bytes; to be called within `fake_gpu`.

    `given`: how many frames the video starts from.
    """
    if stage == "encode":
        return peak_of(model.text_encoder, plan, plan.encode, lambda: encode(model))
    if stage == "condition":
        assert plan.condition
        frames = torch.empty(given, height, width, 3)
        return peak_of(model.vae, plan, plan.condition, lambda: encode_frames(model.vae, frames, GPU))
    if stage == "denoise":
        model.transformer.chunks = plan.chunks
        known = latent_frames(given) if given else 0
        return peak_of(model.transformer, plan, plan.denoise, lambda: denoise(model, num_frames, height, width, known))
    return peak_of(model.vae, plan, plan.decode, lambda: decode(model, plan.grid, height, width))


def encode(model: LocalModel) -> None:
    shape = (1, MAX_TOKENS, model.text_encoder.token_embeddings.shape[1])
    token_embeds = torch.empty(shape, dtype=model.text_encoder.compute_dtype, device=GPU)
    model.text_encoder.crossattn_proj(layer_features(model.text_encoder.language_model, token_embeds))


def denoise(model: LocalModel, num_frames: int, height: int, width: int, known: int) -> None:
    """One pass: every step needs the same."""
    noise = empty_latents(num_frames, height, width)
    embeds = torch.empty(1, MAX_TOKENS, 1024, dtype=model.transformer.dtype, device=GPU)
    timestep = timesteps_of(torch.empty(1, device=GPU), noise.shape[2], known)
    prompts = [model.transformer.prompt(embeds, noise) for _ in range(2)]
    if prompts[0].heads is None:  # the second is as the first
        del prompts[1]
    predict_velocities(model.transformer, noise, timestep, prompts, condition_mask(noise, known))


def decode(model: LocalModel, grid: tuple[int, int], height: int, width: int) -> None:
    """Three latent frames of the first tile: each further one needs the same."""
    latents = empty_latents(9, height, width)
    tile = whole(latents).split(grid)[0]
    features = [feature.cpu() for feature in middle_features(model.vae, latents)]
    for _ in upsample(model.vae, (feature[..., tile.rows, tile.columns].to(GPU) for feature in features)):
        pass


def empty_latents(num_frames: int, height: int, width: int) -> Tensor:
    return torch.empty(initial_noise(0, num_frames, height, width).shape, device=GPU)


def peak_of(part: nn.Module, plan: Plan, stage: Stage, work: Callable[[], None]) -> int:
    """The bytes alive at once while ComfyUI loads what the plan leaves for weights, and `work` is done.

    ComfyUI keeps one layer's room free of these for streaming. Its streams, which are two on a GPU, are none here.
    """
    from cosmos_predict25.nodes.host.memory import CosmosPredict25Part, CosmosPredict25Patcher

    patcher = CosmosPredict25Patcher(CosmosPredict25Part(part), GPU, torch.device("cpu"))
    with LiveBytes() as live:
        # To ComfyUI, 0 is "all of it".
        budget = 0 if stage.resident == stage.weights else int(max(1, stage.resident + stage.streaming))
        patcher.patch_model(GPU, lowvram_model_memory=1 if plan.memory.streams_all else budget)
        work()
    patcher.unpatch_model()
    part.to("cpu")
    return live.peak
