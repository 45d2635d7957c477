"""What travels between this pack's own nodes, for which ComfyUI has no type."""

from comfy_api.latest import io

CATEGORY = "Cosmos Predict2.5"

CosmosPrompt = io.Custom("COSMOS_PROMPT")
"""A `pipeline.request.Prompt`."""

CosmosSettings = io.Custom("COSMOS_SETTINGS")
"""A `pipeline.request.SamplerSettings`."""

CosmosModel = io.Custom("COSMOS_MODEL")
"""A `nodes.host.memory.HostedModel`."""
