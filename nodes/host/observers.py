"""Progress, previews and Stop: the pipeline's `Observer` in ComfyUI."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import comfy.utils
import latent_preview
from comfy import latent_formats, model_management
from comfy_execution.progress import get_progress_state
from server import PromptServer
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

    from .many_jobs import JobsOfRun
    from .memory import HostedModel


def show_text(text: str, node_id: str) -> None:
    """Show a line on a node while it runs."""
    PromptServer.instance.send_progress_text(text, node_id)


def format_for_previews(vae: "AutoencoderKLWan") -> latent_formats.LatentFormat:
    """Wan 2.1's latent format, or one with linear factors from the VAE's config, as for the demo."""
    if "_latent_rgb_factors" not in vae.config:
        return latent_formats.Wan21()
    latent_format: Any = latent_formats.LatentFormat()
    latent_format.latent_rgb_factors = vae.config["_latent_rgb_factors"]
    latent_format.latent_rgb_factors_bias = vae.config["_latent_rgb_factors_bias"]
    return latent_format


class NodeObserver:
    """Shows progress on a node: the bar, a line of text, and a preview of the latents after each step."""

    def __init__(self, node_id: str, model: "HostedModel | None" = None, note: str = "") -> None:
        """`model`: whose latents are shown, or None where there are none. `note`: a line below the progress."""
        self._note = note
        self._bar = comfy.utils.ProgressBar(1)
        self._node_id = node_id
        self._previewer = model and latent_preview.get_previewer(model.device, format_for_previews(model.model.vae))

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        preview = None
        if self._previewer and latents is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", latents)
        self._bar.update_absolute(done, total, preview)
        show_text("\n".join(filter(None, [message, self._note])), self._node_id)

    def raise_if_stopped(self) -> None:
        model_management.throw_exception_if_processing_interrupted()


class FalObserver:
    """Shows a job at fal on its node until the graph has ended, and what came of Stop. Called from another thread.

    It leaves ComfyUI's flag of Stop up for the other nodes, which ComfyUI's own ProgressBar would not.
    """

    def __init__(self, node_id: str, run: "JobsOfRun") -> None:
        """`run`: the jobs of the graph, told below the progress."""
        self._node_id = node_id
        self._run = run
        self.graph_has_ended = False
        self.was_stopped = False

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        if not self.graph_has_ended:
            with suppress(RuntimeError):  # ComfyUI goes through all nodes' progress, while its thread may add one
                get_progress_state().update_progress(self._node_id, done, total)
        if self.was_stopped or not self.graph_has_ended:
            show_text("\n".join(filter(None, [message, self._run.describe()])), self._node_id)

    def raise_if_stopped(self) -> None:
        if not self.graph_has_ended and model_management.processing_interrupted():
            self.was_stopped = True
        if self.was_stopped:
            raise model_management.InterruptProcessingException
