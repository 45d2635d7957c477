"""Videos from fal.ai: `generate` makes one, `extend` continues a clip, and `FalClient` is the queue protocol.

Modules that need httpx are imported on first use, so that a node has the endpoints' names and limits without it.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy
from .endpoints import DISTILLED, IMAGE_TO_VIDEO, TEXT_TO_VIDEO, VIDEO_TO_VIDEO, Endpoint

if TYPE_CHECKING:
    from .client import FalClient
    from .extension import extend
    from .generation import generate
    from .journal import Journal
    from .media.upload import Media
    from .queue.job import Cancellation, Job
    from .queue.policy import NetworkPolicy
    from .queue.status import Completed, InProgress, Queued

__all__ = [
    "DISTILLED",
    "IMAGE_TO_VIDEO",
    "TEXT_TO_VIDEO",
    "VIDEO_TO_VIDEO",
    "Cancellation",
    "Completed",
    "Endpoint",
    "FalClient",
    "InProgress",
    "Job",
    "Journal",
    "Media",
    "NetworkPolicy",
    "Queued",
    "extend",
    "generate",
]

__getattr__ = lazy(
    __name__,
    {
        "Cancellation": ".queue.job",
        "Completed": ".queue.status",
        "FalClient": ".client",
        "InProgress": ".queue.status",
        "Job": ".queue.job",
        "Journal": ".journal",
        "Media": ".media.upload",
        "NetworkPolicy": ".queue.policy",
        "Queued": ".queue.status",
        "extend": ".extension",
        "generate": ".generation",
    },
)
