"""The Wan VAE's causal convolutions: their memory of earlier frames, and a fast path on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from .compat import CACHE_T, WanCausalConv3d, WanRMS_norm

Memory = list[Tensor | None]


def empty_memory(*modules: nn.Module) -> Memory:
    """Return an empty memory for the convolutions in `modules`, for use before the first frame."""
    return [None] * sum(isinstance(layer, WanCausalConv3d) for module in modules for layer in module.modules())


def convolve(convolution: nn.Module, x: Tensor, memory: Memory, position: list[int]) -> Tensor:
    """Apply `convolution` to `x`, (1, channels, frames, h, w), and the two frames before it.

    Those two are in `memory` at `position`. The last two frames of `x` replace them, and `position` moves on.
    """
    before = memory[position[0]]
    last = x[:, :, -CACHE_T:].clone()
    if last.shape[2] < CACHE_T and before is not None:
        last = cat([before[:, :, -1:], last], dim=2)
    memory[position[0]] = last
    position[0] += 1
    return convolution(x, before)


@contextmanager
def fast_on_cpu(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Use fewer passes over memory for the VAE's float32 layers in `module` on a CPU, while the context is open.

    Convolutions use channels-last weights and activations, pad the picture themselves, and use oneDNN for small
    pictures too. A norm multiplies once per channel, and its output is activated in place. Results differ only in the
    last bits. benchmarks/generate.py measures the gain. Other devices and types were not measured and stay as they are.
    """
    with ExitStack() as changes:
        for layer in module.modules() if device.type == "cpu" else ():
            for name, value in _changes(layer):
                changes.enter_context(_changed(layer, name, value))
        yield


def _changes(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of `layer` to change, and their values."""
    if isinstance(layer, nn.SiLU):
        yield "inplace", True
    if isinstance(layer, nn.Conv2d | nn.Conv3d | WanRMS_norm) and next(layer.parameters()).dtype != torch.float32:
        return
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        order = torch.channels_last if isinstance(layer, nn.Conv2d) else torch.channels_last_3d
        weight = layer.weight.detach().to(memory_format=order)
        yield "weight", nn.Parameter(weight, requires_grad=False)
    if isinstance(layer, WanCausalConv3d):
        around: Any = layer._padding
        _, right, _, bottom, before, _ = around
        yield "forward", _convolve_in_time(layer, before, (0, bottom, right))
    if isinstance(layer, WanRMS_norm) and layer.channel_first and not isinstance(layer.bias, Tensor):
        yield "forward", _normalize_channels(layer)


@contextmanager
def _changed(layer: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Set an attribute, and restore the previous value at the end, even if it was the class's."""
    own = name in vars(layer) or name in layer._parameters
    before = getattr(layer, name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        if own:
            setattr(layer, name, before)
        else:
            delattr(layer, name)


def _convolve_in_time(layer: WanCausalConv3d, before: int, padding: tuple[int, int, int]) -> Callable[..., Tensor]:
    """Return a `WanCausalConv3d.forward` that pads with zeros only before the first frame."""

    def forward(x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        missing = before
        if cache_x is not None and before > 0:
            x = cat([cache_x, x], dim=2)
            missing -= cache_x.shape[2]
        if missing > 0:
            x = F.pad(x, (0, 0, 0, 0, missing, 0))
        if not torch.backends.mkldnn.is_available():
            return F.conv3d(x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)
        # What conv3d itself takes for a large picture; for a small one it takes a loop that is four times as slow.
        return torch.mkldnn_convolution(
            x, layer.weight, layer.bias, padding, layer.stride, layer.dilation, layer.groups
        )

    return forward


def _normalize_channels(layer: WanRMS_norm) -> Callable[[Tensor], Tensor]:
    """Return a `WanRMS_norm.forward` for a norm without a bias."""

    def forward(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(1e-12)
        return (x * (layer.scale / length)).mul_(layer.gamma)

    return forward
