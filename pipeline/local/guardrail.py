"""NVIDIA's content guardrail, off by default."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy
import torch
from torch import Tensor

from ..errors import MissingDependencyError, UnsafeContentError


class SafetyChecker(Protocol):
    """The methods of `cosmos_guardrail.CosmosSafetyChecker` used here."""

    def check_text_safety(self, prompt: str) -> bool: ...

    def check_video_safety(self, frames: numpy.ndarray) -> numpy.ndarray | None: ...

    def to(self, device: torch.device | str) -> object: ...


SafetyCheckerFactory = Callable[[], SafetyChecker]
"""Makes a checker when one is needed. It leaves the device after each check, before denoising."""


def cosmos_guardrail() -> SafetyChecker:
    """Return NVIDIA's checker. It downloads its models on first use.

    Raises `MissingDependencyError` if it is not installed.
    """
    return import_guardrail()()


def import_guardrail() -> SafetyCheckerFactory:
    """Return the class of NVIDIA's checker. Raises `MissingDependencyError` if it is not installed."""
    try:
        from cosmos_guardrail import CosmosSafetyChecker  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            "The guardrail is switched on, but the package cosmos-guardrail cannot be imported "
            f"({error}). Install it with: pip install cosmos-guardrail"
        ) from error
    return CosmosSafetyChecker


def check_prompt(make_checker: SafetyCheckerFactory, prompt: str, device: torch.device) -> None:
    """Raise `UnsafeContentError` if the guardrail refuses `prompt`."""
    with _checker(make_checker, device) as checker:
        safe = checker.check_text_safety(prompt)
    if not safe:
        raise UnsafeContentError("The guardrail refused the prompt. Change the text.")


def check_frames(make_checker: SafetyCheckerFactory, frames: Tensor, device: torch.device) -> Tensor:
    """Return the frames (F, H, W, 3), float32 in 0..1, after the guardrail, which blurs faces.

    Raises `UnsafeContentError` if they are refused.
    """
    with _checker(make_checker, device) as checker:
        checked = checker.check_video_safety((frames * 255).round().to(torch.uint8).numpy())
    if checked is None:
        raise UnsafeContentError("The guardrail refused the finished video. Change the prompt or the seed.")
    return torch.from_numpy(checked).float() / 255


@contextmanager
def _checker(make_checker: SafetyCheckerFactory, device: torch.device) -> Iterator[SafetyChecker]:
    checker = make_checker()
    checker.to(device)
    try:
        yield checker
    finally:
        checker.to("cpu")
