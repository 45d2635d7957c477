import time
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING

from comfy_api.latest import Input, InputImpl, Types, io

from ..pipeline.request import FPS, NEW_FRAMES, GenerationRequest, Prompt, SamplerSettings
from .sockets import CATEGORY, CosmosModel, CosmosPrompt, CosmosSettings

if TYPE_CHECKING:
    from ..pipeline.start import Start
    from .host.memory import HostedModel

DEFAULT_NEW_FRAMES = 88
DEFAULT_OVERLAP = 5


class CosmosPredict25Extend(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25Extend",
            display_name="Extend Video Locally (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Goes on from the end of a video with Cosmos-Predict2.5 on this machine, for longer than the "
            "model makes at once.",
            search_aliases=["cosmos", "nvidia", "extend video", "video to video", "v2v", "continue", "longer video"],
            inputs=[
                CosmosModel.Input("model", lazy=True, tooltip="From the Model Loader."),
                CosmosPrompt.Input(
                    "prompt",
                    tooltip="What is to happen next, from the Prompt node. Several Extend nodes in a row can have "
                    "another prompt each.",
                ),
                CosmosSettings.Input(
                    "settings",
                    tooltip="From the Sampler Settings node. num_frames is the most that is made at once; further "
                    "parts have the seeds after this one.",
                ),
                io.MultiType.Input(
                    "video",
                    types=[io.Video, io.Image],
                    tooltip="The video to go on from, or images, 16 a second. They are kept as they are, or scaled and "
                    "cropped in the middle where width and height are others.",
                ),
                io.Int.Input(
                    "new_frames",
                    default=DEFAULT_NEW_FRAMES,
                    min=NEW_FRAMES.minimum,
                    max=NEW_FRAMES.maximum,
                    tooltip="Frames to add, at 16 a second: 88 are one part and 5.5 seconds. Each part starts from the "
                    "end of the one before; after three or so the quality drops.",
                ),
                io.Int.Input(
                    "overlap",
                    default=DEFAULT_OVERLAP,
                    min=1,
                    max=DEFAULT_OVERLAP,
                    step=4,
                    advanced=True,
                    tooltip="How many of the last frames the model is given: 5, or 1, with which movement starts anew.",
                ),
                io.Boolean.Input(
                    "even_parts",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Share new_frames out evenly among the parts. Off, all parts but the last have num_frames "
                    "frames: the model was trained on 93.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    "video", tooltip="The source and what follows it, at 16 frames a second, with the source's sound."
                ),
                io.Video.Output("added", tooltip="What follows it alone."),
                io.Int.Output("seed", tooltip="The seed that was used for the first part."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def check_lazy_status(cls, **_) -> list[str]:
        """The model is loaded when all else has been found to be right."""
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
        from .generate_local import describe, notes_on_video
        from .host.observers import NodeObserver
        from .host.output import result_on_node
        from .host.videos import components_of, start_of, with_values

        begin = time.monotonic()
        asked = GenerationRequest.combine(prompt, settings)
        request = clamp_request(asked, model.model.transformer)
        source = components_of(video)
        start = start_of(source)
        plan = plan_for_parts(model.model, request, start, new_frames, overlap, model, even_parts)
        note = describe(plan)
        made = extend(
            model.model,
            request,
            start,
            new_frames,
            overlap=overlap,
            even_parts=even_parts,
            placement=model,
            plan=plan,
            observer=NodeObserver(cls.hidden.unique_id, model, note),
            guardrail=cosmos_guardrail if model.guardrail else None,
            prompts=model.prompts,
        )
        summary = f"{new_frames} frames added to {len(made.frames) - new_frames} in {time.monotonic() - begin:.0f} s"
        notes = [*filter(None, [note]), *notes_on_source(start, request), *notes_on_video(model, asked, start)]
        joined = Types.VideoComponents(made.frames, Fraction(FPS), sound_from(source.audio, start.skipped()))
        added = Types.VideoComponents(made.added, Fraction(FPS))
        values = {"checkpoint": model.model.name, **asdict(prompt), **asdict(settings), "seed": made.seed}
        values |= {"num_frames": len(made.frames), "width": request.width, "height": request.height}
        values |= {"new_frames": new_frames, "overlap": overlap, "even_parts": even_parts}
        return io.NodeOutput(
            with_values(InputImpl.VideoFromComponents(joined), values),
            with_values(InputImpl.VideoFromComponents(added), {**values, "num_frames": new_frames}),
            made.seed,
            ui=result_on_node(f"{summary}, seed {made.seed}.", *notes),
        )


def sound_from(audio: Input.Audio | None, seconds: Fraction) -> Input.Audio | None:
    """`audio` without the first `seconds` of it."""
    if audio is None:
        return None
    return {**audio, "waveform": audio["waveform"][..., round(seconds * audio["sample_rate"]) :]}


def notes_on_source(start: "Start", request: GenerationRequest) -> Iterator[str]:
    """What had to be done to the frames that are kept."""
    height, width = start.frames.shape[1:3]
    if (width, height) != (request.width, request.height):
        yield f"The source was scaled and cropped from {width}x{height} to {request.width}x{request.height}."
    if start.frame_rate != FPS:
        yield f"The source's {float(start.frame_rate):.5g} frames a second became {FPS}."
