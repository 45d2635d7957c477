"""Shared by the nodes: search aliases, the pack's own socket types, and inputs that several nodes have."""

from comfy_api.latest import io

from ..pipeline.request import NEW_FRAMES, SIDE, SamplerSettings

CATEGORY = "Cosmos Predict2.5"

VIDEO_ALIASES = [
    "\u6587\u751f\u89c6\u9891",  # Chinese: text to video
    "\u56fe\u751f\u89c6\u9891",  # Chinese: image to video
    "\u6587\u751f\u5f71\u7247",  # in Taiwan: text to video
    "\u5716\u751f\u5f71\u7247",  # in Taiwan: image to video
    "\u52d5\u753b\u751f\u6210",  # Japanese: video generation
]
"""Search terms for a node that makes videos. Escaped, so that any Windows console can print this file."""

UPLOADED = "It is uploaded to fal without its name. For a day, anyone with its URL can see it."
DEFAULT_NEW_FRAMES = 88
DEFAULT_OVERLAP = 5

CosmosPrompt = io.Custom("COSMOS_PROMPT")
"""A `pipeline.request.Prompt`."""

CosmosSettings = io.Custom("COSMOS_SETTINGS")
"""A `pipeline.request.SamplerSettings`."""

CosmosModel = io.Custom("COSMOS_MODEL")
"""A `nodes.host.memory.HostedModel`."""


def side_inputs(more: str = "") -> list[io.Int.Input]:
    """Return the widgets for width and height. `more`: appended to the tooltip's last sentence."""
    return [
        io.Int.Input(
            side,
            default=getattr(SamplerSettings(), side),
            min=SIDE.minimum,
            max=SIDE.maximum,
            step=SIDE.step,
            tooltip="In pixels, a multiple of 16. Time and memory grow with the size. The model was trained on "
            f"1280 x 704{more}.",
        )
        for side in ("width", "height")
    ]


def allow_many_jobs_input() -> io.Boolean.Input:
    """Return the switch of a node that sends jobs to fal."""
    return io.Boolean.Input(
        "allow_many_jobs",
        default=False,
        optional=True,
        advanced=True,
        tooltip="Off: a run of the graph that would send more than 10 jobs to fal, as with a list of prompts, is "
        "refused before it costs anything.",
    )


def extend_inputs(video: str, new_frames: str, lazy: bool = False) -> list[io.Input]:
    """Return the inputs of a node that extends a video. `video`, `new_frames`: tooltips. `lazy`: of the video."""
    return [
        io.MultiType.Input("video", types=[io.Video, io.Image], lazy=lazy, tooltip=video),
        io.Int.Input(
            "new_frames",
            default=DEFAULT_NEW_FRAMES,
            min=NEW_FRAMES.minimum,
            max=NEW_FRAMES.maximum,
            tooltip=new_frames,
        ),
        io.Int.Input(
            "overlap",
            default=DEFAULT_OVERLAP,
            min=1,
            max=DEFAULT_OVERLAP,
            step=4,
            advanced=True,
            tooltip="The number of last frames that the model sees: 5, or 1 (movement is not continued).",
        ),
    ]


def extend_outputs() -> list[io.Output]:
    """Return the outputs of a node that extends a video."""
    return [
        io.Video.Output("video", tooltip="The source and its continuation, at 16 fps, with the source's sound."),
        io.Video.Output("added", tooltip="The continuation alone."),
        io.Int.Output("seed", tooltip="The seed of the first segment."),
    ]
