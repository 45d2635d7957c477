import logging
import time
from fractions import Fraction
from typing import TYPE_CHECKING

from comfy_api.latest import InputImpl, Types, io

from ..pipeline.request import GenerationRequest, Prompt, SamplerSettings
from .sockets import CATEGORY, CosmosModel, CosmosPrompt, CosmosSettings

if TYPE_CHECKING:
    from .host.memory import HostedModel


class CosmosPredict25Generate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Generate",
            display_name="Cosmos Predict2.5 Generate (Local)",
            category=CATEGORY,
            description="Makes a video from text with Cosmos-Predict2.5 on this machine.",
            search_aliases=["cosmos", "nvidia", "text to video", "t2v", "video generation", "world model"],
            inputs=[
                CosmosModel.Input("model", tooltip="From the Model Loader."),
                CosmosPrompt.Input("prompt", tooltip="From the Prompt node."),
                CosmosSettings.Input("settings", tooltip="From the Sampler Settings node."),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The video, 16 frames a second."),
                io.Latent.Output(
                    "latent",
                    tooltip="The video's latents. VAE Decode with the Wan 2.1 VAE makes the same frames of them, and "
                    "those that were cut when num_frames is not 4k+1.",
                ),
                io.Int.Output("seed", tooltip="The seed that was used."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: "HostedModel", prompt: Prompt, settings: SamplerSettings) -> io.NodeOutput:
        from ..pipeline.local.generate import clamp_request, generate, plan_for
        from ..pipeline.local.guardrail import cosmos_guardrail
        from ..pipeline.local.plan import UNLIMITED
        from .host.observers import NodeObserver, show_text

        start = time.monotonic()
        asked = GenerationRequest.combine(prompt, settings)
        request = clamp_request(asked, model.model.transformer)
        plan = plan_for(model.model, request, model)
        note = plan.describe() if plan.memory != UNLIMITED else ""
        if note:
            logging.info(f"Cosmos Predict2.5: {note}")
        video = generate(
            model.model,
            request,
            placement=model,
            plan=plan,
            observer=NodeObserver(cls.hidden.unique_id, model.device, note),
            guardrail=cosmos_guardrail if model.guardrail else None,
            prompts=model.prompts,
            unfinished=model.unfinished,
        )
        made = f"{len(video.frames)} frames in {time.monotonic() - start:.0f} s, seed {video.seed}"
        if request != asked:
            most = f"{request.width}x{request.height} and {request.num_frames} frames"
            made += f". {most} are the most that this checkpoint makes"
        show_text("\n".join(filter(None, [made, note])), cls.hidden.unique_id)
        components = Types.VideoComponents(images=video.frames, frame_rate=Fraction(video.fps))
        return io.NodeOutput(InputImpl.VideoFromComponents(components), {"samples": video.latents}, video.seed)
