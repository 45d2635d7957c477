import time
from typing import TYPE_CHECKING, Any

from comfy_api.latest import Input, io

from ..pipeline.request import GenerationRequest, Prompt, SamplerSettings
from .sockets import (
    CATEGORY,
    DEFAULT_NEW_FRAMES,
    DEFAULT_OVERLAP,
    CosmosModel,
    CosmosPrompt,
    CosmosSettings,
    extend_inputs,
    extend_outputs,
)

if TYPE_CHECKING:
    from .host.memory import HostedModel


class CosmosPredict25Extend(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Extend",
            display_name="Extend Video Locally (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Continues a video from its end with Cosmos-Predict2.5 on this machine, beyond the model's "
            "maximum length.",
            search_aliases=["cosmos", "nvidia", "extend video", "video to video", "v2v", "continue", "longer video"],
            inputs=[
                CosmosModel.Input("model", lazy=True, tooltip="From the Model Loader."),
                CosmosPrompt.Input(
                    "prompt",
                    tooltip="From the Prompt node: what happens next. Several Extend nodes in a row can each have "
                    "their own prompt.",
                ),
                CosmosSettings.Input(
                    "settings",
                    tooltip="From the Sampler Settings node. num_frames is the maximum length of a segment. Later "
                    "segments use the following seeds.",
                ),
                *extend_inputs(
                    video="The video to continue, or images at 16 fps. They are kept unchanged, or scaled and "
                    "center-cropped if width and height differ.",
                    new_frames="The number of frames to add, at 16 fps: 88 are one segment of 5.5 seconds. Each "
                    "segment starts from the end of the one before. After about three, the quality drops.",
                ),
                io.Boolean.Input(
                    "even_parts",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Makes all segments equally long. When off, all but the last have num_frames frames: the "
                    "model was trained on 93.",
                ),
            ],
            outputs=extend_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def check_lazy_status(cls, **_) -> list[str]:
        """Load the model when all else has been found to be right."""
        return ["model"]

    @classmethod
    def execute(
        cls,
        model: "HostedModel",
        prompt: Prompt,
        settings: SamplerSettings,
        video: Input.Video | Input.Image,
        new_frames: int = DEFAULT_NEW_FRAMES,
        overlap: int = DEFAULT_OVERLAP,
        even_parts: bool = False,
    ) -> io.NodeOutput:
        from ..pipeline.local.extend import extend, plan_for_parts
        from ..pipeline.local.generate import clamp_request
        from ..pipeline.local.guardrail import cosmos_guardrail
        from .host.clips import clip_of, extended_videos
        from .host.notes import describe, made_with, notes_on_source, notes_on_video, while_making
        from .host.observers import NodeObserver
        from .host.output import result_on_node

        begin, asked = time.monotonic(), GenerationRequest.combine(prompt, settings)
        request = clamp_request(asked, model.model.transformer)
        overlap = model.model.variant.overlap_of(overlap)
        plan = plan_for_parts(model.model, request, new_frames, overlap, model, even_parts)
        clip, audio = clip_of(video, NodeObserver(cls.hidden.unique_id).raise_if_stopped, model.model.variant.fps)
        observer = NodeObserver(cls.hidden.unique_id, model, while_making(model, plan, asked, clip))
        options: Any = {"placement": model, "plan": plan, "observer": observer, "prompts": model.prompts}
        options |= {"overlap": overlap, "even_parts": even_parts}
        checker = cosmos_guardrail if model.guardrail else None
        made = extend(model.model, request, clip, new_frames, guardrail=checker, **options)
        summary = f"{made.summary} in {time.monotonic() - begin:.0f} s, seed {made.seed}."
        notes = [*describe(plan), *notes_on_source(clip, made), *notes_on_video(model, asked, clip)]
        values = {**made_with(model, prompt, settings, made), "overlap": overlap, "even_parts": even_parts}
        videos = extended_videos(made, clip, audio, values)
        return io.NodeOutput(*videos, made.seed, ui=result_on_node(summary, *notes))
