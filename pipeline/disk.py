"""Write files so that they are on disk completely or not at all, and survive a power failure."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REPLACE_SECONDS = 5.0
REPLACE_PAUSE = 0.05
HELD_BY_ANOTHER_PROCESS = (5, 32)
"""Windows' ERROR_ACCESS_DENIED and ERROR_SHARING_VIOLATION: a virus scanner or a search index reads the file."""


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`. It replaces `path` on success, and is deleted otherwise.

    `mode`: the permissions of the new file, before the umask. Raises `OSError`.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}{path.suffix}.part")
    # Never through a link that someone else has put there.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode))
    try:
        yield temporary
        flush_file(temporary)
        replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`, replacing an existing file. Raises `OSError`.

    On Windows it retries for some seconds while another process has the file open.
    """
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            source.replace(target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in HELD_BY_ANOTHER_PROCESS or time.monotonic() > deadline:
                raise
            time.sleep(REPLACE_PAUSE)
        else:
            return


def flush_file(path: Path) -> None:
    """Flush `path` to the disk itself. Raises `OSError`."""
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk itself, if the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder and its parents, and flush their names to the disk itself. Raises `OSError`."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for path in missing:
        flush_folder(path.parent)
