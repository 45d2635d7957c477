"""Errors for packages that local generation needs."""

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from pathlib import Path

from ...pipeline.errors import MissingDependencyError

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
NEEDED = ("diffusers", "transformers", "huggingface_hub", "tokenizers", "safetensors", "torch")
"""Packages that must not be uninstalled. They are blamed only if no other package is in between."""
IMPORTING = threading.Lock()
"""Held while packages are imported, by a node or for a page. It outlives a run, as what is imported does."""
WITHOUT_DIFFUSERS = "The Checkpoint Loader needs no diffusers."


@contextmanager
def import_requirements() -> Iterator[None]:
    """Raise `MissingDependencyError` if an import fails, with the package to install or uninstall.

    diffusers turns import errors into RuntimeErrors that do not name the package.
    """
    with IMPORTING:
        try:
            yield
        except Exception as error:
            cause = first_cause(error)
            raise MissingDependencyError(
                f"Local generation cannot start: {advice(blamed_package(cause), cause)}\n{WITHOUT_DIFFUSERS}"
            ) from error


@contextmanager
def import_native() -> Iterator[None]:
    """Raise `MissingDependencyError` if ComfyUI has no class of a name needed for MODEL, CLIP and VAE."""
    try:
        with IMPORTING:
            yield
    except (ImportError, AttributeError) as error:
        from . import compat

        release = compat.comfyui_version.__version__
        raise MissingDependencyError(
            f"ComfyUI {release} has no class that this node needs for MODEL, CLIP and VAE: {error}. Tested: ComfyUI "
            f"{compat.TESTED[-1]}. Model Loader (Cosmos Predict2.5) and Generate Locally (Cosmos "
            "Predict2.5) do not need it."
        ) from error


def first_cause(error: BaseException) -> BaseException:
    """Return the error at the end of the chain."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return error


def blamed_package(cause: BaseException) -> str | None:
    """Return the import name of the package that could not be imported, or None if unknown.

    It is the last optional package that was being imported, or else the one in the error.
    """
    installed = packages_distributions()
    folders = sorted((Path(folder).resolve() for folder in sys.path if folder), key=lambda folder: -len(folder.parts))
    under_way = [_package_of(Path(frame.filename), folders) for frame in traceback.extract_tb(cause.__traceback__)]
    named = [cause.name.split(".")[0]] if isinstance(cause, ImportError) and cause.name else []
    neighbours = [name for name in (*under_way, *named) if name in installed and name not in NEEDED]
    return next(reversed(neighbours or named or [name for name in under_way if name in installed]), None)


def _package_of(file: Path, folders: list[Path]) -> str:
    folder = next((folder for folder in folders if folder in file.parents), file.parent)
    return file.relative_to(folder).parts[0].removesuffix(".py")


def advice(package: str | None, cause: BaseException) -> str:
    """Say what is wrong with `package` and what to do about it."""
    distributions = packages_distributions().get(package or "")
    pip = f'"{sys.executable}" -m pip'
    install = f'Install the missing packages into ComfyUI\'s Python with: {pip} install -r "{REQUIREMENTS}"'
    is_missing = isinstance(cause, ModuleNotFoundError) and cause.name == package
    if is_missing or not distributions:
        return f"{cause}. {install}"
    name = distributions[0]
    broken = f"{name} {version(name)} is installed but cannot be imported ({cause})."
    if package in NEEDED:
        return f"{broken} {install}"
    return f"{broken} Update it with: {pip} install -U {name}, or remove it with: {pip} uninstall {name}"
