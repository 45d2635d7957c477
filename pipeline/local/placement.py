"""Which part of the model is on the compute device, and when."""

from typing import Protocol

import torch
from torch import nn


class Placement(Protocol):
    """Decides where modules live. Both calls return the device to compute on."""

    def use(self, module: nn.Module, activation_bytes: int) -> torch.device:
        """Have all of `module` on the compute device, with `activation_bytes` free beside it for its work."""
        ...

    def make_room(self, size: int) -> torch.device:
        """Have `size` bytes free on the compute device."""
        ...


class OneAtATime:
    """For plain Python: one module on `device` at a time, the others wait in the CPU's memory."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._module: nn.Module | None = None

    def use(self, module: nn.Module, activation_bytes: int) -> torch.device:
        if module is not self._module:
            self.make_room(activation_bytes)
            self._module = module.to(self._device)
        return self._device

    def make_room(self, size: int) -> torch.device:
        if self._module is not None:
            self._module.to("cpu")
            self._module = None
        return self._device
