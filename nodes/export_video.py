import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from comfy_api.latest import Input, io
from PIL import ImageColor

from ..pipeline.errors import InvalidRequestError
from ..pipeline.request import FPS, VIDEO_OUTPUT_TYPES, VIDEO_QUALITIES
from .sockets import CATEGORY

if TYPE_CHECKING:
    from ..pipeline.video import VideoFile
    from .host.videos import Source

AS_IS = "as is"
HIGH = "high"
BLACK = "#000000"


class CosmosPredict25ExportVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict25ExportVideo",
            display_name="Export Video (Cosmos Predict2.5)",
            category=CATEGORY,
            description="Saves a video, or images, as MP4, WebM, ProRes 4444 or GIF in the output folder.",
            search_aliases=[
                "cosmos",
                "save video",
                "save gif",
                "save webm",
                "mp4",
                "prores",
                "mov",
                "gif",
                "video combine",
            ],
            inputs=[
                io.Video.Input(
                    "video",
                    optional=True,
                    lazy=True,
                    tooltip="The video to save, with its sound. Connect this or images.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    lazy=True,
                    tooltip="The frames to save, RGB or RGBA. WebM and ProRes keep transparency. A GIF's pixels are "
                    "either transparent or opaque, and an MP4 shows the background colour instead.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    lazy=True,
                    tooltip="The sound for images, or a replacement for the video's own. A GIF has none.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(VIDEO_OUTPUT_TYPES),
                    default=VIDEO_OUTPUT_TYPES[0],
                    tooltip="X264 plays everywhere, VP9 makes the smallest files, ProRes 4444 is for editing, and GIF "
                    "for websites that accept only images.",
                ),
                io.Combo.Input(
                    "quality",
                    options=[*VIDEO_QUALITIES, AS_IS],
                    default=HIGH,
                    tooltip="Higher looks better and makes larger files. 'as is' copies a video from a file of the "
                    "same format without encoding it again, and saves any other at high.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/cosmos",
                    tooltip="Subfolders and the start of the file name, followed by a number. You can use %year%, "
                    "%month%, %day%, %hour%, %minute%, %second%, %width%, %height%, %date:yyyy-MM-dd% and values of "
                    "widgets such as %Sampler Settings.seed%.",
                ),
                io.Float.Input(
                    "fps",
                    default=float(FPS),
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    optional=True,
                    tooltip=f"The frame rate of images: the model makes {FPS} fps. A video keeps its own.",
                ),
                io.Color.Input(
                    "background",
                    default=BLACK,
                    optional=True,
                    advanced=True,
                    tooltip="The colour behind transparent images in an MP4.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="The saved file.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def check_lazy_status(
        cls,
        filename_prefix: str,
        format: str,
        fps: float = FPS,
        background: str = BLACK,
        **connected: object,
    ) -> list[str]:
        """Refuse wrong values before the frames are made, and blame no widget."""
        from ..pipeline.export.encodings import check_fps
        from ..pipeline.formats import find_format
        from .host.canvas import why_disconnected
        from .host.output import check_output

        has_video, has_images = "video" in connected, "images" in connected
        is_alone = not (has_video or has_images)
        if is_alone and (reason := why_disconnected(cls.hidden.extra_pnginfo, cls.hidden.unique_id)):
            raise InvalidRequestError(reason)
        check_connections(has_video, has_images)
        check_output(cls.fill_in_prefix(filename_prefix)[0], find_format(format))
        read_colour(background)
        if has_images:
            check_fps(Fraction(fps))
        return [name for name in ("video", "images", "audio") if name in connected]

    @classmethod
    def fill_in_prefix(cls, filename_prefix: str) -> tuple[str, list[str]]:
        """Return the prefix of the file, and a note if it had to be changed."""
        from .host.filenames import as_portable, fill_in
        from .host.output import check_prefix

        filled = fill_in(filename_prefix, cls.hidden.prompt, cls.hidden.extra_pnginfo).replace("\\", "/")
        check_prefix(filled)
        portable = as_portable(filled)
        note = f"filename_prefix {filled!r} was changed to {portable!r}, since Windows forbids that name."
        return portable, [note] if portable != filled else []

    @classmethod
    def execute(
        cls,
        format: str,
        quality: str,
        filename_prefix: str,
        video: Input.Video | None = None,
        images: Input.Image | None = None,
        audio: Input.Audio | None = None,
        fps: float = FPS,
        background: str = BLACK,
    ) -> io.NodeOutput:
        from ..pipeline.formats import find_format
        from .host.clips import video_from
        from .host.observers import NodeObserver
        from .host.output import file_metadata, make_proxy, next_output_file, result_on_node, shown_on_node
        from .host.videos import file_of, source_of, values_of, video_of, with_gif_frame_rate

        target, colour = find_format(format), read_colour(background)
        metadata = file_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo, values_of(video))
        video = with_gif_frame_rate(video) if video is not None else video_from(cast(Input.Image, images), fps)
        prefix, notes = cls.fill_in_prefix(filename_prefix)
        observer = NodeObserver(cls.hidden.unique_id)
        source = source_of(video, audio, observer.raise_if_stopped)
        path = next_output_file(prefix, target.suffix, *source.size)
        options: Any = {"format": format, "metadata": metadata, "observer": observer}
        # A <video> shows neither ProRes nor a GIF. Made first: nothing comes between a saved file and the run's end.
        proxy = make_proxy(source, colour, observer) if target.html_element != "video" else None
        file = None if audio else file_of(video)
        saved, more = copy_or_encode(file, source, path, quality, colour, options)
        result = result_on_node(f"{path.name}, {saved.file_size / 1000:,.0f} kB.", *notes, *more, *saved.notes)
        return io.NodeOutput(video_of(saved), ui={**shown_on_node(path, proxy), **result})


def copy_or_encode(
    file: str | os.PathLike[str] | None,
    source: "Source",
    path: Path,
    quality: str,
    background: tuple[float, float, float],
    options: dict[str, Any],
) -> tuple["VideoFile", list[str]]:
    """Save the video at `path`, and return it with a note if it had to be encoded although `quality` is 'as is'.

    `file`: a file with exactly this video, or None. `options`: for both `export` and `remux`.
    """
    from ..pipeline.export import export, remux

    notes = []
    if quality == AS_IS:
        if file and (copied := remux(file, path, **options)):
            return copied, notes
        quality = HIGH
        notes = [f"Encoded at {HIGH}: '{AS_IS}' copies only a whole, unchanged file of the format {options['format']}."]
    return export(**vars(source), path=path, quality=quality, background=background, **options), notes


def check_connections(video: bool, images: bool) -> None:
    """Raise `InvalidRequestError` unless exactly one of video and images is connected."""
    if video and images:
        raise InvalidRequestError("Both video and images are connected: disconnect one of them.")
    if not (video or images):
        raise InvalidRequestError("Neither video nor images is connected: connect one of them.")


def read_colour(background: str) -> tuple[float, float, float]:
    """Return RGB in 0..1. Raises `InvalidRequestError` for anything that is not a colour."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(background)
    except ValueError as error:
        raise InvalidRequestError(
            f"background is {background!r}, but must be a colour: try #000000 or white."
        ) from error
    return red / 255, green / 255, blue / 255
