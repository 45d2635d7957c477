import logging
import time
from dataclasses import asdict, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from comfy_api.latest import Input, InputImpl, Types, io

from ..pipeline.errors import InvalidRequestError
from ..pipeline.request import FPS, NUM_FRAMES, SIDE, GenerationRequest, Prompt, SamplerSettings
from .sockets import CATEGORY, VIDEO_ALIASES, CosmosModel, CosmosPrompt, CosmosSettings

if TYPE_CHECKING:
    from ..pipeline.local.plan import Plan
    from ..pipeline.start import Start
    from .host.memory import HostedModel


class CosmosPredict25Generate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Generate",
            display_name="Generate Locally (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Makes a video from text, or from text and a picture or clip to start from, with "
            "Cosmos-Predict2.5 on this machine.",
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
                    tooltip="The picture that the video begins with. It is scaled and cropped in the middle to width x "
                    "height. Several are a clip of 16 frames a second.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The clip that the video goes on from: it begins with the clip's last 5 frames at 16 a "
                    "second. Extend Video keeps the whole clip.",
                ),
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
    def check_lazy_status(cls, image: Input.Image | None = None, video: Input.Video | None = None, **_) -> list[str]:
        """The model is loaded when all else has been found to be right."""
        if image is not None and video is not None:
            raise InvalidRequestError("Both image and video are connected: a video starts from one of them.")
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
        from ..pipeline.local.generate import clamp_request, generate, plan_for
        from ..pipeline.local.guardrail import cosmos_guardrail
        from ..pipeline.start import Start
        from .host.observers import NodeObserver
        from .host.output import result_on_node
        from .host.videos import end_of, with_values

        begin = time.monotonic()
        start = Start(image) if image is not None else end_of(video) if video is not None else None
        asked = GenerationRequest.combine(prompt, settings)
        request = clamp_request(asked, model.model.transformer)
        plan = plan_for(model.model, request, model, len(start.given()) if start else 0)
        note = describe(plan)
        made = generate(
            model.model,
            request,
            start=start,
            placement=model,
            plan=plan,
            observer=NodeObserver(cls.hidden.unique_id, model, note),
            guardrail=cosmos_guardrail if model.guardrail else None,
            prompts=model.prompts,
            unfinished=model.unfinished,
        )
        summary = f"{len(made.frames)} frames of {request.width}x{request.height} in {time.monotonic() - begin:.0f} s"
        notes = notes_on_video(model, asked, start)
        result = result_on_node(f"{summary}, seed {made.seed}.", *filter(None, [note]), *notes)
        components = Types.VideoComponents(images=made.frames, frame_rate=Fraction(made.fps))
        values = {"checkpoint": model.model.name, **asdict(prompt), **asdict(settings), "seed": made.seed}
        values |= {"num_frames": len(made.frames), "width": request.width, "height": request.height}
        shown = with_values(InputImpl.VideoFromComponents(components), values)
        return io.NodeOutput(shown, {"samples": made.latents}, made.seed, ui=result)


def describe(plan: "Plan") -> str:
    """The plan for the node, and in the console; nothing where memory has no limit."""
    from ..pipeline.local.plan import UNLIMITED

    if plan.memory == UNLIMITED:
        return ""
    logging.info(f"Cosmos Predict2.5: {plan.describe()}")
    return plan.describe()


def notes_on_video(hosted: "HostedModel", asked: GenerationRequest, start: "Start | None") -> list[str]:
    """What the video does not have of that which was asked for, and why."""
    from ..pipeline.local.encode import MAX_TOKENS, word_at_the_cut
    from ..pipeline.local.generate import clamp_request
    from ..pipeline.local.load.find import DEMO_FOLDER, names_a_demo_shape
    from ..pipeline.start import CLIP_FRAMES

    model, found = hosted.model, []
    largest = replace(asked, num_frames=NUM_FRAMES.maximum, width=SIDE.maximum, height=SIDE.maximum)
    most = clamp_request(largest, model.transformer)
    if clamp_request(asked, model.transformer) != asked:
        found.append(f"This checkpoint makes at most {most.width}x{most.height} and {most.num_frames} frames.")
    if warning := model.variant.warning(asked.schedule):
        found.append(warning)
    if model.name == DEMO_FOLDER.name and not names_a_demo_shape(asked.prompt):
        found.append("The demo draws only circles, squares and triangles, and the prompt names none.")
    for name in ("prompt", "negative_prompt"):
        if word := word_at_the_cut(model.tokenizer, getattr(asked, name)):
            found.append(f"{name} was cut at {MAX_TOKENS} tokens, at the word {word!r}.")
    if start and start.is_short():
        found.append(f"The clip has fewer than {CLIP_FRAMES} frames at {FPS} a second: only its last one was used.")
    return found
