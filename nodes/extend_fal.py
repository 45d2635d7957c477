from dataclasses import replace
from fractions import Fraction

from comfy_api.latest import Input, InputImpl, Types, io

from ..pipeline.request import FPS, NEW_FRAMES, GenerationRequest, Prompt, SamplerSettings
from .extend_local import DEFAULT_NEW_FRAMES, DEFAULT_OVERLAP, notes_on_source, sound_from
from .generate_fal import UPLOADED
from .sockets import CATEGORY, CosmosPrompt, CosmosSettings


class CosmosPredict25ExtendFal(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25ExtendFal",
            display_name="Extend Video on fal (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Goes on from the end of a video with Cosmos-Predict2.5 on fal.ai, for money, in at most 5 "
            "parts. The key comes from the environment variable FAL_KEY.",
            search_aliases=["cosmos", "nvidia", "fal", "extend video", "video to video", "v2v", "continue"],
            inputs=[
                CosmosPrompt.Input("prompt", lazy=True, tooltip="What is to happen next, from the Prompt node."),
                CosmosSettings.Input(
                    "settings",
                    lazy=True,
                    tooltip="From the Sampler Settings node. num_frames is the most that a part has; further parts "
                    "have the seeds after this one. fal makes 1280 x 704, whatever width and height say.",
                ),
                io.MultiType.Input(
                    "video",
                    types=[io.Video, io.Image],
                    lazy=True,
                    tooltip="The video to go on from, or images, 16 a second. They are kept as they are, or scaled and "
                    f"cropped in the middle to 1280 x 704. Only the end is sent. {UPLOADED}",
                ),
                io.Int.Input(
                    "new_frames",
                    default=DEFAULT_NEW_FRAMES,
                    min=NEW_FRAMES.minimum,
                    max=NEW_FRAMES.maximum,
                    tooltip="Frames to add, at 16 a second: 88 are one part and 5.5 seconds, about $0.20. The node "
                    "shows what all parts cost while it runs. At most 5 parts, 440 frames.",
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
        """Without a key it refuses before anything else has run. Raises `MissingKeyError`."""
        from ..pipeline.fal.queue.policy import NetworkPolicy
        from ..pipeline.fal.queue.transport import key_for

        key_for(NetworkPolicy.from_environment())
        return ["prompt", "settings", "video"]

    @classmethod
    async def execute(
        cls,
        prompt: Prompt,
        settings: SamplerSettings,
        video: Input.Video | Input.Image,
        new_frames: int = DEFAULT_NEW_FRAMES,
        overlap: int = DEFAULT_OVERLAP,
    ) -> io.NodeOutput:
        from ..pipeline.fal.endpoints import VIDEO_TO_VIDEO, arguments
        from .host.background import in_background
        from .host.fal_parts import SIZE, extend
        from .host.observers import FalObserver
        from .host.output import result_on_node
        from .host.videos import components_of, start_of, with_values

        width, height = SIZE
        request = replace(GenerationRequest.combine(prompt, settings), width=width, height=height)
        source = components_of(video)
        start = start_of(source)
        observer = FalObserver(cls.hidden.unique_id)
        made, notes = await in_background(extend(request, start, new_frames, overlap, observer), observer)
        summary = f"{made.new_frames} frames added to {len(made.frames) - made.new_frames}, seed {made.seed}."
        joined = Types.VideoComponents(made.frames, Fraction(FPS), sound_from(source.audio, start.skipped()))
        added = Types.VideoComponents(made.added, Fraction(FPS))
        values = {"endpoint": VIDEO_TO_VIDEO.id, **arguments(VIDEO_TO_VIDEO, request), "seed": made.seed}
        values |= {"new_frames": new_frames, "overlap": overlap}
        return io.NodeOutput(
            with_values(InputImpl.VideoFromComponents(joined), {**values, "num_frames": len(made.frames)}),
            with_values(InputImpl.VideoFromComponents(added), {**values, "num_frames": made.new_frames}),
            made.seed,
            ui=result_on_node(summary, *notes_on_source(start, request), *notes),
        )
