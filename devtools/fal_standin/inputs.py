"""What the endpoints accept, and what the service says to anything else."""

from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT


class Distilled(BaseModel):
    prompt: str
    negative_prompt: str = DEFAULT_NEGATIVE_PROMPT
    num_frames: int = Field(93, ge=9, le=93)
    num_inference_steps: int = Field(10, ge=1, le=20)
    seed: int | None = None
    sync_mode: bool = False
    video_output_type: Literal["X264 (.mp4)", "VP9 (.webm)", "PRORES4444 (.mov)", "GIF (.gif)"] = "X264 (.mp4)"
    video_quality: Literal["low", "medium", "high", "maximum"] = "high"


class Full(Distilled):
    num_inference_steps: int = Field(35, ge=1, le=50)
    guidance_scale: float = Field(7.0, ge=1, le=20)


class Image(Full):
    image_url: str


class Video(Full):
    video_url: str


ENDPOINTS: dict[str, type[Distilled]] = {
    "fal-ai/cosmos-predict-2.5/text-to-video": Full,
    "fal-ai/cosmos-predict-2.5/image-to-video": Image,
    "fal-ai/cosmos-predict-2.5/video-to-video": Video,
    "fal-ai/cosmos-predict-2.5/distilled/text-to-video": Distilled,
}


def errors_in(endpoint: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a 422, none when the input is valid."""
    try:
        ENDPOINTS[endpoint].model_validate(body)
    except ValidationError as error:
        return [{**item, "loc": ["body", *item["loc"]]} for item in error.errors()]
    return []


def with_defaults(endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    """A valid input with the fields that were left out."""
    return ENDPOINTS[endpoint].model_validate(body).model_dump()
