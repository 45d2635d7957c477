from typing import TYPE_CHECKING, Any

from comfy_api.latest import Input, io

from ..pipeline.errors import InvalidRequestError
from .sockets import CATEGORY

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipeline.start import Start


class CosmosPredict25StartLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25StartLatent",
            display_name="Start Latent (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Starts a video of KSampler or Sampler Custom Advanced from a picture or a clip.",
            search_aliases=["cosmos", "nvidia", "image to video", "i2v", "video to video", "v2v", "start image"],
            inputs=[
                io.Model.Input("model", tooltip="From the Checkpoint Loader, for the scale of its latents."),
                io.Vae.Input("vae", tooltip="From the Checkpoint Loader, or the Wan 2.1 VAE."),
                io.Latent.Input("latent", tooltip="From Empty Latent (Cosmos Predict2.5): the size and length."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The first frame of the video, scaled and center-cropped. Several images are a clip at 16 "
                    "fps.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The clip to continue. The video begins with the clip's last 5 frames at 16 fps.",
                ),
            ],
            outputs=[io.Latent.Output("latent", tooltip="The first frames, and a mask of the frames to generate.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        latent: dict[str, Any],
        image: Input.Image | None = None,
        video: Input.Video | None = None,
    ) -> io.NodeOutput:
        import torch

        from .host.clips import start_from

        if (image is None) == (video is None):
            raise InvalidRequestError("Connect image or video: the video must start from one of them.")
        start = start_from(image, video)
        assert start
        if variant := getattr(model.model.model_config, "variant", None):
            start = variant.start_of(start)
        known = encode_start(start, vae, latent["samples"])
        # ComfyUI converts all of a latent that is not empty: what is to be made has to become 0 in the model's scale.
        samples = model.get_model_object("latent_format").process_out(torch.zeros_like(latent["samples"]))
        mask = torch.ones_like(samples[:, :1])
        samples[:, :, : known.shape[2]], mask[:, :, : known.shape[2]] = known, 0
        return io.NodeOutput({**latent, "samples": samples, "noise_mask": mask})


def encode_start(start: "Start", vae: Any, latents: "Tensor") -> "Tensor":
    """Return the first latent frames of `latents`. Raises `InvalidRequestError` for another model's latents or VAE."""
    from ..pipeline.local.latents import LATENT_CHANNELS, SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, latent_frames

    height, width = (SPATIAL_COMPRESSION * side for side in latents.shape[-2:])
    frames = start.conditioning_frames(width, height)
    shape, given = tuple(latents.shape), latent_frames(len(frames))
    if len(shape) != 5 or shape[1] != LATENT_CHANNELS or shape[2] <= given:
        raise InvalidRequestError(
            f"The latent's shape is {shape}, but must be (1, {LATENT_CHANNELS}, more than {given}, height/8, "
            f"width/8): the start is {given} of its latent frames. Connect Empty Latent (Cosmos Predict2.5), with "
            f"at least {given * TEMPORAL_COMPRESSION + 1} frames."
        )
    known = vae.encode(frames).to(latents)
    if (found := tuple(known.shape)) != (wanted := (1, LATENT_CHANNELS, given, *shape[-2:])):
        raise InvalidRequestError(
            f"The VAE gives a latent of the shape {found}, but must give {wanted}: connect the VAE of the "
            "Checkpoint Loader (Cosmos Predict2.5), or the Wan 2.1 VAE."
        )
    return known
