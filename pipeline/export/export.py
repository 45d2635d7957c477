"""One video file from frames."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from ..errors import InvalidRequest
from ..observer import Observer, Silent
from .file import complete_or_absent
from .formats import Format, find_format
from .gif import GifPainter
from .result import ExportedVideo
from .sound import Sound
from .yuv import BT709, LIMITED, YuvPainter

THREADS = min(8, os.cpu_count() or 1)
"""Of the encoder. Each holds frames of its own."""
FPS_DENOMINATOR = 10_000
"""The largest that is kept: a rate that came through a float gets back its fraction, 23.976 or 30000/1001."""


def export(
    frames: Tensor,
    path: str | os.PathLike[str],
    *,
    fps: Fraction | float = Fraction(16),
    format: str = "X264 (.mp4)",
    quality: str = "high",
    audio: Any = None,
    metadata: Mapping[str, str] | None = None,
    background: tuple[float, float, float] = (0, 0, 0),
    observer: Observer | None = None,
) -> ExportedVideo:
    """Write `frames` to `path`, which appears when it is complete; a file that was there is replaced.

    `frames`: (F, H, W, 3 or 4), float in 0..1 or uint8, RGB or RGBA with straight alpha, on any device. Values outside
    are clipped and NaN is black. VP9 and ProRes keep alpha, a GIF makes each pixel opaque or not, and X264 puts
    `background`, RGB in 0..1, behind it.
    `fps`: frames per second.
    `format`, `quality`: of `VIDEO_OUTPUT_TYPES` and `VIDEO_QUALITIES`.
    `audio`: ComfyUI's AUDIO: {"waveform": (1, channels, samples) in -1..1, "sample_rate": int}. What is longer than the
    pictures is cut.
    `metadata`: text by key, kept in the file; for a GIF in a .json beside it.

    Raises `InvalidRequest` for a value out of its limits, and `ExportFailed` when the system does not let the file be
    written. Whatever `observer` raises to stop the work passes through. After any of these there is no file.
    """
    observer = observer or Silent()
    target = find_format(format)
    rate = frame_rate(fps)
    check_frames(frames)
    num_frames, height, width, channels = frames.shape
    target.check_fps(rate)
    target.check_size(width, height)
    options = target.options(quality)
    path = Path(path)

    with complete_or_absent(path) as temporary:
        painter = make_painter(target, quality, frames, background, observer)
        with av.open(str(temporary), "w", format=target.container, options=dict(target.container_options)) as output:
            if target.keeps_metadata:
                output.metadata.update(metadata or {})
            stream = add_video(output, target, rate, painted_size(frames, target), channels == 4, options)
            sound = Sound(audio, output, target.audio_codec) if has_sound(audio) and target.audio_codec else None
            pictures = one_ahead(painter.paint, frames)
            encode(output, stream, pictures, sound, num_frames, f"Writing {path.name}", observer)
        if not target.keeps_metadata:
            write_sidecar(path, metadata or {})
    width, height = painted_size(frames, target)
    return ExportedVideo(
        path=path,
        content_type=target.content_type,
        file_name=path.name,
        file_size=path.stat().st_size,
        width=width,
        height=height,
        fps=rate,
        duration=float(num_frames / rate),
        num_frames=num_frames,
        notes=tuple(notes(frames, target, audio, painter.cleaner.found_nan)),
    )


def frame_rate(fps: Fraction | float) -> Fraction:
    """Raises `InvalidRequest` for what is not a number above 0."""
    try:
        rate = Fraction(fps).limit_denominator(FPS_DENOMINATOR)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"fps must be a number above 0, got {fps!r}.") from error
    return rate


def check_frames(frames: Tensor) -> None:
    """Raise `InvalidRequest` for what is not at least one frame of RGB or RGBA."""
    if frames.ndim != 4 or frames.shape[3] not in (3, 4):
        shape = tuple(frames.shape)
        raise InvalidRequest(f"The frames' shape is {shape}, but must be (frames, height, width, 3 or 4 channels).")
    if not (frames.is_floating_point() or frames.dtype == torch.uint8):
        raise InvalidRequest(f"The frames are {frames.dtype}, but must be floats in 0..1 or uint8.")
    if len(frames) == 0:
        raise InvalidRequest("There are no frames to write: connect at least one.")


def painted_size(frames: Tensor, target: Format) -> tuple[int, int]:
    """Width and height in the file."""
    height, width = frames.shape[1:3]
    return (width + width % 2, height + height % 2) if target.even_sides else (width, height)


def has_sound(audio: Any) -> bool:
    return audio is not None and audio["waveform"].numel() > 0


def notes(frames: Tensor, target: Format, audio: Any, found_nan: bool) -> Iterator[str]:
    height, width, channels = frames.shape[1:]
    padded = painted_size(frames, target)
    if padded != (width, height):
        yield f"{width}x{height} became {padded[0]}x{padded[1]} by repeating the edge: {target.name} needs even sides."
    if channels == 4 and target.pixel_format_with_alpha is None:
        yield f"{target.name} has no transparency: the frames were put on the background colour."
    if channels == 4 and target.container == "gif":
        yield "A GIF's pixels are opaque or not: those below half alpha became transparent."
    if has_sound(audio) and target.audio_codec is None:
        yield "A GIF has no sound: the audio was left out."
    if found_nan:
        yield "Some values in the frames were not numbers (NaN) and became black."


def make_painter(
    target: Format, quality: str, frames: Tensor, background: tuple[float, float, float], observer: Observer
) -> YuvPainter | GifPainter:
    if target.container == "gif":
        return GifPainter.for_frames(stoppable(frames, observer), len(frames), quality)
    with_alpha = frames.shape[3] == 4 and target.pixel_format_with_alpha
    return YuvPainter(with_alpha or target.pixel_format, target.even_sides, background)


def stoppable(frames: Tensor, observer: Observer) -> Iterator[Tensor]:
    for frame in frames:
        observer.raise_if_stopped()
        yield frame


def add_video(
    output: OutputContainer,
    target: Format,
    rate: Fraction,
    size: tuple[int, int],
    with_alpha: bool,
    options: dict[str, str],
) -> VideoStream:
    stream: VideoStream = output.add_stream(target.codec, rate=rate, options=options)  # pyright: ignore
    stream.width, stream.height = size
    stream.pix_fmt = (with_alpha and target.pixel_format_with_alpha) or target.pixel_format
    stream.codec_context.time_base = 1 / rate
    stream.codec_context.thread_count = THREADS
    stream.codec_context.thread_type = "AUTO"
    if target.container != "gif":
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED
    return stream


def one_ahead(paint: Callable[[Tensor], av.VideoFrame], frames: Tensor) -> Iterator[av.VideoFrame]:
    """The painted frames in order; the next is painted while this one is encoded."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(max_workers=1) as painter:
        # torch's threads would spin on the cores that the encoder needs. The number counts for this thread, and for
        # those that start later: so it is set back.
        painter.submit(torch.set_num_threads, 1)
        try:
            coming = painter.submit(paint, frames[0])
            for following in frames[1:]:
                picture, coming = coming.result(), painter.submit(paint, following)
                yield picture
            yield coming.result()
        finally:
            painter.submit(torch.set_num_threads, threads)


def encode(
    output: OutputContainer,
    stream: VideoStream,
    pictures: Iterator[av.VideoFrame],
    sound: Sound | None,
    num_frames: int,
    message: str,
    observer: Observer,
) -> None:
    interval = stream.codec_context.time_base
    for index, picture in enumerate(pictures):
        observer.raise_if_stopped()
        picture.pts, picture.time_base = index, interval
        output.mux(stream.encode(picture))
        if sound:
            output.mux(sound.encode_until((index + 1) * interval))
        observer.progress(message, index + 1, num_frames)
    output.mux(stream.encode(None))
    if sound:
        output.mux(sound.finish())


def write_sidecar(path: Path, metadata: Mapping[str, str]) -> None:
    """The metadata as JSON beside the file: the workflow itself, which can be dropped on ComfyUI's canvas, and the rest
    under its `extra`."""
    if not metadata:
        return
    values = {key: read_json(text) for key, text in metadata.items()}
    workflow = values.pop("workflow", None)
    if isinstance(workflow, dict):
        values = {**workflow, "extra": {**(workflow.get("extra") or {}), **values}}
    sidecar = path.with_suffix(".json")
    with complete_or_absent(sidecar) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
