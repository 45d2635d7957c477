"""Decode a finished file once: what it holds, and that it can be used."""

import re
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError

from ...formats import VideoFormat
from ...video import RemoteVideo, gif_frame_rate
from .download import MediaRefusedError

BLOCK = 2**20
MAX_STREAMS = 1024
MAX_FRAME_PIXELS = 2**22
"""Of one frame, where fal makes 1280 x 704."""
MAX_PIXELS = 2**30
"""Of all frames of a video."""
COMPRESSED_INDEX = re.compile(rb"cmov.{4}dcomzlib", re.DOTALL)


def probe(path: Path, format: VideoFormat, seed: int | None) -> RemoteVideo:
    """Decode every frame of `path`, and return what the file holds.

    It takes no more memory than a few frames of the largest size.
    Raises `MediaRefusedError` when that fails, or when it holds more pixels than are allowed, and
    `PermissionError` when it may not be read, as on Windows while another program holds it.
    """
    limits = {"max_pixels": str(MAX_FRAME_PIXELS)}
    try:
        refuse_compressed_index(path)
        with av.open(str(path), stream_options=[limits] * MAX_STREAMS) as container:  # pyright: ignore
            if not container.streams.video:
                raise MediaRefusedError("it holds no video")
            stream = container.streams.video[0]
            width, height, rate = stream.width, stream.height, stream.average_rate
            if not 0 < width * height <= MAX_FRAME_PIXELS:
                raise MediaRefusedError("its frames are far larger than those of this model")
            stream.codec_context.options = limits  # for a size that changes on the way
            num_frames, seconds = decode(container, MAX_PIXELS // max(1, width * height))
    except PermissionError:
        raise
    except (FFmpegError, ValueError, OSError) as error:
        raise MediaRefusedError(f"it cannot be decoded: {error}") from error
    if not num_frames or not rate:
        raise MediaRefusedError("it holds no frames")
    fps = gif_frame_rate(num_frames, seconds) if format.suffix == ".gif" and seconds else Fraction(rate)
    return RemoteVideo(
        path=path,
        content_type=format.content_type,
        file_size=path.stat().st_size,
        width=width,
        height=height,
        fps=fps,
        duration=float(num_frames / fps),
        num_frames=num_frames,
        seed=seed,
    )


def refuse_compressed_index(path: Path) -> None:
    """Raise `MediaRefusedError` for an MP4 or MOV whose index is compressed: FFmpeg would unpack it without limit.

    QuickTime File Format calls it a compressed movie resource; no encoder of today writes it.
    """
    end = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            if COMPRESSED_INDEX.search(end + block):
                raise MediaRefusedError("its index is compressed")
            end = block[-64:]


def decode(container: "InputContainer", most: int) -> tuple[int, Fraction]:
    """Return the number of frames and the end of the last one in seconds.

    Raises `MediaRefusedError` for more frames than `most`.
    """
    num_frames, end = 0, Fraction(0)
    for frame in container.decode(video=0):
        num_frames += 1
        if num_frames > most:
            raise MediaRefusedError("it holds far more pixels than a video of this model")
        if frame.pts is not None and frame.time_base:
            end = (frame.pts + frame.duration) * frame.time_base
    return num_frames, end
