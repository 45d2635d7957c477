"""The extension: the list of nodes. What needs torch, diffusers or transformers is imported when a node runs."""

from comfy_api.latest import ComfyExtension, io

from .export_video import CosmosPredict25ExportVideo
from .extend_local import CosmosPredict25Extend
from .generate_fal import CosmosPredict25GenerateFal
from .generate_local import CosmosPredict25Generate
from .loader import CosmosPredict25Loader
from .prompt import CosmosPredict25Prompt
from .settings import CosmosPredict25SamplerSettings


class CosmosPredict25Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CosmosPredict25Prompt,
            CosmosPredict25SamplerSettings,
            CosmosPredict25Loader,
            CosmosPredict25Generate,
            CosmosPredict25Extend,
            CosmosPredict25GenerateFal,
            CosmosPredict25ExportVideo,
        ]
