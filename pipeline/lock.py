"""Locks between processes: the system gives them back when the process that holds them dies."""

import errno
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
"""Said by a drive that has no locks; filelock itself knows ENOSYS."""


def acquire(path: Path) -> BaseFileLock | None:
    """Take a lock and return it, None where another one holds it.

    On a drive that has no locks, such as some of networks and clouds, another file beside it is the lock.
    """
    try:
        return taken(FileLock(path, timeout=0, thread_local=False))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return taken(SoftFileLock(path.with_name(f"{path.name}.soft"), timeout=0, thread_local=False))


def taken(lock: BaseFileLock) -> BaseFileLock | None:
    """Return `lock`, held, or None where another one holds it. Raises `OSError`."""
    with suppress(Timeout):
        lock.acquire()
        return lock
    return None


def release(lock: BaseFileLock) -> None:
    """Release a lock. Its file goes before, which filelock notices where another process has opened it already."""
    if not isinstance(lock, SoftFileLock):
        with suppress(OSError):  # on Windows the release removes it
            Path(lock.lock_file).unlink()
    lock.release()
