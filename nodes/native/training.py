"""The network while ComfyUI's Train LoRA runs, whose fused norm and rotation have no gradient there."""

from typing import Any

import torch
from comfy import model_management
from torch import Tensor

from .compat import Attention


def make_trainable(network: Any) -> None:
    """Let self-attention take torch's own operations while ComfyUI trains."""
    for block in network.blocks:
        block.self_attn.__class__ = TrainableAttention


class TrainableAttention(Attention):
    """ComfyUI's, fused in all but training."""

    def compute_qkv(
        self, x: Tensor, context: Tensor | None = None, rope_emb: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        if rope_emb is None or not model_management.in_training:
            return super().compute_qkv(x, context, rope_emb=rope_emb, **options)
        query, key, value = super().compute_qkv(x, context, rope_emb=None, **options)
        return rotated(query, rope_emb), rotated(key, rope_emb), value


def rotated(heads: Tensor, table: Tensor) -> Tensor:
    """Return `heads` with each value of the first half rotated together with one of the second half.

    `heads`: (B, tokens, heads, D). `table`: (1, tokens, 1, D / 2, 2, 2) of [[cos, -sin], [sin, cos]].
    """
    first, second = heads.float().chunk(2, dim=-1)
    turned = [table[..., row, 0] * first + table[..., row, 1] * second for row in range(2)]
    return torch.cat(turned, dim=-1).type_as(heads)
