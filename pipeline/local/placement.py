"""Move parts of the model to and from the compute device."""

import math
from typing import Protocol

import torch
from torch import nn

from .out_of_memory import is_out_of_memory
from .sizes import UNLIMITED, DeviceMemory


class Placement(Protocol):
    """Decides which modules are on the device. `use` and `make_room` return the device to compute on."""

    def use(self, module: nn.Module, memory_required: int) -> torch.device:
        """Prepare `module` to compute on the device, with `memory_required` bytes free beside its weights."""
        ...

    def make_room(self, size: int) -> torch.device:
        """Free `size` bytes on the compute device."""
        ...

    def memory(self) -> DeviceMemory:
        """Return the memory available to one part at a time."""
        ...

    def ran_out(self, error: Exception) -> bool:
        """Return whether `error` means out of memory, so that smaller pieces may fit."""
        ...


class OneAtATime:
    """The placement for plain Python: keeps one module on `device` at a time and the others in RAM."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._module: nn.Module | None = None

    def use(self, module: nn.Module, memory_required: int) -> torch.device:
        if module is not self._module:
            self.make_room(memory_required)
            self._module = module.to(self._device)
        return self._device

    def make_room(self, size: int) -> torch.device:
        if self._module is not None:
            self._module.to("cpu")
            self._module = None
        return self._device

    def ran_out(self, error: Exception) -> bool:
        return is_out_of_memory(error)

    def memory(self) -> DeviceMemory:
        if self._device.type != "cuda":
            return UNLIMITED
        self.make_room(0)
        torch.cuda.empty_cache()
        return DeviceMemory(free=torch.cuda.mem_get_info(self._device)[0], ram=math.inf)
