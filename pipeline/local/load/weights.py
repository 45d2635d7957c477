"""Tensors from files: by memory map, straight into the dtype that they will have."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import CheckpointNotFoundError, WrongCheckpointError

SCALES = ("comfy_quant", "weight_scale", "scale_weight", "input_scale", "scale_input", "scaled_fp8")
"""Ends of the names by which files for ComfyUI have the scales of layers in float8."""

# transformers 4 asks for protobuf where it cannot read a tokenizer.
READING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    ImportError,
    SafetensorError,
    UnpicklingError,
)


@contextmanager
def as_wrong_checkpoint(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading `path` into a `WrongCheckpointError` that names it."""
    try:
        yield
    except WrongCheckpointError:
        raise
    except READING_ERRORS as error:
        size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
        raise WrongCheckpointError(
            f"{path}{size} cannot be read: {error}. It may be incomplete or another kind of file: download it again."
        ) from error


class TensorFile:
    """The tensors of one file, read when asked for: a safetensors file, or a pickle, which is read with `weights_only`.

    Raises `WrongCheckpointError` for a file that is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_safetensors = path.suffix.lower() in (".safetensors", ".sft")
        with as_wrong_checkpoint(path):
            if self._is_safetensors:
                self._safetensors = safe_open(path, framework="pt")
                self.names = list(self._safetensors.keys())
                self.metadata: dict[str, str] = self._safetensors.metadata() or {}
            else:
                content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
                # Beside its weights NVIDIA's training code keeps other things, such as the state of its layers.
                self._pickle = {name: value for name, value in dict(content).items() if isinstance(value, Tensor)}
                self.names = list(self._pickle)
                self.metadata = {}

    def shape(self, name: str) -> tuple[int, ...]:
        if self._is_safetensors:
            return tuple(self._safetensors.get_slice(name).get_shape())
        return tuple(self._pickle[name].shape)

    def read(self, name: str, dtype: torch.dtype | None) -> Tensor:
        """The tensor in `dtype`, or in its own where that is None: then it stays in the memory map."""
        if not self._is_safetensors:
            return self._pickle[name].to(dtype or self._pickle[name].dtype)
        tensor = self._safetensors.get_tensor(name)
        if dtype in (None, tensor.dtype):
            return tensor
        # A map of its own, given back with the tensor: else every page that was converted would stay in memory.
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(name).to(dtype)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component's folder, of its index where it has one."""
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        with as_wrong_checkpoint(indexes[0]):
            names = set(json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    else:
        # A Mac puts a file of its own, with a dot before the name, beside each one on a foreign disk.
        files = sorted(folder.glob("[!.]*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise CheckpointNotFoundError(
            f"{folder} lacks {', '.join(missing) or 'a .safetensors file'}. Download the checkpoint again, all of it."
        )
    return files


class Source(NamedTuple):
    """Where a parameter's values are."""

    file: TensorFile
    name: str


def index_tensors(paths: Iterable[Path], rename: Callable[[str], str | None]) -> dict[str, Source]:
    """Parameter name -> place in the files, with the files' names put through `rename`; None drops a tensor."""
    sources: dict[str, Source] = {}
    for file in map(TensorFile, paths):
        for name in file.names:
            parameter = rename(name)
            if parameter is not None:
                sources[parameter] = Source(file, name)
    return sources


def check_same_tensors(expected: Iterable[tuple[str, Tensor]], sources: dict[str, Source], what: str) -> None:
    """Raise `WrongCheckpointError` unless the files hold just the parameters of `what`, in their shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in expected}
    problems = [f"{name} is missing" for name in shapes if name not in sources]
    problems += [f"{name} is not part of it" for name in sources if name not in shapes]
    problems += [
        f"{name} has shape {source.file.shape(source.name)} instead of {shapes[name]}"
        for name, source in sources.items()
        if name in shapes and source.file.shape(source.name) != shapes[name]
    ]
    if any(name.endswith(SCALES) for name in sources):
        path = next(iter(sources.values())).file.path
        raise WrongCheckpointError(
            f"{path} holds {what} in float8 with scales, which ComfyUI's own layers alone know. Load it with 'Load "
            "Cosmos Predict2.5 Checkpoint', for KSampler, or take a file in bfloat16 here."
        )
    if problems:
        path = next((source.file.path for source in sources.values()), "The file")
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WrongCheckpointError(f"{path} does not hold {what}: {'; '.join(problems[:3])}{more}.")


def load_tensors(module: nn.Module, sources: dict[str, Source], dtype: torch.dtype | None, what: str) -> None:
    """Give `module`, built on the meta device, the tensors of `sources`.

    Raises `WrongCheckpointError` when they differ.
    """
    check_same_tensors(module.state_dict().items(), sources, what)
    module.load_state_dict(
        {name: source.file.read(source.name, dtype) for name, source in sources.items()}, assign=True
    )
    module.requires_grad_(False).eval()
