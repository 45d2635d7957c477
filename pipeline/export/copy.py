"""A file that is already of the format asked for, "as is": its streams copied, nothing encoded again."""

import os
import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..clip.file import as_invalid_request
from ..clip.pictures import FileClip
from ..formats import VideoFormat
from ..observer import NullObserver, Observer
from ..video import VideoFile
from .encodings import Encoding, check_suffix, find_encoding
from .file import finished_file
from .metadata import metadata_for, video_file_with_sidecar

GRAPH = {"prompt", "workflow"}
"""ComfyUI's own keys. Those of the source tell how the source was made, not this file."""


def remux(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: str,
    metadata: Mapping[str, str] | None = None,
    observer: Observer | None = None,
) -> VideoFile | None:
    """Copy the streams of `source` to `path`, bit for bit, and add `metadata` to its own, without its graph.

    Returns None, and writes nothing, if `source` is not a file of that format: export its frames instead. Raises as
    `export` does, and `InvalidRequestError` if `source` cannot be read.
    """
    observer = observer or NullObserver()
    target = find_encoding(format)
    source, path = Path(source), Path(path)
    with as_invalid_request(source):
        container = av.open(str(source))
    with container:
        if not is_of_format(container, source, target.format):
            return None
        check_suffix(path, target.format)
        with video_file_with_sidecar(path, target, metadata or {}) as temporary:
            packets = demux_packets(container, source, f"Copying to {path.name}", observer)
            if target.keeps_metadata:
                num_frames = copy_streams(container, packets, temporary, target, metadata or {})
            else:
                num_frames = sum(1 for _ in packets)
                copy_file(source, temporary)
        video = container.streams.video[0]
        size = (video.width, video.height)
    notes = ("The file was copied as it is, not encoded again.",)
    return finished_file(path, target.format, size, FileClip(source).frame_rate, num_frames, notes)


def is_of_format(container: InputContainer, source: Path, target: VideoFormat) -> bool:
    """Whether the file has the format's container, its codec, one video stream and at most sound beside it."""
    videos = container.streams.video
    kinds = {stream.type for stream in container.streams}
    return (
        len(videos) == 1
        and kinds <= {"video", "audio"}
        and videos[0].codec_context.codec.canonical_name == target.codec
        and source.suffix.lower() == target.suffix
        and (target.container != "mov" or videos[0].codec_context.codec_tag == "ap4h")
        and (target.container != "webm" or (videos[0].sample_aspect_ratio or 1) == 1)  # a copy would lose it
    )


def demux_packets(container: InputContainer, source: Path, message: str, observer: Observer) -> Iterator[Packet]:
    """All packets in the file's order. Reports the frames that went by, and ends when the user stops the work."""
    video = container.streams.video[0]
    seconds = (container.duration or 0) / 1_000_000
    total = video.frames or round(seconds * (video.average_rate or 0))
    done = 0
    with as_invalid_request(source):
        packets = container.demux()
    while True:
        observer.raise_if_stopped()
        with as_invalid_request(source):
            packet = next(packets, None)
        if packet is None:
            return
        if packet.dts is None:
            continue
        if packet.stream_index == video.index:
            done += 1
            observer.progress(message, done, max(done, total))
        yield packet


def copy_file(source: Path, path: Path) -> None:
    with as_invalid_request(source):
        opened = source.open("rb")
    with opened, path.open("wb") as copy:
        shutil.copyfileobj(opened, copy)


def without_graph(metadata: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return the source's `metadata` without the graph and the `added` keys. WebM returns its keys in capitals."""
    gone = GRAPH | {key.lower() for key in added}
    return {key: value for key, value in metadata.items() if key.lower() not in gone}


def copy_streams(
    container: InputContainer, packets: Iterator[Packet], path: Path, target: Encoding, metadata: Mapping[str, str]
) -> int:
    """Write the packets and the metadata to `path`. Returns the number of frames."""
    num_frames = 0
    with av.open(str(path), "w", format=target.format.container, options=dict(target.container_options)) as output:
        output.metadata.update({**without_graph(container.metadata, metadata), **metadata_for(target, metadata)})
        streams = {}
        for stream in container.streams:
            if target.format.container == "mov" and isinstance(stream, VideoStream):
                copy = add_prores(output, stream)
            else:
                copy = output.add_stream_from_template(stream)
            copy.metadata.update(without_graph(stream.metadata, metadata))
            streams[stream.index] = copy
        for packet in packets:
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
