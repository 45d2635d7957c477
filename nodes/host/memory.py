"""The parts of a checkpoint under ComfyUI's memory manager."""

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.ops
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...pipeline.local.prompt_cache import PromptCache, PromptFiles
from ...pipeline.local.sizes import UNLIMITED, DeviceMemory
from ...pipeline.local.unfinished import UnfinishedVideo
from .kernels import ComfyKernels

if TYPE_CHECKING:  # the local room needs diffusers
    from ...pipeline.local.model import LocalModel

CORE_LAYERS = {
    nn.Linear: comfy.ops.manual_cast.Linear,
    nn.Conv2d: comfy.ops.manual_cast.Conv2d,
    nn.Conv3d: comfy.ops.manual_cast.Conv3d,
    nn.LayerNorm: comfy.ops.manual_cast.LayerNorm,
}


def weight_dtype() -> torch.dtype | None:
    """bfloat16 on a GPU that is good at it, else float16 or float32. None on the CPU: the weights stay as they are."""
    device = model_management.get_torch_device()
    if model_management.is_device_cpu(device):
        return None
    if model_management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if model_management.should_use_fp16(device) else torch.float32


def text_weight_dtype() -> torch.dtype | None:
    """bfloat16 on every GPU, as in the file: in float32 it would be copied from there into 27 GB of RAM."""
    return None if model_management.is_device_cpu(model_management.get_torch_device()) else torch.bfloat16


def text_compute_dtype(weights: torch.dtype) -> torch.dtype:
    """float32 for bfloat16 weights on a GPU without bfloat16: Qwen2.5 overflows in float16."""
    device = model_management.get_torch_device()
    is_cpu = model_management.is_device_cpu(device)
    return weights if is_cpu or model_management.should_use_bf16(device) else torch.float32


@functools.cache
def core_layer(layer: type[nn.Module]) -> type[nn.Module]:
    """ComfyUI's own class for a layer: it may leave its weight off the GPU, and casts it when it is used."""
    if hasattr(layer, "comfy_cast_weights"):
        return layer
    for plain, core in CORE_LAYERS.items():
        if layer is plain:
            return core
        if issubclass(layer, plain):  # as the VAE's causal convolutions, which call super().forward
            return type(layer.__name__, (layer, core), {})
    return layer


class CosmosPredict25Part(nn.Module):
    """Holds a module for ComfyUI's ModelPatcher, which sets `device`: diffusers' models have that as a property.

    The module's layers become ComfyUI's own, so that its memory manager can stream them.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        for layer in part.modules():
            layer.__class__ = core_layer(type(layer))
        if not hasattr(part, "weights_from_disk"):  # by another host of the same model
            weights = {name: parameter.data for name, parameter in part.named_parameters()}
            part.weights_from_disk = weights  # pyright: ignore[reportArgumentType]

    def put_back_weights_from_disk(self, of_device: str) -> None:
        """Give every parameter that is on a device of this type the memory map's weights again."""
        weights: Any = self.part.weights_from_disk
        for name, parameter in self.part.named_parameters():
            if parameter.device.type == of_device:
                parameter.data = weights[name]


class CosmosPredict25Patcher(ModelPatcher):
    """Keeps the weights in the memory map that they were read by, instead of copying them off the GPU.

    Not CoreModelPatcher: where that is the dynamic one, loading a part would leave the others on the GPU.
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
        """Load, with its patches, what is in no layer of ComfyUI's, which leaves it out where memory is short.

        Those are norms and tables, 4 MB.
        """
        for name, module in self.model.named_modules():
            if hasattr(module, "comfy_cast_weights"):
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
        """Nothing: to lock a memory map's pages is to read the whole file into memory."""


class HostedModel:
    """A checkpoint whose parts live under ComfyUI's memory manager: the pipeline's `Placement` in ComfyUI."""

    def __init__(self, model: "LocalModel", guardrail: bool, prompt_folder: Path | None = None) -> None:
        """`prompt_folder`: where the embeddings of prompts are kept, or None to keep them in memory alone."""
        self.model = model
        self.guardrail = guardrail
        model.text_encoder.compute_dtype = text_compute_dtype(model.text_encoder.compute_dtype)
        files = PromptFiles(prompt_folder, model) if prompt_folder else None
        self.prompts = PromptCache(files=files)
        self.unfinished = UnfinishedVideo()
        self.device = model_management.get_torch_device()
        model.transformer.kernels = ComfyKernels()
        self._patchers: dict[nn.Module, ModelPatcher] = {
            part: CosmosPredict25Patcher(CosmosPredict25Part(part), self.device, offload_device)
            for part, offload_device in (
                (model.text_encoder, model_management.text_encoder_offload_device()),
                (model.transformer, model_management.unet_offload_device()),
                (model.vae, model_management.vae_offload_device()),
            )
        }

    @property
    def patcher(self) -> ModelPatcher:
        """By this, ComfyUI's cache knows that the value is a model and may be dropped under memory pressure."""
        return self._patchers[self.model.transformer]

    def with_transformer(self, patcher: ModelPatcher) -> "HostedModel":
        """The same checkpoint with `patcher`, a clone of this one's with patches, for its transformer.

        Both may be used in turn: ComfyUI takes the one's patches off the weights when the other is loaded.
        """
        hosted = copy.copy(self)
        hosted.unfinished = UnfinishedVideo()
        hosted._patchers = {**self._patchers, self.model.transformer: patcher}
        return hosted

    @property
    def text_patcher(self) -> ModelPatcher:
        return self._patchers[self.model.text_encoder]

    def with_text_encoder(self, patcher: ModelPatcher) -> "HostedModel":
        """The same checkpoint with `patcher`, a clone of `text_patcher` with patches: it has prompts of its own."""
        hosted = copy.copy(self)
        hosted.prompts = PromptCache()
        hosted._patchers = {**self._patchers, self.model.text_encoder: patcher}
        return hosted

    def use(self, module: nn.Module, memory_required: int) -> torch.device:
        model_management.load_models_gpu([self._patchers[module]], memory_required=memory_required)
        return self.device

    def make_room(self, size: int) -> torch.device:
        model_management.free_memory(size + model_management.minimum_inference_memory(), self.device)
        return self.device

    def memory(self) -> DeviceMemory:
        """The GPU without what ComfyUI holds in reserve and what other models take, which leave it when asked to."""
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
            layers_in_flight=1 + model_management.NUM_STREAMS,
            streams_all=model_management.vram_state == model_management.VRAMState.NO_VRAM,
        )
