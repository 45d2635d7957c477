"""The parts of a checkpoint under ComfyUI's memory manager."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy import model_management
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...pipeline.errors import InvalidRequestError
from ...pipeline.local.out_of_memory import is_out_of_memory
from ...pipeline.local.prompt_cache import PromptCache, PromptFiles
from ...pipeline.local.sizes import UNLIMITED, DeviceMemory
from ...pipeline.local.unfinished import UnfinishedVideo
from . import compat
from .compat import casts_its_weights, core_layers, is_mmap_off
from .kernels import ComfyKernels

if TYPE_CHECKING:  # the local room needs diffusers
    from ...pipeline.local.model import LocalModel

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Keyed by ComfyUI's names in its flags, the best first."""


@dataclass(frozen=True)
class HostWays:
    """The parts of ComfyUI to use: its layers, which stream weights, and its attention and norms."""

    layers: bool = True
    kernels: bool = True


def weight_dtype() -> torch.dtype | None:
    """Return the transformer's dtype: a flag's, else bfloat16 on a GPU with fast bfloat16, else float16 or float32.

    Returns None on the CPU without a flag: the weights keep the file's dtype.
    """
    device = model_management.get_torch_device()
    if told := _told("unet", "bf16", "fp16", "fp32"):
        return told
    if model_management.is_device_cpu(device):
        return torch.float32 if args.force_fp32 else None
    if model_management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if model_management.should_use_fp16(device) else torch.float32


def vae_weight_dtype() -> torch.dtype:
    """Return ComfyUI's dtype for a VAE that supports any, from a flag or the device."""
    return model_management.vae_dtype(model_management.vae_device(), list(TYPES.values()))


def text_weight_dtype() -> torch.dtype | None:
    """Return a flag's dtype, else bfloat16 on every GPU, as in the file: float32 would be a copy of 27 GB in RAM.

    It is never float16, in which Qwen2.5 overflows.
    """
    if told := _told("text_enc", "bf16", "fp32"):
        return told
    return None if model_management.is_device_cpu(model_management.get_torch_device()) else torch.bfloat16


def text_compute_dtype(weights: torch.dtype) -> torch.dtype:
    """Return float32 for bfloat16 weights on a GPU without bfloat16: Qwen2.5 overflows in float16."""
    device = model_management.get_torch_device()
    is_cpu = model_management.is_device_cpu(device)
    return weights if is_cpu or model_management.should_use_bf16(device) else torch.float32


def _told(part: str, *names: str) -> torch.dtype | None:
    """Return the dtype that a ComfyUI flag, such as --fp32-unet, sets for a part of a model."""
    return next((TYPES[name] for name in names if getattr(args, f"{name}_{part}", False)), None)


@functools.cache
def core_layer(layer: type[nn.Module]) -> type[nn.Module]:
    """Return ComfyUI's class for a layer, which may keep its weight off the GPU and cast it on use."""
    if casts_its_weights(layer):
        return layer
    for plain, core in core_layers().items():
        if layer is plain:
            return core
        if issubclass(layer, plain):  # as the VAE's causal convolutions, which call super().forward
            return type(layer.__name__, (layer, core), {})
    return layer


class CosmosPredict25Part(nn.Module):
    """Holds a module for ComfyUI's ModelPatcher, which sets `device`: diffusers' models have that as a property.

    The module's layers become ComfyUI's own, so that its memory manager can stream them, unless `streams` is False.
    """

    def __init__(self, part: nn.Module, streams: bool = True) -> None:
        super().__init__()
        self.part = part
        for layer in part.modules() if streams else ():
            layer.__class__ = core_layer(type(layer))
        if not hasattr(part, "weights_from_disk"):  # by another host of the same model
            weights = {name: parameter.data for name, parameter in part.named_parameters()}
            part.weights_from_disk = weights  # pyright: ignore[reportArgumentType]

    def put_back_weights_from_disk(self, of_device: str) -> None:
        """Point every parameter on a device of this type to the memory map's weights again."""
        weights: Any = self.part.weights_from_disk
        for name, parameter in self.part.named_parameters():
            if parameter.device.type == of_device:
                parameter.data = weights[name]


class CosmosPredict25Patcher(ModelPatcher):
    """Keeps the weights in their memory map, instead of copying them off the GPU.

    It is not a CoreModelPatcher: with the dynamic one, loading a part would leave the others on the GPU.
    """

    model: CosmosPredict25Part

    def load(self, device_to: torch.device | None = None, *args: Any, **options: Any) -> None:
        super().load(device_to, *args, **options)
        assert device_to is not None
        self._load_strays(device_to)

    def partially_load(self, device_to: torch.device, *args: Any, **options: Any) -> int:
        loaded = super().partially_load(device_to, *args, **options)
        try:
            # Where less memory is free than before, ComfyUI has unloaded some instead of loading.
            self._load_strays(device_to)
        except Exception:
            self.detach()  # as ComfyUI does: it does not count this part as loaded any more
            raise
        return loaded

    def _load_strays(self, device: torch.device) -> None:
        """Load parameters outside ComfyUI's layers, with their patches. ComfyUI skips them if memory is short.

        They are norms and tables, 4 MB.
        """
        for name, module in self.model.named_modules():
            if casts_its_weights(module):
                continue
            keys = [f"{name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False)]
            if self.patches.keys() & set(keys) and not getattr(module, "comfy_patched_weights", False):
                for key in keys:
                    self.patch_weight_to_device(key, device)
                module.comfy_patched_weights = True  # pyright: ignore[reportArgumentType]
            module._apply(lambda values: values.to(device), recurse=False)

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None:
        if unpatch_weights and device_to == torch.device("cpu"):
            # First, else ComfyUI copies what is on the GPU.
            self.model.put_back_weights_from_disk(self.load_device.type)
        super().unpatch_model(device_to, unpatch_weights)

    def partially_unload(self, device_to: torch.device, *args: Any, **options: Any) -> int:
        freed = super().partially_unload(device_to, *args, **options)
        if self.load_device.type != "cpu":
            self.model.put_back_weights_from_disk("cpu")  # ComfyUI has copied what it took off the GPU
        return freed

    def pin_weight_to_device(self, key: str) -> None:
        """Do nothing: locking a memory map's pages would read the whole file into memory."""


def read_into_memory(model: "LocalModel") -> None:
    """Copy the weights out of their files permanently."""
    for part in (model.text_encoder, model.transformer, model.vae):
        if hasattr(part, "weights_from_disk"):  # by another host of the same model
            return
        for weight in part.parameters():
            weight.data = weight.data.clone()
    model.text_encoder.token_embeddings = model.text_encoder.token_embeddings.clone()


class HostedModel:
    """A checkpoint whose parts live under ComfyUI's memory manager: the pipeline's `Placement` in ComfyUI."""

    def __init__(
        self, model: "LocalModel", guardrail: bool, prompt_folder: Path | None = None, ways: HostWays | None = None
    ) -> None:
        """Host `model`. `prompt_folder`: for the embeddings of prompts, or None to keep them only in memory.

        `ways`: the parts of ComfyUI that the canary allows; None for all.
        """
        self.ways = ways or HostWays()
        self.model = model
        self.guardrail = guardrail
        if is_mmap_off():
            read_into_memory(model)
        if self.ways.layers:
            model.text_encoder.compute_dtype = text_compute_dtype(model.text_encoder.compute_dtype)
        files = PromptFiles(prompt_folder, model) if prompt_folder else None
        self.prompts = PromptCache(files=files)
        self.unfinished = UnfinishedVideo()
        self.attention_options: Mapping[str, Any] = {}
        self.device = model_management.get_torch_device()
        if self.ways.kernels:
            model.transformer.kernels = ComfyKernels()
        patcher = CosmosPredict25Patcher if self.ways.layers else ModelPatcher
        self._patchers: dict[nn.Module, ModelPatcher] = {
            part: patcher(CosmosPredict25Part(part, self.ways.layers), device, offload_device)
            for part, device, offload_device in (
                (model.text_encoder, self.device, model_management.text_encoder_offload_device()),
                (model.transformer, self.device, model_management.unet_offload_device()),
                (model.vae, model_management.vae_device(), model_management.vae_offload_device()),
            )
        }

    @property
    def patcher(self) -> ModelPatcher:
        """Tells ComfyUI's cache that the value is a model, which may be dropped under memory pressure."""
        return self._patchers[self.model.transformer]

    def with_transformer(self, patcher: ModelPatcher) -> "HostedModel":
        """Return the same checkpoint with `patcher`, a patched clone of this one's, for its transformer.

        Both may be used in turn: ComfyUI removes one's patches when the other is loaded.
        """
        hosted = copy.copy(self)
        hosted.unfinished = UnfinishedVideo()
        hosted._patchers = {**self._patchers, self.model.transformer: patcher}
        return hosted

    def distilled_by(self, lora: str) -> "HostedModel":
        """Return the same checkpoint, to which a distilled LoRA of that name was applied."""
        hosted = copy.copy(self)
        hosted.model = replace(self.model, variant=self.model.variant.distilled_by(lora))
        return hosted

    def with_attention(self, options: Mapping[str, Any]) -> "HostedModel":
        """Return the same checkpoint with self-attention as the transformer_options of a MODEL say.

        Raises `InvalidRequestError` if the canary has put torch's own attention in the place of ComfyUI's.
        """
        if not (self.ways.kernels and self.model.ways.transformer):
            raise InvalidRequestError(
                "The Model Loader uses torch's own attention with this release of ComfyUI, as its node says, so an "
                "attention node cannot act: disconnect it."
            )
        hosted = copy.copy(self)
        hosted.unfinished, hosted.attention_options = UnfinishedVideo(), dict(options)
        return hosted

    @property
    def text_patcher(self) -> ModelPatcher:
        return self._patchers[self.model.text_encoder]

    def with_text_encoder(self, patcher: ModelPatcher, changes: bytes) -> "HostedModel":
        """Return the same checkpoint with `patcher`, a patched clone of `text_patcher`, and its own prompts.

        `changes`: a hash of the patches.
        """
        hosted = copy.copy(self)
        hosted.prompts = self.prompts.for_other_weights(changes)
        hosted._patchers = {**self._patchers, self.model.text_encoder: patcher}
        return hosted

    def use(self, module: nn.Module, memory_required: int) -> torch.device:
        patcher, whole = self._patchers[module], not self.ways.layers
        if isinstance(kernels := self.model.transformer.kernels, ComfyKernels):
            kernels.options = self.attention_options  # the hosts of one model share its kernels
        model_management.load_models_gpu([patcher], memory_required=memory_required, force_full_load=whole)
        return patcher.load_device

    def make_room(self, size: int) -> torch.device:
        model_management.free_memory(size + model_management.minimum_inference_memory(), self.device)
        return self.device

    def ran_out(self, error: Exception) -> bool:
        return bool(compat.is_out_of_memory(error)) or is_out_of_memory(error)

    def memory(self) -> DeviceMemory:
        """Return the GPU's memory without ComfyUI's reserve. Other models count as free, since they can be unloaded."""
        if model_management.is_device_cpu(self.device):
            return UNLIMITED
        free: Any = model_management.get_free_memory(self.device)
        ram: Any = model_management.get_free_memory(torch.device("cpu"))
        for loaded in model_management.current_loaded_models:
            if loaded.device == self.device and loaded.model is not None:
                free += loaded.model.loaded_size()
        return DeviceMemory(
            free=free - model_management.extra_reserved_memory(),
            ram=ram,
            layers_in_flight=compat.layers_in_flight() if self.ways.layers else 0,
            streams_all=self.ways.layers and compat.streams_all(),
        )
