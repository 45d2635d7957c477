"""Errors for files that cannot be read, with a remedy for each cause."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ...errors import CosmosError, WrongCheckpointError
from .find import DISTRIBUTED, files_below, how_to_convert

LFS, PAGE = b"version https://git-lfs", re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno \d+\]|: [A-Z][\w ]+ \((\d+)\)$")
"""System errors as Rust, Python and PyTorch report them."""
CODE = re.compile(r"GLOBAL (\S+)|global (\S+) was not an allowed")
NEW_FORMAT = re.compile("untagged enum|unknown variant")


@contextmanager
def as_wrong_checkpoint(path: Path) -> Iterator[None]:
    """Turn errors while reading `path`, a file or a folder, into a `WrongCheckpointError` with a remedy."""
    try:
        yield
    except (CosmosError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers raises no class of its own
        raise WrongCheckpointError(why_unreadable(path, error)) from error


def why_unreadable(path: Path, error: Exception) -> str:
    """Return a sentence on the cause and one on the remedy."""
    if path.is_dir():
        return _why_folder(path, error)
    if is_system_error(error):
        return (
            f"{path} cannot be read. The system says: {error}. The file itself may be whole: allow the account that "
            "runs ComfyUI to read it, or copy it to a disk of this machine."
        )
    start = beginning(path)
    if start.startswith(LFS):
        return (
            f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder, or download the file "
            "with `hf download`."
        )
    if start.startswith(b"GGUF"):
        return (
            f"{path} is a GGUF file, which this loader cannot read. Choose a .safetensors or .pt file, or load it with "
            "another pack's GGUF loader, as the help page of Checkpoint Loader (Cosmos Predict2.5) says."
        )
    if code := CODE.search(str(error)):
        return (
            f"{path} contains code ({code[1] or code[2]}), which is not run for safety. Save only its weights, as "
            ".safetensors, or choose another file."
        )
    if zipfile.is_zipfile(path) and any(name.endswith(DISTRIBUTED) for name in zipfile.ZipFile(path).namelist()):
        return f"{path} is the zip of a distributed checkpoint: extract it. {how_to_convert(path.with_suffix(''))}"
    size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    if PAGE.match(start):
        return (
            f"{path}{size} cannot be read: it is a web page, perhaps one that asks for a login. Log in, or accept the "
            "model's license, and download it again."
        )
    if path.is_file() and not start:
        return f"{path}{size} cannot be read: it is empty. Download it again."
    return f"{path}{size} cannot be read: {error}. It may be incomplete or another kind of file: download it again."


def _why_folder(folder: Path, error: Exception) -> str:
    if any(file.suffix == DISTRIBUTED for file in files_below(folder)):
        return how_to_convert(folder)
    if NEW_FORMAT.search(str(error)):
        return (
            f"{folder / 'tokenizer.json'} has a newer format than the installed tokenizers package can read ({error}). "
            "Update it with: pip install -U tokenizers transformers"
        )
    if is_system_error(error):
        return f"{folder} cannot be read. The system says: {error}. Allow the account that runs ComfyUI to read it."
    return f"{folder} cannot be read: {error}. It may be incomplete, or belong to another model: download it again."


def is_system_error(error: Exception) -> bool:
    """Return whether the system failed to read an existing file: permission, disk, network or memory map."""
    if isinstance(error, FileNotFoundError):
        return False
    has_number = isinstance(error, OSError) and error.errno is not None
    return has_number or bool(SYSTEM_ERROR.search(str(error)))


def beginning(path: Path, size: int = 64) -> bytes:
    """Return the first bytes of a file, or none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""
