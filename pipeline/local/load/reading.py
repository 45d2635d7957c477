"""Why a file cannot be read, in words that help: each cause has its own remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ...errors import CosmosError, WrongCheckpointError
from .find import DISTRIBUTED, files_below, how_to_convert

LFS, PAGE = b"version https://git-lfs", re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno \d+\]|: [A-Z][\w ]+ \((\d+)\)$")
"""How Rust, Python and PyTorch tell of an error of the system's."""
CODE = re.compile(r"GLOBAL (\S+)|global (\S+) was not an allowed")
NEW_FORMAT = re.compile("untagged enum|unknown variant")


@contextmanager
def as_wrong_checkpoint(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading `path`, a file or a folder, into a `WrongCheckpointError` with the remedy."""
    try:
        yield
    except (CosmosError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers raises no class of its own
        raise WrongCheckpointError(why_unreadable(path, error)) from error


def why_unreadable(path: Path, error: Exception) -> str:
    """A sentence on the cause, and one on what to do."""
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
            f"{path} is not the weights but Git LFS's note of where they are: run `git lfs pull` in its folder, or "
            "download the file with `hf download`."
        )
    if start.startswith(b"GGUF"):
        return (
            f"{path} is a GGUF file, which this loader cannot read. Choose a .safetensors or .pt file, or load it with "
            "another pack's GGUF loader, as the help page of Checkpoint Loader (Cosmos Predict2.5) says."
        )
    if code := CODE.search(str(error)):
        return (
            f"{path} holds {code[1] or code[2]}, which is code and is not run here. Save its weights alone, "
            "as .safetensors, or take another file."
        )
    size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    if PAGE.match(start):
        return (
            f"{path}{size} cannot be read: it is a web page, perhaps one that asks for a login. Log in, or accept the "
            "model's license, and download it again."
        )
    if path.is_file() and not start:
        return f"{path}{size} cannot be read: it is empty: download it again."
    return f"{path}{size} cannot be read: {error}. It may be incomplete or another kind of file: download it again."


def _why_folder(folder: Path, error: Exception) -> str:
    if any(file.suffix == DISTRIBUTED for file in files_below(folder)):
        return how_to_convert(folder)
    if NEW_FORMAT.search(str(error)):
        return (
            f"{folder / 'tokenizer.json'} is of a newer format than the installed tokenizers package reads ({error}). "
            "Update it with: pip install -U tokenizers transformers"
        )
    if is_system_error(error):
        return f"{folder} cannot be read. The system says: {error}. Allow the account that runs ComfyUI to read it."
    return f"{folder} cannot be read: {error}. It may be incomplete or another model's: download it again."


def is_system_error(error: Exception) -> bool:
    """Whether the system would not give a file that is there: a permission, a disk or a network, or no memory maps."""
    if isinstance(error, FileNotFoundError):
        return False
    has_number = isinstance(error, OSError) and error.errno is not None
    return has_number or bool(SYSTEM_ERROR.search(str(error)))


def beginning(path: Path, size: int = 64) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""
