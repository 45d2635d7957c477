"""One video file from frames."""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from ..errors import InvalidRequestError
from ..observer import NullObserver, Observer
from ..video import VideoFile
from .encodings import Encoding, check_suffix, find_encoding
from .file import as_export_error, finished_file, video_file
from .gif import GifConverter
from .sound import Sound, check_audio
from .tensors import Clip
from .yuv import BT709, LIMITED, YuvConverter

MOST_THREADS = 4
"""Of the encoder. Each holds frames of its own."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(MOST_THREADS, CORES)
FPS_DENOMINATOR = 10_000
"""The largest for a float, which so gets back the fraction that it was: 23.976 or 30000/1001."""
LARGEST_IN_FPS = 2**31 - 1
"""FFmpeg's fractions are of two ints."""


def export(
    frames: Tensor,
    path: str | os.PathLike[str],
    *,
    fps: Fraction | float = Fraction(16),
    format: str = "X264 (.mp4)",
    quality: str = "high",
    alpha: Tensor | None = None,
    audio: Any = None,
    metadata: Mapping[str, str] | None = None,
    background: tuple[float, float, float] = (0, 0, 0),
    observer: Observer | None = None,
) -> VideoFile:
    """Write `frames` to `path`, which appears when it is complete; a file that was there is replaced.

    `frames`: (F, H, W, 3 or 4), float in 0..1 or uint8, RGB or RGBA with straight alpha, on any device. Values outside
    are clipped and NaN is black. VP9 and ProRes keep alpha, a GIF makes each pixel opaque or not, and X264 puts
    `background`, RGB in 0..1, behind it.
    `alpha`: (F, H, W) or (F, H, W, 1), float in 0..1: the opacity of RGB frames.
    `fps`: frames per second. A float becomes the fraction that it stands for, 30000/1001 for 29.97003.
    `format`, `quality`: of `VIDEO_OUTPUT_TYPES` and `VIDEO_QUALITIES`.
    `audio`: ComfyUI's AUDIO: {"waveform": (1, channels, samples) in -1..1, "sample_rate": int}. What is longer than the
    pictures is cut.
    `metadata`: text by key, kept in the file; for a GIF in NAME.gif.json beside it.

    Raises `InvalidRequestError` for a value out of its limits, and `ExportError` when the system does not let the file
    be written. Whatever `observer` raises to stop the work passes through. After any of these there is no file.
    """
    observer = observer or NullObserver()
    target = find_encoding(format)
    rate = frame_rate(fps)
    check_frames(frames)
    check_alpha(frames, alpha)
    clip = Clip(frames, alpha)
    target.check_fps(rate)
    target.check_size(clip.width, clip.height)
    options = target.options(quality)
    path = Path(path)
    check_suffix(path, target.format)
    if with_sound := has_sound(audio) and target.format.has_sound:
        check_audio(audio)
    size = encoded_size(clip, target)

    with video_file_with_sidecar(path, target, metadata or {}) as temporary:
        converter = make_converter(target, quality, clip, background, observer)
        with av.open(
            str(temporary), "w", format=target.format.container, options=dict(target.container_options)
        ) as output:
            if target.keeps_metadata:
                output.metadata.update(metadata or {})
            stream = add_video(output, target, rate, size, clip.channels == 4, options)
            sound = Sound(audio, output, target.audio_encoder) if with_sound and target.audio_encoder else None
            with closing(convert_ahead(converter.convert, clip)) as pictures:
                encode(output, stream, pictures, sound, clip.num_frames, f"Writing {path.name}", observer)
    notes = tuple(notes_on_export(clip, target, audio, converter.floats.found_nan))
    return finished_file(path, target.format, size, rate, clip.num_frames, notes)


def frame_rate(fps: Fraction | float) -> Fraction:
    """`fps` as a fraction. Raises `InvalidRequestError` for what is not a number, or too long a fraction."""
    try:
        rate = Fraction(fps).limit_denominator(FPS_DENOMINATOR) if isinstance(fps, float) else Fraction(fps)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"fps must be a number above 0, got {fps!r}.") from error
    if max(abs(rate.numerator), rate.denominator) > LARGEST_IN_FPS:
        raise InvalidRequestError(f"fps is {rate}, but its numerator and denominator must be at most {LARGEST_IN_FPS}.")
    return rate


def check_frames(frames: Tensor) -> None:
    """Raise `InvalidRequestError` for what is not at least one frame of RGB or RGBA."""
    if frames.ndim != 4 or frames.shape[3] not in (3, 4):
        shape = tuple(frames.shape)
        raise InvalidRequestError(
            f"The frames' shape is {shape}, but must be (frames, height, width, 3 or 4 channels)."
        )
    if not (frames.is_floating_point() or frames.dtype == torch.uint8):
        raise InvalidRequestError(f"The frames are {frames.dtype}, but must be floats in 0..1 or uint8.")
    if len(frames) == 0:
        raise InvalidRequestError("There are no frames to write: connect at least one.")


def check_alpha(frames: Tensor, alpha: Tensor | None) -> None:
    """Raise `InvalidRequestError` for an alpha that does not fit to the frames."""
    if alpha is None:
        return
    if frames.shape[3] == 4:
        raise InvalidRequestError("The frames have 4 channels and alpha is given too: give one of the two.")
    if tuple(alpha.shape) not in (tuple(frames.shape[:3]), (*frames.shape[:3], 1)):
        raise InvalidRequestError(f"alpha's shape is {tuple(alpha.shape)}, but the frames' is {tuple(frames.shape)}.")
    if not alpha.is_floating_point():
        raise InvalidRequestError(f"alpha is {alpha.dtype}, but must be floats in 0..1.")


def encoded_size(clip: Clip, target: Encoding) -> tuple[int, int]:
    """Width and height in the file."""
    width, height = clip.width, clip.height
    return (width + width % 2, height + height % 2) if target.even_sides else (width, height)


def has_sound(audio: Any) -> bool:
    """Whether there is audio with at least one sample."""
    return audio is not None and audio["waveform"].numel() > 0


def notes_on_export(clip: Clip, target: Encoding, audio: Any, found_nan: bool) -> Iterator[str]:
    """What had to be done to the frames or the audio, each a sentence for the user."""
    width, height, channels = clip.width, clip.height, clip.channels
    padded = encoded_size(clip, target)
    if padded != (width, height):
        became = f"{width}x{height} became {padded[0]}x{padded[1]}"
        yield f"{became} by repeating the edge: {target.format.name} needs even sides."
    if channels == 4 and not target.format.has_alpha:
        yield f"{target.format.name} has no transparency: the frames were put on the background colour."
    if channels == 4 and target.format.container == "gif":
        yield "A GIF's pixels are opaque or not: those below half alpha became transparent."
    if has_sound(audio) and not target.format.has_sound:
        yield "A GIF has no sound: the audio was left out."
    if found_nan:
        yield "Some values in the frames were not numbers (NaN) and became black."


def make_converter(
    target: Encoding, quality: str, clip: Clip, background: tuple[float, float, float], observer: Observer
) -> YuvConverter | GifConverter:
    if target.format.container == "gif":
        return GifConverter.for_clip(clip, quality, observer.raise_if_stopped)
    return YuvConverter(target.pixel_formats[clip.channels == 4], target.even_sides, background)


def add_video(
    output: OutputContainer,
    target: Encoding,
    rate: Fraction,
    size: tuple[int, int],
    with_alpha: bool,
    options: dict[str, str],
) -> VideoStream:
    stream: VideoStream = output.add_stream(target.encoder, rate=rate, options=options)  # pyright: ignore
    stream.width, stream.height = size
    stream.pix_fmt = target.pixel_formats[with_alpha]
    stream.codec_context.time_base = 1 / rate
    stream.codec_context.thread_count = THREADS
    stream.codec_context.thread_type = "AUTO"
    if target.format.container != "gif":
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED
    return stream


def convert_ahead(convert: Callable[[Tensor], av.VideoFrame], clip: Clip) -> Generator[av.VideoFrame, None, None]:
    """All frames of `clip` in order, each converted in a thread while the one before it is encoded."""

    def converted(index: int) -> av.VideoFrame:
        return convert(clip.frame(index))

    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(converted, 0)
        for following in range(1, clip.num_frames):
            picture, coming = coming.result(), thread.submit(converted, following)
            yield picture
        yield coming.result()


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


@contextmanager
def video_file_with_sidecar(path: Path, target: Encoding, metadata: Mapping[str, str]) -> Iterator[Path]:
    """As `video_file`, and where the format keeps no metadata they lie beside the file, in `sidecar_of` it."""
    if target.keeps_metadata:
        with video_file(path) as temporary:
            yield temporary
        return
    sidecar = sidecar_of(path)
    if metadata:
        with video_file(sidecar) as text, video_file(path) as temporary:
            with as_export_error(sidecar):
                text.write_text(json.dumps(as_workflow(metadata)), encoding="utf-8")
            yield temporary
        return
    with video_file(path) as temporary:
        yield temporary
    if sidecar.is_file():
        # That of the file that was replaced.
        with as_export_error(sidecar):
            sidecar.unlink()


def sidecar_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def as_workflow(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The workflow itself, which can be dropped on ComfyUI's canvas as JSON, and the rest under its `extra`."""
    values = {key: read_json(text) for key, text in metadata.items()}
    workflow = values.pop("workflow", None)
    if isinstance(workflow, dict):
        values = {**workflow, "extra": {**(workflow.get("extra") or {}), **values}}
    return values


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
