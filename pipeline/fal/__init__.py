"""Text to video on fal.ai: `generate` makes one video and pays once; `FalClient` is the queue's protocol."""

from .client import FalClient
from .endpoints import DISTILLED, TEXT_TO_VIDEO, Endpoint
from .generate import generate
from .job import Cancellation, Job
from .journal import Journal
from .policy import NetworkPolicy
from .status import Completed, InProgress, Queued

__all__ = [
    "DISTILLED",
    "TEXT_TO_VIDEO",
    "Cancellation",
    "Completed",
    "Endpoint",
    "FalClient",
    "InProgress",
    "Job",
    "Journal",
    "NetworkPolicy",
    "Queued",
    "generate",
]
