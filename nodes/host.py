"""Adapts ComfyUI to the pipeline's protocols: progress and previews, interruption, memory."""

import comfy.utils
import latent_preview
import torch
from comfy import latent_formats, model_management
from comfy.model_patcher import ModelPatcher
from server import PromptServer
from torch import Tensor, nn

from ..pipeline.local.generate import LocalModel


def weight_dtype() -> torch.dtype | None:
    """bfloat16 where the device is good at it. None elsewhere: the weights stay as they are in their files."""
    return torch.bfloat16 if model_management.should_use_bf16(model_management.get_torch_device()) else None


def show_text(text: str, node_id: str) -> None:
    """Show a line on a node while it runs."""
    PromptServer.instance.send_progress_text(text, node_id)


class CosmosPredict25Part(nn.Module):
    """Holds a module for ComfyUI's ModelPatcher, which sets `device`: diffusers' models have that as a property."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part


class HostedModel:
    """A checkpoint whose parts live under ComfyUI's memory manager: the pipeline's `Placement` in ComfyUI."""

    def __init__(self, model: LocalModel, guardrail: bool) -> None:
        self.model = model
        self.guardrail = guardrail
        self.device = model_management.get_torch_device()
        # Not CoreModelPatcher: where that is the dynamic one, loading a part would leave the others on the device.
        # ComfyUI takes the memory of dynamic models back weight by weight, which works for its own layers only.
        self._patchers: dict[nn.Module, ModelPatcher] = {
            part: ModelPatcher(CosmosPredict25Part(part), load_device=self.device, offload_device=offload_device)
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
        model_management.load_models_gpu(
            [self._patchers[module]], memory_required=activation_bytes, force_full_load=True
        )
        return self.device

    def make_room(self, size: int) -> torch.device:
        model_management.free_memory(size + model_management.minimum_inference_memory(), self.device)
        return self.device


class NodeObserver:
    """Shows progress on a node: the bar, a line of text and, for each step, a picture of the present latents."""

    def __init__(self, device: torch.device, node_id: str) -> None:
        self._bar = comfy.utils.ProgressBar(1)
        self._node_id = node_id
        self._previewer = latent_preview.get_previewer(device, latent_formats.Wan21())

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        preview = None
        if self._previewer and latents is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", latents)
        self._bar.update_absolute(done, total, preview)
        show_text(message, self._node_id)

    def raise_if_stopped(self) -> None:
        model_management.throw_exception_if_processing_interrupted()
