"""How long jobs will take: the arithmetic of their passes by the measured rate of the device."""

import time
from collections.abc import Iterable

import torch

from ..local.flops import flops_of
from ..local.model import LocalModel
from ..request import GenerationRequest

SIDE = {"cuda": 8192, "cpu": 1024}
"""Of the square matrices that are multiplied."""
SECONDS = 0.5


def flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of matrix products on `device`, for half a second."""
    side = SIDE.get(device.type, SIDE["cpu"])
    matrix = torch.zeros(side, side, device=device, dtype=dtype)
    float((matrix @ matrix)[0, 0])
    begun, products = time.monotonic(), 0
    while (seconds := time.monotonic() - begun) < SECONDS or not products:
        float((matrix @ matrix)[0, 0])  # waits for the device
        products += 1
    return 2 * side**3 * products / seconds


def seconds_on(device: str, model: LocalModel, requests: Iterable[GenerationRequest]) -> float:
    """Return the seconds that all passes of `requests` take on `device` at the rate of its matrix products."""
    dtype = model.transformer.compute_dtype or model.transformer.dtype
    return flops_of(requests, model.transformer) / flops_per_second(torch.device(device), dtype)
