"""Cosmos-Predict2.5 text to video, without ComfyUI.

`request` says what to generate; `local` does it on this machine and `fal` on fal.ai. Nothing heavy is imported before
it is used.
"""

from .errors import (
    CheckpointNotFoundError,
    CosmosError,
    FalError,
    InvalidRequestError,
    JobExpiredError,
    JobKeptError,
    MissingDependencyError,
    MissingKeyError,
    OutcomeUnknownError,
    UnsafeContentError,
    WrongCheckpointError,
)
from .observer import Observer
from .request import DEFAULT_NEGATIVE_PROMPT, FPS, GenerationRequest, Prompt, SamplerSettings
from .video import LocalVideo, RemoteVideo, VideoFile

__all__ = [
    "DEFAULT_NEGATIVE_PROMPT",
    "FPS",
    "CheckpointNotFoundError",
    "CosmosError",
    "FalError",
    "GenerationRequest",
    "InvalidRequestError",
    "JobExpiredError",
    "JobKeptError",
    "LocalVideo",
    "MissingDependencyError",
    "MissingKeyError",
    "Observer",
    "OutcomeUnknownError",
    "Prompt",
    "RemoteVideo",
    "SamplerSettings",
    "UnsafeContentError",
    "VideoFile",
    "WrongCheckpointError",
]
