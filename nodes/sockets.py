"""What the nodes share: how they are found, and what travels between them for which ComfyUI has no type."""

from comfy_api.latest import io

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
