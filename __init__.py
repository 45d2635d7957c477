"""ComfyUI nodes for NVIDIA Cosmos-Predict2.5. ComfyUI loads this file; everything else is imported from here on."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import CosmosPredict25Extension

    return CosmosPredict25Extension()
