"""The causal convolutions of the Wan VAE: what each remembers of the frames before goes from call to call."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import CACHE_T, WanCausalConv3d
from torch import Tensor, cat, nn

Memory = list[Tensor | None]


@contextmanager
def channels_last_on_cpu(module: nn.Module, device: torch.device) -> Iterator[None]:
    """On a CPU, keep the weights of the convolutions in `module` with the channels last, for as long as it is entered.

    What they make has that order too, and everything after them keeps it: benchmarks/generate.py has what it gains. On
    other devices nothing was measured, and nothing is changed.
    """
    if device.type != "cpu":
        yield
        return
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    before = [layer.weight.data for layer in layers]
    for layer in layers:
        order = torch.channels_last if isinstance(layer, nn.Conv2d) else torch.channels_last_3d
        layer.weight.data = layer.weight.data.to(memory_format=order)
    try:
        yield
    finally:
        for layer, weight in zip(layers, before, strict=True):
            layer.weight.data = weight


def empty_memory(*modules: nn.Module) -> Memory:
    """What the convolutions in `modules` remember before the first frame."""
    return [None] * sum(isinstance(layer, WanCausalConv3d) for module in modules for layer in module.modules())


def convolve(convolution: nn.Module, x: Tensor, memory: Memory, position: list[int]) -> Tensor:
    """`convolution` of `x`, (1, channels, frames, h, w), and the two frames before it.

    These are in `memory` at `position`, which is moved on; the last two of `x` take their place.
    """
    before = memory[position[0]]
    last = x[:, :, -CACHE_T:].clone()
    if last.shape[2] < CACHE_T and before is not None:
        last = cat([before[:, :, -1:], last], dim=2)
    memory[position[0]] = last
    position[0] += 1
    return convolution(x, before)
