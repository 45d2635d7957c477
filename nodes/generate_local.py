import time
from typing import TYPE_CHECKING, Any

from comfy_api.latest import Input, io

from ..pipeline.request import GenerationRequest, Prompt, SamplerSettings
from .sockets import CATEGORY, VIDEO_ALIASES, CosmosModel, CosmosPrompt, CosmosSettings

if TYPE_CHECKING:
    from .host.memory import HostedModel


class CosmosPredict25Generate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Generate",
            display_name="Generate Locally (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Makes a video with Cosmos-Predict2.5 on this machine, from text alone, or from text and a "
            "picture or clip to start from.",
            search_aliases=[
                "cosmos",
                "nvidia",
                "text to video",
                "t2v",
                "image to video",
                "i2v",
                "video to video",
                "v2v",
                "video generation",
                "world model",
                *VIDEO_ALIASES,
            ],
            inputs=[
                CosmosModel.Input("model", lazy=True, tooltip="From the Model Loader."),
                CosmosPrompt.Input("prompt", tooltip="From the Prompt node."),
                CosmosSettings.Input("settings", tooltip="From the Sampler Settings node."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The first frame of the video. It is scaled and center-cropped to width x height. Several "
                    "images are a clip at 16 fps.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The clip to continue. The video begins with the clip's last 5 frames at 16 fps. Extend "
                    "Video keeps the whole clip.",
                ),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The video, at 16 fps."),
                io.Latent.Output(
                    "latent",
                    tooltip="The video's latents. VAE Decode with the Wan 2.1 VAE gives the same frames, and also the "
                    "ones that were dropped because num_frames is not 4k+1.",
                ),
                io.Int.Output("seed", tooltip="The seed of this video."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def check_lazy_status(cls, image: Input.Image | None = None, video: Input.Video | None = None, **_) -> list[str]:
        """Load the model when all else has been found to be right."""
        from .host.clips import refuse_two_starts

        refuse_two_starts(image is not None and video is not None)
        return ["model"]

    @classmethod
    def execute(
        cls,
        model: "HostedModel",
        prompt: Prompt,
        settings: SamplerSettings,
        image: Input.Image | None = None,
        video: Input.Video | None = None,
    ) -> io.NodeOutput:
        from ..pipeline.local.generate import generate, prepare
        from ..pipeline.local.guardrail import cosmos_guardrail
        from .host.clips import start_from, video_from
        from .host.notes import describe, made_with, notes_on_video, while_making
        from .host.observers import NodeObserver
        from .host.output import result_on_node
        from .host.videos import with_values

        begin, start = time.monotonic(), start_from(image, video)
        asked = GenerationRequest.combine(prompt, settings)
        prepared = prepare(model.model, asked, start, model)
        request = prepared.request
        observer = NodeObserver(cls.hidden.unique_id, model, while_making(model, prepared.plan, asked, start))
        options: Any = {"placement": model, "plan": prepared.plan, "observer": observer, "prompts": model.prompts}
        options |= {"guardrail": cosmos_guardrail if model.guardrail else None, "unfinished": model.unfinished}
        made = generate(model.model, request, start=start, **options)
        size = f"{len(made.frames)} frames of {request.width}x{request.height}"
        summary = f"{size} in {time.monotonic() - begin:.0f} s, seed {made.seed}."
        notes = [*describe(prepared.plan), *(start.notes if start else ()), *notes_on_video(model, asked, start)]
        result = result_on_node(summary, *notes)
        shown = with_values(video_from(made.frames, made.fps), made_with(model, prompt, settings, made))
        return io.NodeOutput(shown, {"samples": made.latents}, made.seed, ui=result)
