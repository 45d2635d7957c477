from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comfy_api.latest import Input, io

from ..pipeline.errors import FalError, InvalidRequestError
from ..pipeline.fal import DISTILLED, TEXT_TO_VIDEO
from ..pipeline.request import (
    STANDARD,
    VIDEO_OUTPUT_TYPES,
    VIDEO_QUALITIES,
    GenerationRequest,
    Prompt,
    SamplerSettings,
)
from .sockets import CATEGORY, UPLOADED, VIDEO_ALIASES, CosmosPrompt, CosmosSettings, allow_many_jobs_input

if TYPE_CHECKING:
    from ..pipeline.fal import Journal
    from ..pipeline.fal.start import SentStart

ENDPOINTS = {endpoint.name: endpoint for endpoint in (TEXT_TO_VIDEO, DISTILLED)}


class CosmosPredict25GenerateFal(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25GenerateFal",
            display_name="Generate on fal (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Makes a video from text, a picture or a clip with Cosmos-Predict2.5 on fal.ai, for money, and "
            "saves it in the output folder. The key comes from the environment variable FAL_KEY. Several of these "
            "nodes run at once.",
            search_aliases=[
                *("cosmos", "nvidia", "fal", "api", "remote", "cloud", "text to video", "t2v"),
                *("image to video", "i2v", "video to video", "v2v"),
                *VIDEO_ALIASES,
            ],
            inputs=[
                CosmosPrompt.Input("prompt", lazy=True, tooltip="From the Prompt node."),
                CosmosSettings.Input(
                    "settings",
                    lazy=True,
                    tooltip="From the Sampler Settings node. fal always makes 1280 x 704 and ignores width and height.",
                ),
                io.DynamicCombo.Input(
                    "endpoint",
                    options=[
                        io.DynamicCombo.Option(TEXT_TO_VIDEO.name, []),
                        io.DynamicCombo.Option(
                            DISTILLED.name,
                            [
                                io.Int.Input(
                                    "num_inference_steps",
                                    default=DISTILLED.default_steps,
                                    min=DISTILLED.num_inference_steps.minimum,
                                    max=DISTILLED.num_inference_steps.maximum,
                                    tooltip="Denoising steps of the distilled model, instead of the number in the "
                                    "settings.",
                                )
                            ],
                        ),
                    ],
                    tooltip="The full model, about $0.20 and 7 minutes per video, or the distilled one, about $0.08 "
                    "and 2 minutes. The distilled one has no guidance_scale and starts from text only. The node shows "
                    "fal's current price while it runs.",
                ),
                io.Combo.Input(
                    "video_output_type",
                    options=list(VIDEO_OUTPUT_TYPES),
                    default=VIDEO_OUTPUT_TYPES[0],
                    tooltip="The format of fal's file, which is kept as it comes.",
                ),
                io.Combo.Input(
                    "video_quality",
                    options=list(VIDEO_QUALITIES),
                    default="high",
                    tooltip="Higher looks better and makes larger files.",
                ),
                io.Boolean.Input(
                    "sync_mode",
                    default=False,
                    advanced=True,
                    tooltip="fal sends the video inside its reply and does not keep it in the request history. After a "
                    "crash, there may be nothing to fetch.",
                ),
                io.Boolean.Input(
                    "store",
                    default=True,
                    advanced=True,
                    tooltip="fal keeps the prompt and the video for 30 days. When off, a finished video must be "
                    "fetched within minutes, and a job whose reply was lost cannot be found again.",
                ),
                io.String.Input(
                    "webhook_url",
                    default="",
                    advanced=True,
                    tooltip="An https address that fal calls when the job is over. It is saved in the workflow.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    lazy=True,
                    tooltip="The first frame of the video, scaled and center-cropped to 1280 x 704. Several images are "
                    f"a clip at 16 fps. {UPLOADED}",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    lazy=True,
                    tooltip="The clip to continue. The video begins with the clip's last 5 frames at 16 fps. "
                    f"{UPLOADED}",
                ),
                allow_many_jobs_input(),
            ],
            outputs=[
                io.Video.Output("video", tooltip="fal's own file, not encoded again."),
                io.Int.Output("seed", tooltip="The seed of this video."),
                io.String.Output(
                    "url",
                    tooltip="The URL of fal's file. Anyone who knows it can open the file. Empty if the video came "
                    "from this disk or inside fal's reply.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def check_lazy_status(cls, endpoint: dict[str, Any] | None = None, **inputs) -> list[str]:
        """Refuse wrong inputs before anything else has run, and blame no widget for a key that is missing.

        ComfyUI leaves out an `endpoint` that is none of the options, and what is not connected. Raises
        `InvalidRequestError` and `MissingKeyError`.
        """
        from ..pipeline.fal.budget import day_limit
        from ..pipeline.fal.queue.policy import NetworkPolicy
        from ..pipeline.fal.queue.transport import key_for
        from .host.clips import refuse_two_starts
        from .host.many_jobs import check_number_of_jobs
        from .host.output import check_fal_folder

        if endpoint is None:
            raise InvalidRequestError(f"endpoint must be {' or '.join(ENDPOINTS)}.")
        starts = [name for name in ("image", "video") if name in inputs]
        refuse_two_starts(len(starts) == 2)
        chosen, _ = endpoint["endpoint"]  # and the name of the widget
        if starts and chosen == DISTILLED.name:
            raise InvalidRequestError(
                f"{DISTILLED.name} makes videos from text only: choose {TEXT_TO_VIDEO.name}, or disconnect {starts[0]}."
            )
        key_for(NetworkPolicy.from_environment())
        day_limit()
        check_number_of_jobs(cls.hidden.unique_id, 1, bool(inputs.get("allow_many_jobs")))
        check_fal_folder()
        return ["prompt", "settings", *starts]

    @classmethod
    async def execute(
        cls,
        prompt: Prompt,
        settings: SamplerSettings,
        endpoint: dict[str, Any],
        store: bool,
        webhook_url: str,
        image: Input.Image | None = None,
        video: Input.Video | None = None,
        allow_many_jobs: bool = False,
        **fields: Any,
    ) -> io.NodeOutput:
        """Make the video. `fields`: the fields of the request that only fal has."""
        from ..pipeline import fal
        from ..pipeline.fal.endpoints import arguments
        from .host.background import in_background
        from .host.many_jobs import NodeJobs, is_refused_item, jobs_of_run, refused_item
        from .host.observers import FalObserver
        from .host.output import result_on_node
        from .host.past_jobs import PAUSE, fal_folders, fetch_in_background
        from .host.videos import video_of, with_values

        request = GenerationRequest.combine(prompt, settings_for(endpoint, settings), **fields)
        folders, run = fal_folders(), jobs_of_run()
        jobs, observer = NodeJobs(run, folders["journal"]), FalObserver(cls.hidden.unique_id, run)
        start = start_at_fal(image, video, folders["journal"])
        used = start.endpoint if start else ENDPOINTS[endpoint["endpoint"]]
        options: Any = {"media": start and start.media, "webhook_url": webhook_url or None, "store": store}
        job = fal.generate(request, endpoint=used, observer=observer, on_charge=jobs.add, **folders, **options)
        fetch_in_background(PAUSE)
        try:
            made = await in_background(job, observer)
        except FalError as error:
            if not is_refused_item(cls.hidden.unique_id, error):
                raise
            return refused_item(error, request.seed, await jobs.end(cls.hidden.unique_id))
        size = f"{made.num_frames} frames, {made.width} x {made.height}, {made.duration:.1f} s"
        notes = [*made.notes, *([*start.notes, *start.notes_on(made)] if start else [])]
        notes += await jobs.end(cls.hidden.unique_id)
        shown = result_on_node(f"{size}, seed {made.seed}.", f"{made.path.name}.", *notes)
        values = {"endpoint": used.id, **arguments(used, request), "seed": made.seed}
        return io.NodeOutput(with_values(video_of(made), values), made.seed, made.url or "", ui=shown)


def settings_for(endpoint: dict[str, Any], settings: SamplerSettings) -> SamplerSettings:
    """Return the settings with the steps of the distilled model, which may be more than a local schedule allows."""
    if "num_inference_steps" not in endpoint:
        return settings
    return replace(settings, num_inference_steps=endpoint["num_inference_steps"], schedule=STANDARD)


def start_at_fal(image: Input.Image | None, video: Input.Video | None, journal: "Journal") -> "SentStart | None":
    """Return the picture or clip to send, or None where nothing is connected."""
    from ..pipeline.export import mp4_bytes
    from ..pipeline.fal.start import start_to_send
    from .host.clips import start_from

    start = start_from(image, video)
    return start_to_send(start, mp4_bytes, journal) if start else None
