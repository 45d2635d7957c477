"""The private names of ComfyUI that Generate Locally is made of, each taken here alone, when it is first used."""

from typing import Any

import comfy.ops
import comfy.quant_ops
import comfyui_version
from comfy import model_management
from comfy.cli_args import args
from comfy.ldm.modules import attention
from torch import Tensor, nn

from ...pipeline.local.compat import Release

TESTED = ("0.18.2", "0.30.0", "0.33.0")
"""The releases that the tests have run with, the newest last."""


def untested() -> dict[str, Release]:
    """ComfyUI, unless its release is one of `TESTED`."""
    release = str(comfyui_version.__version__)
    return {} if release in TESTED else {"ComfyUI": Release(release, TESTED[-1])}


def core_layers() -> dict[type[nn.Module], type[nn.Module]]:
    """torch's layers, and ComfyUI's own in their place. Without one of these weights are not streamed."""
    layers = comfy.ops.manual_cast
    return {
        nn.Linear: layers.Linear,
        nn.Conv2d: layers.Conv2d,
        nn.Conv3d: layers.Conv3d,
        nn.LayerNorm: layers.LayerNorm,
    }


def casts_its_weights(layer: Any) -> bool:
    """Whether a layer, or a class of them, is ComfyUI's. Without this mark nothing knows which weights are away."""
    return hasattr(layer, "comfy_cast_weights")


def cast_weights(layer: nn.Module, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """The weights of a layer of ComfyUI's, ready to be used. Without it they are cast for each chunk of tokens."""
    return comfy.ops.cast_bias_weight(layer, like)


def fused(name: str) -> Any:
    """A function of comfy_kitchen, or None where ComfyUI has none or an older one. Without it torch's are used."""
    return getattr(getattr(comfy.quant_ops, "ck", None), name, None)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The attention that ComfyUI was started with. Without it torch's is used."""
    return attention.optimized_attention(query, key, value, query.shape[1], skip_reshape=True)


def layers_in_flight() -> int:
    """How many layers are on the GPU at once. Without the number, as many as with ComfyUI's two streams."""
    return 1 + getattr(model_management, "NUM_STREAMS", 2)


def streams_all() -> bool:
    """Whether --novram keeps all weights off the GPU. Without the state they stay where there is room."""
    state = getattr(model_management, "VRAMState", None)
    return state is not None and getattr(model_management, "vram_state", None) == state.NO_VRAM


def is_mmap_off() -> bool:
    """--disable-mmap. Without the flag files are mapped."""
    return getattr(args, "disable_mmap", False)


def is_out_of_memory(error: BaseException) -> bool | None:
    """ComfyUI's own answer, which clears the error of the GPU. None where it has none."""
    answer = getattr(model_management, "is_oom", None)
    return None if answer is None else answer(error)
