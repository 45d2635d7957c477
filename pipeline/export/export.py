"""One video file from frames."""

import os
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from ..clip.colours import Colours
from ..clip.pictures import FileClip
from ..clip.sound import LAYOUTS, FileSound
from ..errors import InvalidRequestError
from ..observer import NullObserver, Observer
from ..start import check_batch
from ..video import VideoFile
from .encodings import Encoding, check_fps, check_suffix, find_encoding
from .file import finished_file
from .gif import GifConverter
from .metadata import metadata_for, video_file_with_sidecar
from .sound import SoundEncoder, Waveform, check_sound, sound_of
from .tensors import Clip
from .timing import Timing
from .yuv import OURS, YuvConverter

MAX_THREADS = 4
"""Of the encoder. Each holds frames of its own."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(MAX_THREADS, CORES)
FPS_DENOMINATOR = 10_000
"""The largest for a float, which so gets back the fraction that it was: 23.976 or 30000/1001."""
LARGEST_IN_FPS = 2**31 - 1
"""FFmpeg's fractions are of two ints."""


def export(
    frames: Tensor | FileClip,
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
    """Write `frames` to `path`, which appears when it is complete and replaces an existing file.

    `frames`: (F, H, W, 1, 3 or 4), float in 0..1 or uint8, on any device: gray, RGB, or RGBA with straight alpha.
    Values outside are clipped and NaN becomes black. Or the pictures of a file, which keep their times, and also their
    pixel format and colours if the output has the same pixel format. VP9 and ProRes keep alpha, a GIF makes each pixel
    opaque or transparent, and X264 puts `background`, RGB in 0..1, behind it.
    `alpha`: (F, H, W) or (F, H, W, 1), float in 0..1: the opacity of RGB frames.
    `fps`: the frame rate of a tensor. A float becomes the nearest common fraction, such as 30000/1001 for 29.97003. If
    it is above the format's maximum, some frames are left out.
    `format`, `quality`: one of `VIDEO_OUTPUT_TYPES` and of `VIDEO_QUALITIES`.
    `audio`: the sound of a file, or ComfyUI's AUDIO: {"waveform": (1, channels, samples), "sample_rate": int}, floats
    in -1..1, int16 or int32. It is truncated to the length of the pictures.
    `metadata`: text by key, stored in the file, or for a GIF in NAME.gif.json beside it.

    Raises `InvalidRequestError` for a value outside its limits, and `ExportError` if the file cannot be written.
    Exceptions that `observer` raises to stop the work pass through. After any of these there is no file.
    """
    observer = observer or NullObserver()
    target = find_encoding(format)
    if isinstance(frames, FileClip):
        clip, rate = frames if target.keeps_pixel_aspect else frames.with_square_pixels(), frames.frame_rate
    else:
        clip, rate = tensor_clip(frames, alpha), frame_rate(fps)
        check_fps(rate)
        clip = clip.at_most(target.max_fps, rate)
    timing = Timing.of(clip, rate, target)
    target.check_size(clip.width, clip.height)
    options = target.options(quality, clip.width * clip.height)
    path = Path(path)
    check_suffix(path, target.format)
    sound = sound_of(audio)
    if sound and target.audio_encoder:
        check_sound(sound)
    size = encoded_size(clip, target)

    with video_file_with_sidecar(path, target, metadata or {}) as temporary:
        converter = make_converter(target, quality, clip, background, observer)
        pictures, colours = converted(clip, converter, timing), OURS
        if isinstance(clip, FileClip) and goes_through(clip, target):
            pictures, colours = clip.pictures(), clip.colours
        with av.open(
            str(temporary), "w", format=target.format.container, options=dict(target.container_options)
        ) as output:
            if target.keeps_metadata:
                output.metadata.update(metadata_for(target, metadata or {}))
            stream = add_video(output, target, timing, size, clip.channels == 4, options, colours)
            if isinstance(clip, FileClip) and clip.pixel_aspect != 1:
                stream.codec_context.sample_aspect_ratio = clip.pixel_aspect
            heard = SoundEncoder(sound, output, target.audio_encoder) if sound and target.audio_encoder else None
            with closing(made_ahead(pictures)) as ready, closing(heard) if heard else nullcontext():
                message = f"Writing {path.name}"
                num_frames, average = encode(output, stream, timing, ready, heard, clip.num_frames, message, observer)
    notes = tuple(notes_on_export(clip, target, sound, rate, converter.floats.found_nan))
    return finished_file(path, target.format, size, average, num_frames, notes)


def frame_rate(fps: Fraction | float) -> Fraction:
    """`fps` as a fraction. Raises `InvalidRequestError` for what is not a number, or too long a fraction."""
    try:
        rate = Fraction(fps).limit_denominator(FPS_DENOMINATOR) if isinstance(fps, float) else Fraction(fps)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"fps must be a number above 0, got {fps!r}.") from error
    if max(abs(rate.numerator), rate.denominator) > LARGEST_IN_FPS:
        raise InvalidRequestError(f"fps is {rate}, but its numerator and denominator must be at most {LARGEST_IN_FPS}.")
    return rate


def tensor_clip(frames: Tensor, alpha: Tensor | None) -> Clip:
    """Raises `InvalidRequestError` for frames that cannot be written, or an alpha that does not fit to them."""
    check_frames(frames)
    check_alpha(frames, alpha)
    return Clip(frames.expand(-1, -1, -1, 3) if frames.shape[3] == 1 else frames, alpha)


def check_frames(frames: Tensor) -> None:
    """Raise `InvalidRequestError` for what is not at least one frame, gray, RGB or RGBA."""
    check_batch(frames)
    if frames.ndim != 4 or frames.shape[3] not in (1, 3, 4):
        shape = tuple(frames.shape)
        raise InvalidRequestError(
            f"The frames' shape is {shape}, but must be (frames, height, width, channels) with 1, 3 or 4 channels."
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


def encoded_size(clip: Clip | FileClip, target: Encoding) -> tuple[int, int]:
    """Width and height in the file."""
    width, height = clip.width, clip.height
    return (width + width % 2, height + height % 2) if target.even_sides else (width, height)


def goes_through(clip: FileClip, target: Encoding) -> bool:
    """Whether the decoded pictures are encoded as they are, so that nothing of them is lost on the way."""
    return (
        target.even_sides
        and clip.is_in(target.pixel_formats[clip.channels == 4])
        and encoded_size(clip, target) == (clip.width, clip.height)
    )


def notes_on_export(
    clip: Clip | FileClip,
    target: Encoding,
    sound: Waveform | FileSound | None,
    rate: Fraction,
    found_nan: bool,
) -> Iterator[str]:
    """What had to be done to the frames or the sound, each a sentence for the user. `rate`: as given."""
    width, height, channels = clip.width, clip.height, clip.channels
    padded = encoded_size(clip, target)
    if padded != (width, height):
        became = f"{width}x{height} became {padded[0]}x{padded[1]}"
        yield f"{became} by repeating the edge: {target.format.name} needs even sides."
    if channels == 4 and not target.format.has_alpha:
        yield f"{target.format.name} has no transparency: the frames were put on the background colour."
    if channels == 4 and target.format.container == "gif":
        yield "A GIF's pixels are either opaque or transparent: pixels below half alpha became transparent."
    if sound and not target.format.has_sound:
        yield "A GIF has no sound: the audio was left out."
    elif isinstance(sound, FileSound) and sound.in_file > sound.channels:
        yield f"The sound's {sound.in_file} channels became {sound.channels} ({LAYOUTS[sound.channels]})."
    if rate > target.max_fps:
        yield f"{float(rate):g} fps became {target.max_fps}, the most in a {target.format.name}: frames were left out."
    if isinstance(clip, FileClip):
        yield from clip.notes
    if found_nan:
        yield "Some values in the frames were NaN and became black."


def make_converter(
    target: Encoding, quality: str, clip: Clip | FileClip, background: tuple[float, float, float], observer: Observer
) -> YuvConverter | GifConverter:
    if target.format.container == "gif":
        return GifConverter.for_clip(clip, quality, observer.raise_if_stopped)
    return YuvConverter(target.pixel_formats[clip.channels == 4], target.even_sides, background)


def add_video(
    output: OutputContainer,
    target: Encoding,
    timing: Timing,
    size: tuple[int, int],
    with_alpha: bool,
    options: dict[str, str],
    colours: Colours,
) -> VideoStream:
    options = {**options, "chroma_sample_location": colours.chroma_location}
    stream: VideoStream = output.add_stream(target.encoder, rate=timing.rate, options=options)  # pyright: ignore
    stream.width, stream.height = size
    stream.pix_fmt = target.pixel_formats[with_alpha]
    stream.codec_context.time_base = timing.interval
    stream.codec_context.thread_count = THREADS
    stream.codec_context.thread_type = target.thread_type
    if target.format.container != "gif":
        context = stream.codec_context
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        context.colorspace, context.color_range = colours.matrix, colours.color_range
    return stream


def converted(
    clip: Clip | FileClip, converter: YuvConverter | GifConverter, timing: Timing
) -> Generator[av.VideoFrame, None, None]:
    """The pictures to encode, each with its time."""
    if isinstance(clip, FileClip):
        with closing(clip.pictures()) as pictures:
            for picture in pictures:
                made = converter.convert(clip.tensor(picture))
                made.pts, made.time_base = picture.pts, picture.time_base
                yield made
    else:
        for index, frame in enumerate(clip.frames()):
            made = converter.convert(frame)
            made.pts, made.time_base = index, timing.interval
            yield made


def made_ahead(pictures: Generator[av.VideoFrame, None, None]) -> Generator[av.VideoFrame, None, None]:
    """The same pictures, each made in a thread while the one before it is encoded."""
    with closing(pictures), ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, pictures, None)
        while picture := coming.result():
            coming = thread.submit(next, pictures, None)
            yield picture


def encode(
    output: OutputContainer,
    stream: VideoStream,
    timing: Timing,
    pictures: Iterator[av.VideoFrame],
    sound: SoundEncoder | None,
    num_frames: int,
    message: str,
    observer: Observer,
) -> tuple[int, Fraction]:
    """Returns how many pictures there were, and how many a second. `num_frames`: how many there should be."""
    done, seconds = 0, timing.interval
    for tick, picture in timing.shown(pictures):
        observer.raise_if_stopped()
        picture.pts, picture.time_base = tick, timing.interval
        picture.pict_type = 0  # the encoder chooses, whatever it was in the file that it came from
        output.mux(stream.encode(picture))
        done += 1
        seconds = (tick + timing.step) * timing.interval
        if sound:
            output.mux(sound.encode_until(seconds))
        observer.progress(message, done, max(done, num_frames))
    output.mux(stream.encode(None))
    if sound:
        output.mux(sound.finish())
    return done, done / seconds
