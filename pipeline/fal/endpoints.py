"""fal's endpoints of the model, and the JSON of a request."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..errors import InvalidRequestError
from ..request import (
    DISTILLED_DEFAULT_STEPS,
    DISTILLED_STEPS,
    FOUR_STEPS,
    NUM_INFERENCE_STEPS,
    STANDARD,
    GenerationRequest,
    Range,
    SamplerSettings,
)

NOT_SENT = ("width", "height", "schedule")
"""Fields that fal does not have: it makes 1280 x 704, with its own schedule."""
ENDPOINT_ID = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint of fal. `typical_seconds` and `dollars` are fal's own figures for a video.

    `media`: the name of the input for the file to start from, if there is one.
    """

    id: str
    num_inference_steps: Range[int]
    default_steps: int
    has_guidance_scale: bool
    typical_seconds: float
    dollars: float
    media: Literal["", "image_url", "video_url"] = ""

    @property
    def name(self) -> str:
        """Return the id without the model, which is the same for all."""
        return self.id.split("/", 2)[2]


TEXT_TO_VIDEO = Endpoint(
    id="fal-ai/cosmos-predict-2.5/text-to-video",
    num_inference_steps=NUM_INFERENCE_STEPS,
    default_steps=SamplerSettings().num_inference_steps,
    has_guidance_scale=True,
    typical_seconds=7 * 60,
    dollars=0.20,
)
IMAGE_TO_VIDEO = replace(TEXT_TO_VIDEO, id="fal-ai/cosmos-predict-2.5/image-to-video", media="image_url")
VIDEO_TO_VIDEO = replace(TEXT_TO_VIDEO, id="fal-ai/cosmos-predict-2.5/video-to-video", media="video_url")
DISTILLED = Endpoint(
    id="fal-ai/cosmos-predict-2.5/distilled/text-to-video",
    num_inference_steps=DISTILLED_STEPS,
    default_steps=DISTILLED_DEFAULT_STEPS,
    has_guidance_scale=False,
    typical_seconds=2 * 60,
    dollars=0.08,
)
ENDPOINTS = (TEXT_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_TO_VIDEO, DISTILLED)


def documented_price(endpoint_id: str) -> float:
    """Return the documented price of a video in dollars."""
    return next((one.dollars for one in ENDPOINTS if one.id == endpoint_id), TEXT_TO_VIDEO.dollars)


def arguments(endpoint: Endpoint, request: GenerationRequest) -> dict[str, Any]:
    """Return the JSON object to send: every field of the endpoint's schema, so that fal's list shows them all.

    Raises `InvalidRequestError` for steps outside the endpoint's range, and for settings of a distilled checkpoint if
    the endpoint has the full model.
    """
    if request.schedule in FOUR_STEPS and endpoint.has_guidance_scale:
        raise InvalidRequestError(
            f"schedule is {request.schedule!r}, with steps and guidance for a distilled checkpoint on your GPU, but "
            f"{endpoint.id} is the full model: set schedule to {STANDARD!r}, num_inference_steps to "
            f"{endpoint.default_steps} and guidance_scale to {SamplerSettings().guidance_scale:g}."
        )
    limits = endpoint.num_inference_steps
    if not limits.minimum <= request.num_inference_steps <= limits.maximum:
        raise InvalidRequestError(
            f"num_inference_steps is {request.num_inference_steps}, but {endpoint.id} takes {limits.minimum} to "
            f"{limits.maximum}: its default is {endpoint.default_steps}."
        )
    left_out = NOT_SENT if endpoint.has_guidance_scale else (*NOT_SENT, "guidance_scale")
    return {name: value for name, value in asdict(request).items() if name not in left_out}


def is_same_input(given: Any, keys: list[str], sha256: str) -> bool:
    """Return whether the `keys` of `given`, an input in fal's list, have this hash.

    The server may have added fields: they are not compared.
    """
    return isinstance(given, dict) and sha256_of({name: given[name] for name in keys if name in given}) == sha256


def app_of(endpoint_id: str) -> str:
    """Return `owner/app` of an endpoint's id, the part in the URLs of its jobs. Raises `InvalidRequestError`."""
    parts = endpoint_id.split("/")
    if not ENDPOINT_ID.fullmatch(endpoint_id) or {".", "..", "requests"} & set(parts):
        raise InvalidRequestError(f"{endpoint_id!r} is not a fal endpoint: it must look like {TEXT_TO_VIDEO.id!r}.")
    return "/".join(parts[:2])


def sha256_of(arguments: dict[str, Any]) -> str:
    """Return the hash of the canonical JSON.

    It has sorted keys, and whole numbers without a fraction, as a server may give them back.
    """
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in arguments.items()
    }
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
