"""Frames kept beside the records, lossless, so that what was paid for is found and used without its files."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import torch
from av.error import FFmpegError
from torch import Tensor

from ..disk import atomic_write, make_folder

MAX_STARTS = 32
LEVEL = 1.0
"""Two starts are the same whose levels, of 255, are nowhere so far apart: half a level, and as much from rounding."""
NEARLY_WHOLE = 0.01

log = logging.getLogger("cosmos_predict25.fal")


def write_frames(path: Path, frames: Tensor) -> None:
    """Write frames, (F, H, W, 3) in uint8, to `path`, for its owner alone. What the disk does not take is left out."""
    try:
        make_folder(path.parent, mode=0o700)
        with (
            atomic_write(path, mode=0o600) as part,
            av.open(str(part), "w", format="matroska") as container,
        ):
            stream = container.add_stream("ffv1", rate=16)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
            container.mux(stream.encode(None))
    except (OSError, FFmpegError) as error:
        log.warning("The frames of a start or a part were not kept (%s).", error.strerror)


def read_frames(path: Path) -> Iterator[Tensor]:
    """Yield each frame, (H, W, 3) in uint8. Raises `FFmpegError` and `OSError`."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield torch.from_numpy(frame.to_ndarray(format="rgb24"))


def as_kept(levels: Tensor, folder: Path) -> Tensor:
    """Return the frames to send for `levels`, (F, H, W, 3), floats in 0..255: rounded, in uint8.

    A picture that a GPU makes comes a little differently each time. So the frames that were sent for it are kept in
    `folder`, the newest 32 starts, and returned for all that differ from them by less than a level.
    """
    frames = levels.round().to(torch.uint8)
    if (levels - frames).abs().max() < NEARLY_WHOLE:  # such as from a file: it never comes differently
        return frames
    paths = newest_first(folder)
    for path in paths:
        with suppress(FFmpegError, OSError):
            if kept := same_frames(levels, path):
                path.touch()
                return torch.stack(kept)
    for path in paths[MAX_STARTS - 1 :]:
        with suppress(OSError):
            path.unlink()
    write_frames(folder / f"{hash_of(frames)}.mkv", frames)
    return frames


def newest_first(folder: Path) -> list[Path]:
    """Return the files of kept starts. Another process may remove any of them at any time."""
    times: dict[Path, float] = {}
    for path in folder.glob("*.mkv"):
        with suppress(OSError):
            times[path] = path.stat().st_mtime
    return sorted(times, key=times.__getitem__, reverse=True)


def same_frames(levels: Tensor, path: Path) -> list[Tensor]:
    """Return the frames of a file, or none where one differs from `levels` by a level or more."""
    kept: list[Tensor] = []
    for frame in read_frames(path):
        is_same = len(kept) < len(levels) and frame.shape == levels.shape[1:]
        if not is_same or (levels[len(kept)] - frame).abs().max() >= LEVEL:
            return []
        kept.append(frame)
    return kept if len(kept) == len(levels) else []


def hash_of(frames: Tensor) -> str:
    """Return the hash of the shape and of each pixel."""
    return hashlib.sha256(f"{tuple(frames.shape)}".encode() + frames.numpy().tobytes()).hexdigest()
