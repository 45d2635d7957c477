from typing import Any

from comfy_api.latest import Input, io

from ..pipeline.errors import FalError
from ..pipeline.request import GenerationRequest, Prompt, SamplerSettings
from .sockets import (
    CATEGORY,
    DEFAULT_NEW_FRAMES,
    DEFAULT_OVERLAP,
    UPLOADED,
    CosmosPrompt,
    CosmosSettings,
    allow_many_jobs_input,
    extend_inputs,
    extend_outputs,
)


class CosmosPredict25ExtendFal(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25ExtendFal",
            display_name="Extend Video on fal (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Continues a video from its end with Cosmos-Predict2.5 on fal.ai, for money, in up to 5 "
            "segments. The key comes from the environment variable FAL_KEY.",
            search_aliases=["cosmos", "nvidia", "fal", "extend video", "video to video", "v2v", "continue"],
            inputs=[
                CosmosPrompt.Input("prompt", lazy=True, tooltip="From the Prompt node: what happens next."),
                CosmosSettings.Input(
                    "settings",
                    lazy=True,
                    tooltip="From the Sampler Settings node. num_frames is the maximum length of a segment. Later "
                    "segments use the following seeds. fal always makes 1280 x 704 and ignores width and height.",
                ),
                *extend_inputs(
                    video="The video to continue, or images at 16 fps. They are kept unchanged, or scaled and "
                    f"center-cropped to 1280 x 704. Only the end is sent. {UPLOADED}",
                    new_frames="The number of frames to add, at 16 fps: 88 are one segment of 5.5 seconds, about "
                    "$0.20. The node shows the total price while it runs. At most 5 segments, 440 frames.",
                    lazy=True,
                ),
                allow_many_jobs_input(),
            ],
            outputs=extend_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def check_lazy_status(cls, **inputs) -> list[str]:
        """Refuse to run without a key, or too many jobs, before anything else has run.

        Raises `MissingKeyError` and `InvalidRequestError`.
        """
        from ..pipeline.fal.budget import day_limit
        from ..pipeline.fal.queue.policy import NetworkPolicy
        from ..pipeline.fal.queue.transport import key_for
        from .host.many_jobs import check_number_of_jobs, number_of_parts
        from .host.output import check_fal_folder

        key_for(NetworkPolicy.from_environment())
        day_limit()
        check_number_of_jobs(cls.hidden.unique_id, number_of_parts(**inputs), bool(inputs.get("allow_many_jobs")))
        check_fal_folder()
        return ["prompt", "settings", "video"]

    @classmethod
    async def execute(
        cls,
        prompt: Prompt,
        settings: SamplerSettings,
        video: Input.Video | Input.Image,
        new_frames: int = DEFAULT_NEW_FRAMES,
        overlap: int = DEFAULT_OVERLAP,
        allow_many_jobs: bool = False,
    ) -> io.NodeOutput:
        from ..pipeline import fal
        from ..pipeline.export import mp4_bytes
        from ..pipeline.fal.endpoints import arguments
        from .host.background import in_background
        from .host.clips import clip_of, extended_videos, free_ram
        from .host.many_jobs import NodeJobs, is_refused_item, jobs_of_run, refused_item
        from .host.notes import notes_on_source
        from .host.observers import FalObserver
        from .host.output import result_on_node
        from .host.past_jobs import PAUSE, fal_folders, fetch_in_background

        folders, run, request = fal_folders(), jobs_of_run(), GenerationRequest.combine(prompt, settings)
        jobs, observer = NodeJobs(run, folders["journal"]), FalObserver(cls.hidden.unique_id, run)
        clip, audio = clip_of(video, observer.raise_if_stopped)
        options: Any = {**folders, "encode_clip": mp4_bytes, "observer": observer, "ram": free_ram()}
        options["on_charge"] = jobs.add
        fetch_in_background(PAUSE)
        try:
            made = await in_background(fal.extend(request, clip, new_frames, overlap=overlap, **options), observer)
        except FalError as error:
            if not is_refused_item(cls.hidden.unique_id, error):
                raise
            return refused_item(error, request.seed, await jobs.end(cls.hidden.unique_id))
        values = {"endpoint": fal.VIDEO_TO_VIDEO.id, **arguments(fal.VIDEO_TO_VIDEO, request), "overlap": overlap}
        videos = extended_videos(made, clip, audio, values)
        notes = [*notes_on_source(clip, made), *made.notes, *await jobs.end(cls.hidden.unique_id)]
        return io.NodeOutput(*videos, made.seed, ui=result_on_node(f"{made.summary}, seed {made.seed}.", *notes))
