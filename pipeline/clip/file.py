"""The one way to open a video file, and its streams."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.video.stream import VideoStream

from ..errors import InvalidRequestError

File = str | os.PathLike[str] | io.BytesIO


@contextmanager
def as_invalid_request(source: object) -> Iterator[None]:
    """What goes wrong inside is raised as `InvalidRequestError` with `source`."""
    try:
        yield
    except (OSError, FFmpegError) as error:
        raise InvalidRequestError(f"{source} cannot be read ({error.strerror}): choose another file.") from error


@contextmanager
def opened(file: File) -> Iterator[InputContainer]:
    """A file in memory may be open several times at once. Raises `InvalidRequestError` for one that cannot be read."""
    name, source = file, file
    if isinstance(file, io.BytesIO):
        name, source = "The video", io.BytesIO(file.getvalue())
    with as_invalid_request(name), av.open(source) as container:
        yield container


def first_video(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise InvalidRequestError("The file has no video: choose another one.")
    return container.streams.video[0]


def first_time(container: InputContainer) -> float:
    """When the file's first picture is shown, in seconds: a stream that was cut out of another may begin late."""
    stream = first_video(container)
    return float((stream.start_time or 0) * (stream.time_base or 0))


def decodable_audio(container: InputContainer) -> list[av.AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def in_ticks(seconds: float, stream: av.VideoStream | av.AudioStream) -> int:
    assert stream.time_base
    return int(seconds / stream.time_base)


def decoded(container: InputContainer, stream: av.VideoStream | av.AudioStream) -> Iterator:
    """All frames of the stream but those that are broken, which ComfyUI leaves out too."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except InvalidDataError:
            continue
