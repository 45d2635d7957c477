"""Cosmos-Predict2.5 without ComfyUI: video from text, a picture or a clip.

`request` describes the video, `local` makes it on this machine, and `fal` makes it on fal.ai. Modules that need torch
are imported on first use.
"""

from typing import TYPE_CHECKING

from .errors import (
    CheckpointNotFoundError,
    CosmosError,
    FalError,
    InvalidRequestError,
    JobExpiredError,
    JobKeptError,
    MissingDependencyError,
    MissingKeyError,
    NotANumberError,
    NotEnoughMemoryError,
    OutcomeUnknownError,
    UnsafeContentError,
    WrongCheckpointError,
)
from .lazy import lazy
from .local.load.find import DEMO_FOLDER
from .observer import Observer
from .request import DEFAULT_NEGATIVE_PROMPT, FPS, GenerationRequest, Prompt, SamplerSettings
from .video import ExtendedVideo, LocalVideo, RemoteVideo, VideoFile

if TYPE_CHECKING:
    from .local.extend import extend
    from .local.generate import generate
    from .local.load.checkpoint import load_pipeline_folder, load_single_files
    from .local.lora import merge_lora
    from .local.many import Wanted, generate_many
    from .local.placement import OneAtATime
    from .start import Start

__all__ = [
    "DEFAULT_NEGATIVE_PROMPT",
    "DEMO_FOLDER",
    "FPS",
    "CheckpointNotFoundError",
    "CosmosError",
    "ExtendedVideo",
    "FalError",
    "GenerationRequest",
    "InvalidRequestError",
    "JobExpiredError",
    "JobKeptError",
    "LocalVideo",
    "MissingDependencyError",
    "MissingKeyError",
    "NotANumberError",
    "NotEnoughMemoryError",
    "Observer",
    "OneAtATime",
    "OutcomeUnknownError",
    "Prompt",
    "RemoteVideo",
    "SamplerSettings",
    "Start",
    "UnsafeContentError",
    "VideoFile",
    "Wanted",
    "WrongCheckpointError",
    "extend",
    "generate",
    "generate_many",
    "load_pipeline_folder",
    "load_single_files",
    "merge_lora",
]

__getattr__ = lazy(
    __name__,
    {
        "OneAtATime": ".local.placement",
        "Start": ".start",
        "Wanted": ".local.many",
        "extend": ".local.extend",
        "generate": ".local.generate",
        "generate_many": ".local.many",
        "load_pipeline_folder": ".local.load.checkpoint",
        "load_single_files": ".local.load.checkpoint",
        "merge_lora": ".local.lora",
    },
)
