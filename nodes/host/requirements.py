"""The packages that local generation needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...pipeline.errors import MissingDependencyError

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"


@contextmanager
def import_requirements() -> Iterator[None]:
    """Raise `MissingDependencyError`, which says how to install them, when one cannot be imported."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"Local generation cannot start: {error}. Install what it needs into ComfyUI's Python with: "
            f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
        ) from error
