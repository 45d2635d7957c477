"""The private names of ComfyUI that Generate Locally uses. Only this file imports them, on first use."""

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
    """torch's layers and ComfyUI's replacements. Without these, weights are not streamed."""
    layers = comfy.ops.manual_cast
    return {
        nn.Linear: layers.Linear,
        nn.Conv2d: layers.Conv2d,
        nn.Conv3d: layers.Conv3d,
        nn.LayerNorm: layers.LayerNorm,
    }


def casts_its_weights(layer: Any) -> bool:
    """Return whether a layer or its class is ComfyUI's. Without this mark, streamed weights cannot be recognised."""
    return hasattr(layer, "comfy_cast_weights")


def cast_weights(layer: nn.Module, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the weights of a ComfyUI layer, ready for use. Without it, they are cast for each chunk of tokens."""
    return comfy.ops.cast_bias_weight(layer, like)


def fused(name: str) -> Any:
    """Return a function of comfy_kitchen, or None if it is missing or too old. Then torch's is used."""
    return getattr(getattr(comfy.quant_ops, "ck", None), name, None)


def attend(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Return the attention that ComfyUI was started with. Without it, torch's is used.

    `options`: its `transformer_options`, if any. Without them, attention nodes do not act.
    """
    return attention.optimized_attention(query, key, value, query.shape[1], skip_reshape=True, **options)


def layers_in_flight() -> int:
    """Return the number of layers on the GPU at once. Without it, the number for ComfyUI's two streams."""
    return 1 + getattr(model_management, "NUM_STREAMS", 2)


def streams_all() -> bool:
    """Return whether --novram keeps all weights off the GPU. Without the state, they stay if there is room."""
    state = getattr(model_management, "VRAMState", None)
    return state is not None and getattr(model_management, "vram_state", None) == state.NO_VRAM


def is_mmap_off() -> bool:
    """Return the flag --disable-mmap. Without it, files are memory-mapped."""
    return getattr(args, "disable_mmap", False)


def is_out_of_memory(error: BaseException) -> bool | None:
    """Return ComfyUI's own answer, which also clears the GPU's error, or None if it has none."""
    answer = getattr(model_management, "is_oom", None)
    return None if answer is None else answer(error)
