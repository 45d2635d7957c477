import logging
import time
from dataclasses import asdict, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from comfy_api.latest import InputImpl, Types, io

from ..pipeline.request import NUM_FRAMES, SIDE, GenerationRequest, Prompt, SamplerSettings
from .sockets import CATEGORY, CosmosModel, CosmosPrompt, CosmosSettings

if TYPE_CHECKING:
    from .host.memory import HostedModel


class CosmosPredict25Generate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Generate",
            display_name="Generate Locally (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Makes a video from text with Cosmos-Predict2.5 on this machine.",
            search_aliases=["cosmos", "nvidia", "text to video", "t2v", "video generation", "world model"],
            inputs=[
                CosmosModel.Input("model", lazy=True, tooltip="From the Model Loader."),
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
    def check_lazy_status(cls, **_) -> list[str]:
        """The model is loaded when prompt and settings have been found to be right."""
        return ["model"]

    @classmethod
    def execute(cls, model: "HostedModel", prompt: Prompt, settings: SamplerSettings) -> io.NodeOutput:
        from ..pipeline.local.generate import clamp_request, generate, plan_for
        from ..pipeline.local.guardrail import cosmos_guardrail
        from ..pipeline.local.plan import UNLIMITED
        from .host.observers import NodeObserver
        from .host.output import result_on_node
        from .host.videos import with_values

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
        made = f"{len(video.frames)} frames of {request.width}x{request.height} in {time.monotonic() - start:.0f} s"
        result = result_on_node(f"{made}, seed {video.seed}.", *filter(None, [note]), *notes_on_video(model, asked))
        components = Types.VideoComponents(images=video.frames, frame_rate=Fraction(video.fps))
        values = {"checkpoint": model.model.name, **asdict(prompt), **asdict(settings), "seed": video.seed}
        values |= {"num_frames": len(video.frames), "width": request.width, "height": request.height}
        shown = with_values(InputImpl.VideoFromComponents(components), values)
        return io.NodeOutput(shown, {"samples": video.latents}, video.seed, ui=result)


def notes_on_video(hosted: "HostedModel", asked: GenerationRequest) -> list[str]:
    """What the video does not have of that which was asked for, and why."""
    from ..pipeline.local.encode import MAX_TOKENS, word_at_the_cut
    from ..pipeline.local.generate import clamp_request
    from ..pipeline.local.load.find import DEMO_FOLDER, names_a_demo_shape

    model, found = hosted.model, []
    largest = replace(asked, num_frames=NUM_FRAMES.maximum, width=SIDE.maximum, height=SIDE.maximum)
    most = clamp_request(largest, model.transformer)
    if clamp_request(asked, model.transformer) != asked:
        found.append(f"This checkpoint makes at most {most.width}x{most.height} and {most.num_frames} frames.")
    if model.name == DEMO_FOLDER.name and not names_a_demo_shape(asked.prompt):
        found.append("The demo draws only circles, squares and triangles, and the prompt names none.")
    for name in ("prompt", "negative_prompt"):
        if word := word_at_the_cut(model.tokenizer, getattr(asked, name)):
            found.append(f"{name} was cut at {MAX_TOKENS} tokens, at the word {word!r}.")
    return found
