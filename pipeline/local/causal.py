"""The causal convolutions of the Wan VAE: what each remembers of the frames before goes from call to call."""

from diffusers.models.autoencoders.autoencoder_kl_wan import CACHE_T, WanCausalConv3d
from torch import Tensor, cat, nn

Memory = list[Tensor | None]


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
