"""The extension: the list of nodes. What needs torch, diffusers or transformers is imported later."""

from comfy_api.latest import ComfyExtension, io

from .apply_attention import CosmosPredict25ApplyAttention
from .checkpoint_loader import CosmosPredict25CheckpointLoader
from .empty_latent import CosmosPredict25EmptyLatent
from .export_video import CosmosPredict25ExportVideo
from .extend_fal import CosmosPredict25ExtendFal
from .extend_local import CosmosPredict25Extend
from .generate_fal import CosmosPredict25GenerateFal
from .generate_local import CosmosPredict25Generate
from .loader import CosmosPredict25Loader
from .lora import CosmosPredict25LoraLoader
from .prompt import CosmosPredict25Prompt
from .sampler import CosmosPredict25Sampler
from .settings import CosmosPredict25SamplerSettings
from .start_latent import CosmosPredict25StartLatent


class CosmosPredict25Extension(ComfyExtension):
    async def on_load(self) -> None:
        """Fetch videos on fal that were paid for before ComfyUI ended, and let pages ask for slow imports."""
        from .host.past_jobs import fetch_in_background
        from .host.preload import add_route

        fetch_in_background()
        add_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CosmosPredict25Prompt,
            CosmosPredict25SamplerSettings,
            CosmosPredict25Loader,
            CosmosPredict25LoraLoader,
            CosmosPredict25Generate,
            CosmosPredict25Extend,
            CosmosPredict25GenerateFal,
            CosmosPredict25ExtendFal,
            CosmosPredict25ExportVideo,
            CosmosPredict25CheckpointLoader,
            CosmosPredict25EmptyLatent,
            CosmosPredict25StartLatent,
            CosmosPredict25Sampler,
            CosmosPredict25ApplyAttention,
        ]
