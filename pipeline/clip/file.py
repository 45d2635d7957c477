"""The one way to open a video file, to find its streams and to decode them."""

import io
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import InvalidRequestError

File = str | os.PathLike[str] | io.BytesIO
Stream = av.VideoStream | av.AudioStream

DAMAGED = {
    "video": "Some of the file's frames are damaged and were left out.",
    "audio": "Some of the file's sound is damaged and became silence.",
}
SEEK_MARGINS = (0, 2, 10)
"""Seconds. Some containers, as MPEG-PS, are sought by their bytes, and what is found may lie too late."""
PRE_ROLL = 0.2
"""Seconds that a decoder of sound needs before its samples are right."""
DECODER_THREADS = 2
"""Each holds frames of its own, and an encoder needs the other cores."""
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders leave the alpha of a WebM out."""
COVER_CODECS = {"bmp", "mjpeg", "png", "webp"}
"""Of a cover that a container does not tell from a video."""
MP4_BRAND = b"ftyp"


def add_note(notes: list[str], note: str) -> None:
    """Add a sentence for the user, once."""
    if note not in notes:
        notes.append(note)


def name_of(file: object) -> str:
    """Return how an error names a file."""
    return Path(file).name if isinstance(file, str | os.PathLike) else "The video"


@contextmanager
def as_invalid_request(file: object) -> Iterator[None]:
    """What goes wrong inside is raised as `InvalidRequestError` with the name of `file`."""
    try:
        yield
    except (OSError, FFmpegError) as error:
        reason, advice = why(file, error)
        raise InvalidRequestError(f"{name_of(file)} cannot be read ({reason}): {advice}.") from error


def why(file: object, error: OSError | FFmpegError) -> tuple[str | None, str]:
    """Return the reason and the next step."""
    if isinstance(file, str | os.PathLike) and Path(file).is_file():
        with Path(file).open("rb") as content:
            head = content.read(8)
        if not head:
            return "the file is empty", "choose another file"
        if isinstance(error, InvalidDataError | EndOfFile) and head[4:] == MP4_BRAND:
            return "its index is missing, for example after an interrupted download or recording", "get the whole file"
    return error.strerror, "choose another file"


@contextmanager
def opened(file: File) -> Iterator[InputContainer]:
    """A file in memory may be open several times at once. Raises `InvalidRequestError` for one that cannot be read."""
    source = io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file
    with as_invalid_request(file), av.open(source, metadata_errors="replace") as container:
        yield container


def first_video(container: InputContainer) -> VideoStream:
    """The first that is no cover. Raises `InvalidRequestError` where there is none that can be decoded."""
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    streams = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
    moving = [stream for stream in streams if stream.codec_context.name not in COVER_CODECS]
    if not streams:
        raise InvalidRequestError(f"{name_of(container.name)} has no video that can be decoded: choose another file.")
    return (moving or streams)[0]


def last_audio(container: InputContainer) -> av.AudioStream | None:
    """The last that can be decoded, which is ComfyUI's choice too."""
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return streams[-1] if streams else None


def packets(container: InputContainer, streams: list[Stream], notes: list[str]) -> Iterator[Packet]:
    """All packets up to the end of the file, or of what is whole of it."""
    demuxed = container.demux(streams)
    while True:
        try:
            packet = next(demuxed, None)
        except (InvalidDataError, EndOfFile):
            add_note(notes, DAMAGED[streams[0].type])
            packet = None
        if packet is None:
            return
        yield packet


def decoded(container: InputContainer, stream: Stream, notes: list[str]) -> Iterator:
    """Yield the frames of the stream, and skip broken ones with a line in `notes`."""
    decode = decoder_of(stream)
    for packet in packets(container, [stream], notes):
        try:
            frames = decode(packet)
        except FFmpegError:
            add_note(notes, DAMAGED[stream.type])
            continue
        yield from frames


def decoder_of(stream: Stream) -> Callable[[Packet], list]:
    if isinstance(stream, VideoStream):
        name = stream.codec_context.name
        if name in ALPHA_DECODERS and stream.metadata.get("alpha_mode") == "1":
            context: Any = av.CodecContext.create(ALPHA_DECODERS[name], "r")
            context.thread_count = DECODER_THREADS
            return context.decode
        stream.thread_type, stream.codec_context.thread_count = "AUTO", DECODER_THREADS
    return lambda packet: packet.decode()


def decoded_from(
    file: File, find: Callable[[InputContainer], Stream], begin: float | None, notes: list[str]
) -> Generator[Any, None, None]:
    """Yield the frames of a stream from the one that is shown at `begin`, in seconds, or from the start if None."""
    for margin in SEEK_MARGINS if begin is not None else ():
        assert begin is not None
        faults: list[str] = []
        with opened(file) as container:
            stream = find(container)
            if not seek(container, stream, begin - margin - (0 if stream.type == "video" else PRE_ROLL)):
                break
            frames = decoded(container, stream, faults)
            first = next((frame for frame in frames if frame.key_frame or stream.type == "audio"), None)
            if first is not None and first.time is not None and first.time <= begin:
                faults.clear()  # of what depends on frames before
                yield first
                yield from frames
                notes += [fault for fault in faults if fault not in notes]
                return
    with opened(file) as container:
        yield from decoded(container, find(container), notes)


def seek(container: InputContainer, stream: Stream, seconds: float) -> bool:
    """Whether it could be done. A raw stream cannot be sought."""
    assert stream.time_base
    try:
        container.seek(int(seconds / stream.time_base), stream=stream)
    except FFmpegError:
        return False
    return True


def start_of(stream: Stream) -> Fraction:
    """When a stream begins, in seconds: one that was cut out of another may begin late."""
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def length_of(container: InputContainer) -> Fraction | None:
    """Seconds, as the file says. None where it does not."""
    return Fraction(container.duration, av.time_base) if container.duration else None
