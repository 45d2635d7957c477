"""ComfyUI's own attention and fused kernels in the transformer."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.local.schedule import ONLY_NOISE
from ...pipeline.local.transformer import Kernels
from .compat import attend, cast_weights, casts_its_weights, fused


class ComfyKernels(Kernels):
    """The attention that ComfyUI was started with, its fused norms if available, and its layers' casts.

    `options`: the transformer_options of a MODEL, whose attention override acts on self-attention.
    """

    options: Mapping[str, Any] = MappingProxyType({})

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value).to(query.dtype)

    def self_attention(self, query: Tensor, key: Tensor, value: Tensor, sigma: Tensor, block_index: int) -> Tensor:
        """Tell an override the block, and the sigma in ComfyUI's scale, as ComfyUI's own network does."""
        if not self.options:
            return self.attention(query, key, value)
        flow = sigma.clamp(max=ONLY_NOISE)
        options = {**self.options, "sigmas": flow / (1 - flow), "block_index": block_index}
        return attend(query, key, value, transformer_options=options).to(query.dtype)

    def rotary_table(self, cos: Tensor, sin: Tensor) -> Tensor:
        """Return [[cos, -sin], [sin, cos]] as (tokens, head_dim / 2, 2, 2) for the fused kernel."""
        if fused("rms_rope_split_half1") is None:
            return super().rotary_table(cos, sin)
        cos, sin = (values[:, : values.shape[1] // 2] for values in (cos, sin))
        return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))

    def norm_and_rotate(self, norm: Any, heads: Tensor, table: Tensor) -> Tensor:
        kernel = fused("rms_rope_split_half1")
        if kernel is None:
            return super().norm_and_rotate(norm, heads, table)
        return kernel(heads, table[None, None], norm.weight, norm.eps)

    def adaptive_norm(self, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        kernel = fused("adaln")
        if kernel is None:
            return super().adaptive_norm(x, scale, shift, eps)
        # On CUDA it reads all three as values of x's type, whatever they are.
        return kernel(x, scale.to(x.dtype), shift.to(x.dtype), eps)

    def hold(self, layer: nn.Module, like: Tensor) -> Callable[[Tensor], Tensor]:
        """Move a streamed layer's weight to the device once, instead of once per chunk."""
        if not casts_its_weights(layer):
            return super().hold(layer, like)
        weight, bias = cast_weights(layer, like)
        return partial(F.linear, weight=weight, bias=bias)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        """ComfyUI's layers cast their weights themselves."""
        return layer(x) if casts_its_weights(layer) else super().apply(layer, x)
