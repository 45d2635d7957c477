from comfy_api.latest import io

from ..pipeline.request import FPS, NUM_FRAMES, Range, SamplerSettings, check_range
from .sockets import CATEGORY, side_inputs

DEFAULTS = SamplerSettings()
LENGTH = Range(NUM_FRAMES.minimum, 16381)
"""As many frames as ComfyUI's own empty latents have. What runs at once is checked when it does."""


class CosmosPredict25EmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25EmptyLatent",
            display_name="Empty Latent (Cosmos Predict2.5)",
            category=CATEGORY,
            description="The length and size of a video, for KSampler and Sampler Custom Advanced.",
            search_aliases=["cosmos", "nvidia", "empty latent video", "resolution", "frames", "length"],
            inputs=[
                *side_inputs(),
                io.Int.Input(
                    "num_frames",
                    default=DEFAULTS.num_frames,
                    min=LENGTH.minimum,
                    max=LENGTH.maximum,
                    step=4,
                    tooltip=f"The number of frames, at {FPS} fps: 93 are 5.8 seconds, the most at once. A longer video "
                    "needs Wan Context Windows between the loader and the sampler. The model makes 4k+1 frames (9, "
                    "13, ... 93). Another number is rounded up to the next of these.",
                ),
            ],
            outputs=[io.Latent.Output("latent", tooltip="An empty latent in the shape of the video.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, num_frames: int) -> io.NodeOutput:
        import torch
        from comfy import model_management

        from ..pipeline.local.latents import LATENT_CHANNELS, SPATIAL_COMPRESSION, latent_frames

        SamplerSettings(width=width, height=height)  # refuses what is out of its limits
        check_range("num_frames", num_frames, LENGTH)
        shape = (
            1,
            LATENT_CHANNELS,
            latent_frames(num_frames),
            height // SPATIAL_COMPRESSION,
            width // SPATIAL_COMPRESSION,
        )
        samples = torch.zeros(shape, device=model_management.intermediate_device())
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": SPATIAL_COMPRESSION})
