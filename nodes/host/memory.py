"""The parts of a checkpoint under ComfyUI's memory manager."""

from typing import TYPE_CHECKING

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...pipeline.errors import PlacementError
from ...pipeline.local.prompt_cache import PromptCache

if TYPE_CHECKING:  # the local room needs diffusers
    from ...pipeline.local.model import LocalModel


def weight_dtype() -> torch.dtype | None:
    """bfloat16 on a GPU that is good at it and float32 on another. None on the CPU: the weights stay as they are."""
    device = model_management.get_torch_device()
    if model_management.is_device_cpu(device):
        return None
    return torch.bfloat16 if model_management.should_use_bf16(device) else torch.float32


class CosmosPredict25Part(nn.Module):
    """Holds a module for ComfyUI's ModelPatcher, which sets `device`: diffusers' models have that as a property."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part


class CosmosPredict25Patcher(ModelPatcher):
    """Puts the weights back that were read from disk when ComfyUI unloads them, instead of copying them off the GPU.

    Not CoreModelPatcher: where that is the dynamic one, loading a part would leave the others on the GPU. ComfyUI takes
    the memory of dynamic models back weight by weight, which works for its own layers only.
    """

    def __init__(self, part: nn.Module, load_device: torch.device, offload_device: torch.device) -> None:
        super().__init__(CosmosPredict25Part(part), load_device, offload_device)
        self._from_disk = {name: parameter.data for name, parameter in part.named_parameters()}

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None:
        if unpatch_weights and device_to == torch.device("cpu"):
            for name, parameter in self.model.part.named_parameters():
                parameter.data = self._from_disk[name]
        super().unpatch_model(device_to, unpatch_weights)


class HostedModel:
    """A checkpoint whose parts live under ComfyUI's memory manager: the pipeline's `Placement` in ComfyUI."""

    def __init__(self, model: "LocalModel", guardrail: bool) -> None:
        self.model = model
        self.guardrail = guardrail
        self.prompts = PromptCache()
        self.device = model_management.get_torch_device()
        self._patchers: dict[nn.Module, ModelPatcher] = {
            part: CosmosPredict25Patcher(part, self.device, offload_device)
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

    def use(self, module: nn.Module, activation_bytes: int) -> torch.device:
        """Raises `PlacementError` where ComfyUI was told to keep no weights on the GPU."""
        model_management.load_models_gpu(
            [self._patchers[module]], memory_required=activation_bytes, force_full_load=True
        )
        device = next(module.parameters()).device
        if device.type != self.device.type:
            raise PlacementError(
                f"ComfyUI left the {type(module).__name__} on {device} instead of {self.device}, as with --novram. "
                "Start ComfyUI with --lowvram or without either: the parts of this model take turns on the GPU anyway."
            )
        return self.device

    def make_room(self, size: int) -> torch.device:
        model_management.free_memory(size + model_management.minimum_inference_memory(), self.device)
        return self.device
