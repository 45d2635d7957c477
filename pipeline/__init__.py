"""Cosmos-Predict2.5 text to video, without ComfyUI.

`request` says what to generate; `local` does it on this machine and `fal` on fal.ai. Nothing heavy is imported before
it is used.
"""

from .errors import (
    CheckpointNotFound,
    CosmosError,
    FalError,
    InvalidRequest,
    JobExpired,
    JobKept,
    KeyMissing,
    MissingDependency,
    OutcomeUnknown,
    UnsafeContent,
    WrongCheckpoint,
)
from .observer import Observer
from .request import DEFAULT_NEGATIVE_PROMPT, FPS, GenerationRequest, Prompt, SamplerSettings
from .video import LocalVideo, RemoteVideo

__all__ = [
    "DEFAULT_NEGATIVE_PROMPT",
    "FPS",
    "CheckpointNotFound",
    "CosmosError",
    "FalError",
    "GenerationRequest",
    "InvalidRequest",
    "JobExpired",
    "JobKept",
    "KeyMissing",
    "LocalVideo",
    "MissingDependency",
    "Observer",
    "OutcomeUnknown",
    "Prompt",
    "RemoteVideo",
    "SamplerSettings",
    "UnsafeContent",
    "WrongCheckpoint",
]
