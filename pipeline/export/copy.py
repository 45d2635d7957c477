"""A file that is already of the format asked for, "as is": its streams copied, nothing encoded again."""

import os
import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from .export import write_sidecar
from .file import complete_or_absent
from .formats import Format, find_format
from .result import ExportedVideo

CODECS = {"X264 (.mp4)": "h264", "VP9 (.webm)": "vp9", "PRORES4444 (.mov)": "prores", "GIF (.gif)": "gif"}


def remux(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: str,
    metadata: Mapping[str, str] | None = None,
) -> ExportedVideo | None:
    """Copy the streams of `source` to `path`, bit for bit, and add `metadata` to what is there.

    Returns None, and writes nothing, when `source` is not a file of that format: then its frames are to be exported.
    Raises as `export` does.
    """
    target = find_format(format)
    source, path = Path(source), Path(path)
    with av.open(str(source)) as container:
        if not is_of_format(container, source, target):
            return None
        with complete_or_absent(path) as temporary:
            if target.keeps_metadata:
                num_frames = copy_streams(container, temporary, target, metadata or {})
            else:
                num_frames = sum(packet.dts is not None for packet in container.demux(video=0))
                shutil.copyfile(source, temporary)
                write_sidecar(path, metadata or {})
        video = container.streams.video[0]
        rate = rate_of(video, num_frames)
        size = (video.width, video.height)
    return ExportedVideo(
        path=path,
        content_type=target.content_type,
        file_name=path.name,
        file_size=path.stat().st_size,
        width=size[0],
        height=size[1],
        fps=rate,
        duration=float(num_frames / rate),
        num_frames=num_frames,
        notes=("The file was copied as it is, not encoded again.",),
    )


def is_of_format(container: InputContainer, source: Path, target: Format) -> bool:
    """Whether the file has the format's container, its codec, one video stream and at most sound beside it."""
    videos = container.streams.video
    kinds = {stream.type for stream in container.streams}
    return (
        len(videos) == 1
        and kinds <= {"video", "audio"}
        and videos[0].codec_context.name.removeprefix("lib") in (CODECS[target.name], "vpx-vp9")
        and source.suffix.lower() == target.extension
        and (target.container != "mov" or videos[0].codec_context.codec_tag == "ap4h")
    )


def copy_streams(container: InputContainer, path: Path, target: Format, metadata: Mapping[str, str]) -> int:
    """Returns the number of frames."""
    num_frames = 0
    with av.open(str(path), "w", format=target.container, options=dict(target.container_options)) as output:
        output.metadata.update({**container.metadata, **metadata})
        streams = {}
        for stream in container.streams:
            if target.container == "mov" and isinstance(stream, VideoStream):
                copy = add_prores(output, stream)
            else:
                copy = output.add_stream_from_template(stream)
            copy.metadata.update(stream.metadata)
            streams[stream.index] = copy
        for packet in container.demux():
            if packet.dts is None:
                continue
            num_frames += packet.stream.type == "video"
            packet.stream = streams[packet.stream.index]
            output.mux(packet)
    return num_frames


def add_prores(output: OutputContainer, source: VideoStream) -> VideoStream:
    """A stream for the packets of `source`. One from a template would lose the tag by which 4444 differs from 422."""
    rate = source.average_rate or Fraction(16)
    stream = cast(VideoStream, output.add_stream("prores_ks", rate=rate, options={"profile": "4444"}))
    stream.width, stream.height = source.width, source.height
    stream.pix_fmt = "yuva444p10le" if "yuva" in (source.pix_fmt or "") else "yuv444p10le"
    for tag in ("color_primaries", "color_trc", "colorspace", "color_range"):
        setattr(stream.codec_context, tag, getattr(source.codec_context, tag))
    return stream


def rate_of(video: VideoStream, num_frames: int) -> Fraction:
    """Frames per second. A GIF's delays are whole hundredths of a second, and only their average is right."""
    if video.codec_context.name == "gif" and video.duration and video.time_base:
        return num_frames / (video.duration * video.time_base)
    return video.average_rate or video.guessed_rate or Fraction(16)
