"""Files on a disk, or at a URL that fsspec knows, such as s3://bucket/folder."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError, MissingDependencyError

Place = Path | str
"""A path, or a URL as text."""


def place_of(text: str) -> Place:
    """Return the path, or the URL, that `text` names."""
    return text if "://" in text else Path(text)


def opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises `MissingDependencyError` where its package is missing, and `InvalidRequestError` for an unknown protocol.
    """
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(f"{url} cannot be opened: {error}") from error
    except ValueError as error:
        raise InvalidRequestError(f"{url} cannot be opened: {error}") from error


def beside(folder: Place, name: str) -> Place:
    """Return `name`, a path or a URL, relative to `folder`."""
    if isinstance(folder, Path) or "://" in name:
        return place_of(name) if "://" in name else Path(folder, name)
    return f"{folder.rstrip('/')}/{name}"


def parent(place: Place) -> Place:
    """Return the folder of a file."""
    return place.parent if isinstance(place, Path) else place.rpartition("/")[0]


def is_file(place: Place) -> bool:
    if isinstance(place, Path):
        return place.is_file()
    system, path = opened(place)
    return system.isfile(path)


def texts_in(place: Place) -> list[str] | None:
    """Return the names of the .txt files in a folder, or None where it is no folder."""
    if isinstance(place, Path):
        return sorted(file.name for file in place.glob("*.txt")) if place.is_dir() else None
    system, path = opened(place)
    if not system.isdir(path):
        return None
    return sorted(name.rpartition("/")[2] for name in system.ls(path, detail=False) if name.endswith(".txt"))


def read(place: Place) -> bytes:
    """Return the content of a file. Raises `OSError`."""
    if isinstance(place, Path):
        return place.read_bytes()
    system, path = opened(place)
    return system.cat_file(path)


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """Yield the file itself, or a copy on the disk that is deleted afterwards. Raises `OSError`."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, place.rpartition("/")[2])
        system, path = opened(place)
        system.get_file(path, str(copy))
        yield copy


def upload(file: Path, url: str) -> None:
    """Write `file` to a URL, where it is seen when it is complete. Raises `OSError`."""
    system, path = opened(url)
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    with system.transaction, file.open("rb") as source, system.open(path, "wb") as target:
        shutil.copyfileobj(source, target, 2**22)
