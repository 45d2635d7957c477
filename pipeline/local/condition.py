"""Encode the frames that a video starts from to latents."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .causal import Memory, convolve, empty_memory, fast_on_cpu
from .compat import WanCausalConv3d, WanMidBlock, WanResample, WanResidualBlock
from .latents import normalize
from .sizes import ModelSizes

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan


@torch.inference_mode()
def encode_frames(vae: "AutoencoderKLWan", frames: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return the conditioning latents of `frames`, (4k + 1, H, W, 3) in 0..1.

    The result is (1, 16, k + 1, H/8, W/8), float32 in unit scale, on `device`. Since the VAE is causal, these are the
    first latents of the whole video. The encoder runs level by level, and takes only as many frames at once as a
    level's stride in time, so five frames need little more memory than one.

    Source: `AutoencoderKLWan._encode` and `WanEncoder3d.forward` of diffusers.
    """
    pixels = (frames.to(device, vae.dtype) * 2 - 1).permute(3, 0, 1, 2)[None]
    x = list(pixels.split(1, dim=2))
    with fast_on_cpu(vae.encoder, pixels.device):
        for layers in _levels(vae.encoder):
            x = list(_through(layers, x))
    moments = vae.quant_conv(torch.cat(x, dim=2))
    return normalize(vae, moments.chunk(2, dim=1)[0].float())


def condition_activation_bytes(sizes: ModelSizes, num_conditioning_frames: int, height: int, width: int) -> int:
    """Return the bytes that encoding takes: the first level of one frame, and the frames in its convolutions' memory.

    With one conditioning frame, that memory is empty.
    """
    values = 20 if num_conditioning_frames > 1 else 10.5
    return int(values * height * width * sizes.vae_channels * sizes.vae_itemsize)


def _levels(encoder: Any) -> Iterator[list[nn.Module]]:
    """Yield the encoder's layers in groups that end where the picture gets smaller."""
    level = [encoder.conv_in]
    for block in encoder.down_blocks:
        level.append(block)
        if isinstance(block, WanResample):
            yield level
            level = []
    yield [*level, encoder.mid_block, encoder.norm_out, encoder.nonlinearity, encoder.conv_out]


def _through(layers: list[nn.Module], frames: list[Tensor]) -> Iterator[Tensor]:
    """Yield `frames`, (1, channels, 1, h, w) each, after a level: the first alone, then each group merged into one."""
    memory = empty_memory(*layers)
    stride = 2 if any(isinstance(layer, WanResample) and layer.mode == "downsample3d" for layer in layers) else 1
    for group in (frames[:1], *zip(*[iter(frames[1:])] * stride, strict=True)):
        x, position = torch.cat(list(group), dim=2), [0]
        for layer in layers:
            x = _apply(layer, x, memory, position)
        yield x


def _apply(layer: nn.Module, x: Tensor, memory: Memory, position: list[int]) -> Tensor:
    if isinstance(layer, WanCausalConv3d):
        return convolve(layer, x, memory, position)
    if isinstance(layer, WanResidualBlock | WanResample | WanMidBlock):
        return layer(x, feat_cache=memory, feat_idx=position)
    return layer(x)
