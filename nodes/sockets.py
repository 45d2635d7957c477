"""What the nodes share: how they are found, what travels between them for which ComfyUI has no type, and widgets."""

from comfy_api.latest import io

from ..pipeline.request import SIDE, SamplerSettings

CATEGORY = "Cosmos Predict2.5"

VIDEO_ALIASES = [
    "\u6587\u751f\u89c6\u9891",  # Chinese: text to video
    "\u56fe\u751f\u89c6\u9891",  # Chinese: image to video
    "\u6587\u751f\u5f71\u7247",  # in Taiwan: text to video
    "\u5716\u751f\u5f71\u7247",  # in Taiwan: image to video
    "\u52d5\u753b\u751f\u6210",  # Japanese: video generation
]
"""How a node that makes videos is searched for. Escaped, so that any Windows console can print this file."""

CosmosPrompt = io.Custom("COSMOS_PROMPT")
"""A `pipeline.request.Prompt`."""

CosmosSettings = io.Custom("COSMOS_SETTINGS")
"""A `pipeline.request.SamplerSettings`."""

CosmosModel = io.Custom("COSMOS_MODEL")
"""A `nodes.host.memory.HostedModel`."""


def side_inputs(more: str = "") -> list[io.Int.Input]:
    """The widgets for the width and the height of a video. `more`: what follows the size of training in the tooltip."""
    return [
        io.Int.Input(
            side,
            default=getattr(SamplerSettings(), side),
            min=SIDE.minimum,
            max=SIDE.maximum,
            step=SIDE.step,
            tooltip="Pixels, a multiple of 16. Time and memory grow with the size. The model was trained on "
            f"1280 x 704{more}.",
        )
        for side in ("width", "height")
    ]
