"""Adapts ComfyUI to the pipeline's protocols: progress and previews, interruption, memory, videos and folders."""

import asyncio
import concurrent.futures
import json
import os
import secrets
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.utils
import folder_paths
import latent_preview
import torch
from comfy import latent_formats, model_management
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import Input, InputImpl, Types, io, ui
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer
from torch import Tensor, nn

from ..pipeline.errors import CannotPlace, ExportFailed

if TYPE_CHECKING:  # the local room needs diffusers
    from ..pipeline.local.generate import LocalModel
    from ..pipeline.video import RemoteVideo

T = TypeVar("T")
PROXY_SIDE = 960
OPAQUE = 1 - 0.5 / 255
"""What a ProRes decoder gives for opaque is a little less than 1."""

LOOK = 0.02
STOP_TICK = 0.1
STOP_SECONDS = 0.7
"""A node ends this long after Stop at the latest, whether or not its job at fal is known to be cancelled by then."""
HISTORY_SECONDS = 60


def weight_dtype() -> torch.dtype | None:
    """bfloat16 on a GPU that is good at it and float32 on another. None on the CPU: the weights stay as they are."""
    device = model_management.get_torch_device()
    if model_management.is_device_cpu(device):
        return None
    return torch.bfloat16 if model_management.should_use_bf16(device) else torch.float32


def show_text(text: str, node_id: str) -> None:
    """Show a line on a node while it runs."""
    PromptServer.instance.send_progress_text(text, node_id)


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
        """Raises `CannotPlace` where ComfyUI was told to keep no weights on the GPU."""
        model_management.load_models_gpu(
            [self._patchers[module]], memory_required=activation_bytes, force_full_load=True
        )
        device = next(module.parameters()).device
        if device.type != self.device.type:
            raise CannotPlace(
                f"ComfyUI left the {type(module).__name__} on {device} instead of {self.device}, as with --novram. "
                "Start ComfyUI with --lowvram or without either: the parts of this model take turns on the GPU anyway."
            )
        return self.device

    def make_room(self, size: int) -> torch.device:
        model_management.free_memory(size + model_management.minimum_inference_memory(), self.device)
        return self.device


class NodeObserver:
    """Shows progress on a node: the bar, a line of text and, for each step, a picture of the present latents."""

    def __init__(self, node_id: str, device: torch.device | None = None) -> None:
        """`device`: where the latents are, or None where there are none."""
        self._bar = comfy.utils.ProgressBar(1)
        self._node_id = node_id
        self._previewer = latent_preview.get_previewer(device, latent_formats.Wan21()) if device else None

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        preview = None
        if self._previewer and latents is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", latents)
        self._bar.update_absolute(done, total, preview)
        show_text(message, self._node_id)

    def raise_if_stopped(self) -> None:
        model_management.throw_exception_if_processing_interrupted()


class FalObserver:
    """Shows a job at fal on its node until the graph has ended. Called from a thread beside the graph's.

    It leaves ComfyUI's flag of Stop up for the other nodes, which ComfyUI's own ProgressBar would not.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self.graph_has_ended = False
        self.was_stopped = False

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        if not self.graph_has_ended:
            with suppress(RuntimeError):  # ComfyUI goes through all nodes' progress, while its thread may add one
                get_progress_state().update_progress(self._node_id, done, total)
            show_text(message, self._node_id)

    def raise_if_stopped(self) -> None:
        if not self.graph_has_ended and model_management.processing_interrupted():
            self.was_stopped = True
        if self.was_stopped:
            raise model_management.InterruptProcessingException


class Background(threading.Thread):
    """Runs a coroutine in an event loop of its own. A daemon: it does not keep ComfyUI from ending."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__(daemon=True)
        self.result: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._coroutine = coroutine
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        try:
            self.result.set_result(self._loop.run_until_complete(self._task))
        except BaseException as error:
            self.result.set_exception(error)
        finally:
            self._loop.close()

    async def is_done_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self.result.done() and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
        return self.result.done()

    def cancel(self) -> None:
        with suppress(RuntimeError):  # it has ended meanwhile
            self._loop.call_soon_threadsafe(lambda: self._task.cancel())


async def in_background(coroutine: Coroutine[Any, Any, T], observer: FalObserver) -> T:
    """Await `coroutine`, which goes on while a local node keeps the graph's own loop busy for minutes.

    Stop ends this within a second; the thread then cancels the job at fal for as long as that takes. When another node
    ends the graph with an error, the thread lets go of the job, which the next run takes up.
    """
    context = get_executing_context()
    prompt_id = context.prompt_id if context else ""
    thread = Background(coroutine)
    thread.start()
    try:
        while not await thread.is_done_within(STOP_TICK):
            if model_management.processing_interrupted():
                observer.was_stopped = True
                await thread.is_done_within(STOP_SECONDS)
                raise model_management.InterruptProcessingException
    except asyncio.CancelledError:
        threading.Thread(target=let_go_or_stop, args=(thread, observer, prompt_id), daemon=True).start()
        raise
    finally:
        observer.graph_has_ended = True
    return thread.result.result()


def let_go_or_stop(thread: Background, observer: FalObserver, prompt_id: str) -> None:
    """Another node has ended the graph. Whether that was Stop, only the history tells, which is written later.

    The flag of Stop does not: a node that sees it takes it down at once.
    """
    deadline = time.monotonic() + HISTORY_SECONDS
    while not thread.result.done() and time.monotonic() < deadline:
        entry = PromptServer.instance.prompt_queue.get_history(prompt_id, map_function=lambda entry: entry)
        if entry:
            messages = [name for name, _ in entry[prompt_id]["status"]["messages"]]
            observer.was_stopped |= "execution_interrupted" in messages
            break
        time.sleep(LOOK)
    if not observer.was_stopped:
        thread.cancel()


def fal_folders() -> tuple[Path, Path]:
    """For finished videos, in the output folder, and for the records of jobs, which no browser can read."""
    records = Path(folder_paths.get_system_user_directory("cosmos_predict25"), "fal_jobs")
    return Path(folder_paths.get_output_directory(), "cosmos_fal"), records


def video_of(video: "RemoteVideo") -> Input.Video:
    """fal's own file."""
    if video.path.suffix == ".gif":
        return GifVideo(str(video.path), video.fps)
    return InputImpl.VideoFromFile(str(video.path))


class GifVideo(InputImpl.VideoFromFile):
    """A GIF with its own frame rate. ComfyUI takes it for 100 over the shortest delay, which is up to 11 % too fast."""

    def __init__(self, file: str, frame_rate: Fraction | None = None) -> None:
        super().__init__(file)
        self._true_frame_rate = frame_rate

    def get_components(self) -> Types.VideoComponents:
        components = super().get_components()
        components.frame_rate = self._true_frame_rate or rate_of(len(components.images), self.get_duration())
        return components

    def get_frame_rate(self) -> Fraction:
        return self._true_frame_rate or rate_of(self.get_frame_count(), self.get_duration())


def rate_of(num_frames: int, seconds: float) -> Fraction:
    return Fraction(num_frames / seconds).limit_denominator(100)


def with_its_own_rate(video: Input.Video) -> Input.Video:
    file = file_of(video)
    if file is None or isinstance(video, GifVideo) or not str(file).lower().endswith(".gif"):
        return video
    return GifVideo(str(file))


def alpha_of(components: Types.VideoComponents) -> Tensor | None:
    """(F, H, W, 1), or None where all is opaque. ComfyUI's older versions keep no alpha of a video."""
    alpha = getattr(components, "alpha", None)
    return None if alpha is None or alpha.amin() >= OPAQUE else alpha


def file_of(video: Input.Video) -> str | os.PathLike[str] | None:
    """The file that holds this video and nothing else, or None for frames, a part of a file, or a file in memory."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    source = video.get_stream_source()
    if not isinstance(source, str | os.PathLike):
        return None
    is_whole = video.get_duration() == InputImpl.VideoFromFile(source).get_duration()
    return source if is_whole else None


def next_output_file(filename_prefix: str, extension: str, width: int, height: int) -> Path:
    """The next free file of ComfyUI's numbering, in a folder that exists. Raises `ExportFailed` if it cannot."""
    output = folder_paths.get_output_directory()
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(filename_prefix, output, width, height)
    except OSError as error:
        raise ExportFailed(
            f"The folder of {filename_prefix!r} in {output} cannot be used ({error.strerror}): choose another "
            "filename_prefix, or allow ComfyUI to write there."
        ) from error
    return Path(folder, f"{name}_{counter:05}_{extension}")


def workflow_metadata(prompt: Any, extra_pnginfo: dict[str, Any] | None) -> dict[str, str]:
    """What ComfyUI reads the graph from when the file is dropped on its canvas."""
    if args.disable_metadata:
        return {}
    values = {**(extra_pnginfo or {}), "prompt": prompt}
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def make_proxy(
    components: Types.VideoComponents, path: Path, background: tuple[float, float, float], observer: NodeObserver
) -> Path:
    """A small MP4 in ComfyUI's temp folder that shows what will be in `path`."""
    from ..pipeline.export import export

    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    proxy = folder / f"{path.stem}{secrets.token_hex(4)}.mp4"
    step = max(1, ceil(max(components.images.shape[1:3]) / PROXY_SIDE))
    alpha = alpha_of(components)
    export(
        components.images[:, ::step, ::step],
        proxy,
        alpha=None if alpha is None else alpha[:, ::step, ::step],
        fps=components.frame_rate,
        quality="low",
        audio=components.audio,
        background=background,
        observer=observer,
    )
    return proxy


def shown_on_node(path: Path, proxy: Path | None) -> dict[str, Any]:
    """The `ui` of a node that saved a video at `path`."""
    saved = saved_result(path, io.FolderType.output)
    if path.suffix == ".gif":  # the frontend would show an animated result in a <video>, which plays no GIF
        return {"images": [saved], "animated": (False,)}
    if proxy:
        return {**ui.PreviewVideo([saved_result(proxy, io.FolderType.temp)]).as_dict(), "files": [saved]}
    return ui.PreviewVideo([saved]).as_dict()


def saved_result(path: Path, folder: io.FolderType) -> ui.SavedResult:
    root = folder_paths.get_directory_by_type(folder.value)
    assert root
    subfolder = os.path.relpath(path.parent.resolve(), Path(root).resolve())
    return ui.SavedResult(path.name, "" if subfolder == os.curdir else subfolder, folder)
