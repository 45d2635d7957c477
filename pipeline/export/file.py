"""A file that appears complete or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryFile

from av.error import FFmpegError

from ..disk import atomic_write
from ..errors import ExportError
from ..formats import VideoFormat
from ..video import VideoFile

_ADVICE = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "choose a lower quality, or a disk that takes larger files",
    errno.EROFS: "choose another folder: this disk can only be read",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOENT: "make the folder again, or choose another one",
    errno.ENOTDIR: "choose another folder: a part of this path is a file",
    errno.EISDIR: "choose another name: this one is a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "look at the disk, then try again",
}
MAX_NAME_LENGTH = 255
"""Bytes: what the file systems of all three systems take."""
LEAST_ROOM = 100_000_000
"""Bytes that must be free before a video is made."""


@contextmanager
def as_export_error(path: Path) -> Iterator[None]:
    """What goes wrong inside is raised as `ExportError` with `path` and what to do."""
    try:
        yield
    except ExportError:
        raise
    except (OSError, FFmpegError) as error:
        advice = _ADVICE.get(error.errno or 0)
        if advice is None and isinstance(error, FFmpegError):
            raise ExportError(f"{path} could not be written: the encoder refused it ({error}).") from error
        advice = advice or "look at the disk and the folder, then try again"
        raise ExportError(f"{path} could not be written ({error.strerror}): {advice}.") from error


def finished_file(
    path: Path, format: VideoFormat, size: tuple[int, int], rate: Fraction, num_frames: int, notes: tuple[str, ...]
) -> VideoFile:
    """What there is to say of a file that was just written. `size`: width, height. `rate`: frames per second."""
    return VideoFile(
        path=path,
        content_type=format.content_type,
        file_size=path.stat().st_size,
        width=size[0],
        height=size[1],
        fps=rate,
        duration=float(num_frames / rate),
        num_frames=num_frames,
        notes=notes,
    )


@contextmanager
def video_file(path: Path) -> Iterator[Path]:
    """As `atomic_write`. Raises `ExportError` when the system does not let the file be written."""
    with as_export_error(path):
        check_target(path)
        with atomic_write(path) as temporary:
            yield temporary


def check_room(path: Path, least: int = LEAST_ROOM) -> None:
    """Raise `ExportError` unless a file of `least` bytes can be written at `path` now, before it is made."""
    with as_export_error(path):
        check_target(path)
        path.exists()  # raises for a path that is too long
        folder = next(parent for parent in path.parents if os.path.lexists(parent))
        with TemporaryFile(dir=folder):
            pass
    free = disk_usage(folder).free
    if free < least:
        raise ExportError(
            f"{path} cannot be written: its disk has {free / 1e6:,.0f} MB free and {least / 1e6:,.0f} are the least. "
            "Free some disk space."
        )


def check_target(path: Path) -> None:
    """Raise now what would else be raised when all the work is done."""
    number = 0
    if len(os.fsencode(path.name)) > MAX_NAME_LENGTH:
        number = errno.ENAMETOOLONG
    elif path.is_dir():
        number = errno.EISDIR
    if number:
        raise OSError(number, os.strerror(number))
