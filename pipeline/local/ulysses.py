"""One video on several devices: each process has a share of the tokens, and a share of the heads in attention.

Source: DeepSpeed-Ulysses, https://arxiv.org/abs/2309.14509.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidRequestError
from .model import LocalModel
from .placement import OneAtATime
from .sizes import UNLIMITED, DeviceMemory
from .transformer import Kernels


class UlyssesKernels(Kernels):
    """Divides the tokens evenly between the processes of torch.distributed. The last share is padded.

    Every share has the same size, so all processes exchange equal parts equally often.
    """

    def __init__(self) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()

    def share(self, x: Tensor, dim: int = 0) -> Tensor:
        size = -(-x.shape[dim] // self.ranks)
        first = min(self.rank * size, x.shape[dim])
        part = x.narrow(dim, first, min(size, x.shape[dim] - first))
        return F.pad(part, [0, 0] * (x.dim() - dim - 1) + [0, size - part.shape[dim]])

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        whole = x.new_empty(self.ranks * x.shape[1], x.shape[2])
        dist.all_gather_into_tensor(whole, x[0].contiguous())
        return whole[None, :tokens]

    def to_heads(self, x: Tensor) -> Tensor:
        return exchange(x[0].unflatten(1, (self.ranks, -1)).transpose(0, 1))

    def to_tokens(self, x: Tensor) -> Tensor:
        return exchange(x).transpose(0, 1).flatten(1)[None]


def exchange(parts: Tensor) -> Tensor:
    """Send `parts[i]` to process i, and return the parts received from each process, in the same shape."""
    received = torch.empty_like(parts, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received, parts.contiguous())
    return received


class SharedPlacement(OneAtATime):
    """The placement of a process that shares each video, on its own device. All processes plan alike."""

    def memory(self) -> DeviceMemory:
        """Return the memory of the device that has the least."""
        memory = super().memory()
        if memory == UNLIMITED:
            return memory
        free = torch.tensor(memory.free, dtype=torch.float64)
        dist.all_reduce(free, dist.ReduceOp.MIN)
        return replace(memory, free=free.item(), ranks=dist.get_world_size())


def share_videos(model: LocalModel) -> None:
    """Let `model` compute each video together with the other processes, which do the same.

    Pass a `SharedPlacement` to `generate` then. Raises `InvalidRequestError` if the processes cannot share the heads.
    """
    heads, ranks = model.transformer.config["num_attention_heads"], dist.get_world_size()
    if heads % ranks:
        fewer = max(number for number in range(1, ranks) if heads % number == 0)
        raise InvalidRequestError(
            f"{ranks} processes cannot share the {heads} attention heads of {model.name}: "
            f"their number must divide {heads}. Use --nproc_per_node={fewer}."
        )
    model.transformer.kernels = UlyssesKernels()
