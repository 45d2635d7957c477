"""Cosmos-Predict2.5 text to video, without ComfyUI.

`request` says what to generate; `local` does it on this machine. Nothing heavy is imported before it is used.
"""

from .errors import (
    CheckpointNotFound,
    CosmosError,
    InvalidRequest,
    MissingDependency,
    UnsafeContent,
    WrongCheckpoint,
)
from .observer import Observer
from .request import DEFAULT_NEGATIVE_PROMPT, FPS, GenerationRequest, Prompt, SamplerSettings
from .video import LocalVideo

__all__ = [
    "DEFAULT_NEGATIVE_PROMPT",
    "FPS",
    "CheckpointNotFound",
    "CosmosError",
    "GenerationRequest",
    "InvalidRequest",
    "LocalVideo",
    "MissingDependency",
    "Observer",
    "Prompt",
    "SamplerSettings",
    "UnsafeContent",
    "WrongCheckpoint",
]
