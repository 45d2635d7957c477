"""Decode a finished file once: what it holds, and that it can be used."""

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ...formats import VideoFormat
from ...video import RemoteVideo, gif_frame_rate
from .download import MediaRefusedError

if TYPE_CHECKING:
    from av.container import InputContainer


def probe(path: Path, format: VideoFormat, max_pixels: int, seed: int | None) -> RemoteVideo:
    """Decode every frame of `path`.

    Raises `MediaRefusedError` when that fails, or when it holds more than `max_pixels`.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaRefusedError("it holds no video")
            stream = container.streams.video[0]
            width, height, rate = stream.width, stream.height, stream.average_rate
            num_frames, seconds = decode(container, max_pixels // max(1, width * height))
    except (FFmpegError, ValueError) as error:
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


def decode(container: "InputContainer", most: int) -> tuple[int, Fraction]:
    """The number of frames and the end of the last one in seconds.

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


def notes_on(video: RemoteVideo, announced: Mapping[str, int | float], num_frames: int) -> tuple[str, ...]:
    """Where the file is not what fal announced, or not as long as was asked for. A GIF's rate is rounded."""
    real = {name: getattr(video, name) for name in announced}
    found = [
        f"fal announced {name} {announced[name]}, and the file has {round(float(real[name]), 2):.10g}"
        for name in announced
        if not math.isclose(announced[name], real[name], rel_tol=0.01 if name == "fps" else 0)
    ]
    if video.num_frames != num_frames:
        found.append(f"{num_frames} frames were asked for, and the file has {video.num_frames}")
    return tuple(found)
