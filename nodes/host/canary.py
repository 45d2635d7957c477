"""Check that untested packages compute the same in ComfyUI, before a checkpoint is read."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from comfy import model_management
from torch import Tensor, nn

from ...pipeline.local import canary
from ...pipeline.local.canary import Part, Trial, agrees, described, made
from ...pipeline.local.compat import Release
from ...pipeline.local.transformer import use_less_memory
from ...pipeline.local.ways import OURS, Ways
from . import compat
from .kernels import ComfyKernels
from .memory import (
    CosmosPredict25Part,
    CosmosPredict25Patcher,
    HostWays,
    text_weight_dtype,
    vae_weight_dtype,
    weight_dtype,
)


class _Layers(nn.Module):
    """One of each kind of streamed layer, a layer made from another, and a norm that is not streamed."""

    class Causal(nn.Conv3d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.volume, self.picture = self.Causal(4, 8, (1, 3, 3), padding=(0, 1, 1)), nn.Conv2d(8, 8, 3)
        self.rows = nn.Sequential(nn.Linear(6, 32), nn.LayerNorm(32), nn.RMSNorm(32), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(self.picture(self.volume(x).squeeze(2)))


def layers_trial(device: torch.device, dtype: torch.dtype) -> Trial:
    """Compare streamed and loaded layers with layers that stay on the device."""
    network, x = made(_Layers, torch.device("cpu"), dtype), canary.random(1, 4, 1, 8, 8).to(device, dtype)

    def ours() -> Tensor:
        own = copy.deepcopy(network)
        places = [weight.data_ptr() for weight in own.parameters()]
        patcher = CosmosPredict25Patcher(CosmosPredict25Part(own), device, torch.device("cpu"))
        patcher.partially_load(device, 0)
        if patcher.loaded_size() >= patcher.model_size():
            raise RuntimeError("no weight is streamed")
        streamed = own(x).clone()
        patcher.partially_load(device, 2 * patcher.model_size())
        loaded = own(x).clone()
        patcher.detach()
        if places != [weight.data_ptr() for weight in own.parameters()]:
            raise RuntimeError("the weights from disk are not back")
        return torch.stack([streamed, loaded])

    def plain() -> Tensor:
        return torch.stack([copy.deepcopy(network).to(device)(x)] * 2)

    return Trial(ours, plain)


def kernels_trial(device: torch.device, dtype: torch.dtype) -> Trial:
    """Compare ComfyUI's attention and norms in the transformer with torch's."""
    transformer, velocity = canary.transformer_and_pass(device, dtype)

    def ours() -> Tensor:
        own: Any = use_less_memory(copy.deepcopy(transformer))
        own.kernels = ComfyKernels()
        return velocity(own)

    return Trial(ours, lambda: velocity(use_less_memory(copy.deepcopy(transformer))))


PARTS: Mapping[str, Part] = {
    "layers": Part("ComfyUI", "weights are not streamed: each part of the model must fit into VRAM", layers_trial),
    # The attention that a user has chosen may round, as SageAttention does.
    "kernels": Part("ComfyUI", "attention and norms are torch's own: slower", kernels_trial, elsewhere=0.05),
}
"""By the names of `HostWays`."""


@dataclass(frozen=True)
class Found:
    """The implementations to use, and a line for each part that does not use ours."""

    ways: Ways
    host: HostWays
    lines: tuple[str, ...]


def check_host() -> Found:
    """Do the work of `check` for ComfyUI's device and its weight dtypes. A file's own dtype counts as float32."""
    types = (weight_dtype(), text_weight_dtype(), vae_weight_dtype())
    return check(model_management.get_torch_device(), *(dtype or torch.float32 for dtype in types))


@cache
def check(device: torch.device, dtype: torch.dtype, text_dtype: torch.dtype, vae_dtype: torch.dtype) -> Found:
    """Do the work of the pipeline's `check`, and check ComfyUI too. Computes nothing if all releases were tested."""
    packages = {**canary.untested(), **compat.untested()}
    return check_parts(packages, device, dtype, text_dtype, vae_dtype) if packages else Found(OURS, HostWays(), ())


def check_parts(
    packages: Mapping[str, Release],
    device: torch.device,
    dtype: torch.dtype,
    text_dtype: torch.dtype,
    vae_dtype: torch.dtype | None = None,
) -> Found:
    """Do the work of `check` for `packages`, whose releases are untested."""
    ways, lines = canary.check_parts(packages, device, dtype, text_dtype, vae_dtype)
    # Without our transformer there is nothing for ComfyUI's kernels to do.
    wanted = [name for name in PARTS if name != "kernels" or ways.transformer]
    found = {name: agrees(PARTS[name], device, dtype) for name in wanted}
    lost = [described(PARTS[name], packages) for name, same in found.items() if not same]
    return Found(ways, HostWays(**found), (*lines, *lost))
