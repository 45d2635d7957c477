"""Read tensors from files by memory map, directly into their final dtype."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ...errors import CheckpointNotFoundError, WrongCheckpointError
from ...observer import NullObserver, Observer
from .find import FOR_CORE_NODES, read_json
from .reading import as_wrong_checkpoint, beginning, is_system_error

SCALES = ("comfy_quant", "weight_scale", "scale_weight", "input_scale", "scale_input", "scaled_fp8")
"""Suffixes of the names of float8 scales in files for ComfyUI."""
SAFETENSORS = (".safetensors", ".sft")
COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes a CPU can compute in. Others, such as float8, are for storage only."""


class TensorFile:
    """The tensors of one file, read on demand: a safetensors file, or a pickle, read with `weights_only`.

    A pickle has no `metadata`. Raises `WrongCheckpointError` for any other file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self._map: Any = None
        self._tensors: Mapping[str, Tensor] = {}
        with as_wrong_checkpoint(path):
            if is_safetensors(path):
                self._open_safetensors()
            else:
                self._tensors = read_pickle(path)
        self.names = list(self._map.keys() if self._map else self._tensors)

    def _open_safetensors(self) -> None:
        try:
            self._map = safe_open(self.path, framework="pt")
            self.metadata = self._map.metadata() or {}
        except Exception as error:
            if not is_system_error(error):
                raise
            # Some disks, as those of a network, have no memory maps.
            content = self.path.read_bytes()
            self._tensors, self.metadata = load_safetensors(content), _metadata(content)

    def shape(self, name: str) -> tuple[int, ...]:
        if self._map:
            return tuple(self._map.get_slice(name).get_shape())
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        # An empty slice has the tensor's type without a value being read.
        return self._map.get_slice(name)[:0].dtype if self._map and self.shape(name) else self.read(name, None).dtype

    def read(self, name: str, dtype: torch.dtype | None) -> Tensor:
        """Return the tensor in `dtype`, or in its own dtype if None: then it stays in the memory map."""
        if not self._map:
            return self._tensors[name].to(dtype or self._tensors[name].dtype)
        tensor = self._map.get_tensor(name)
        if dtype in (None, tensor.dtype):
            return tensor
        # A map of its own, given back with the tensor: else every page that was converted would stay in memory.
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(name).to(dtype)


def is_safetensors(path: Path) -> bool:
    """Recognise a safetensors file by its header, a length and JSON, since its name may be wrong."""
    return beginning(path)[8:9] == b"{" or (path.suffix.lower() in SAFETENSORS and not zipfile.is_zipfile(path))


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {})


def read_pickle(path: Path) -> Mapping[str, Tensor]:
    """Return the weights in a pickle by name, memory-mapped if possible.

    transformer_engine stored the state of its layers as an io.BytesIO, which is harmless.
    """
    with torch.serialization.safe_globals([io.BytesIO]):
        try:
            content = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
        except (OSError, RuntimeError) as error:
            if not is_system_error(error):
                raise
            content = torch.load(path, map_location="cpu", weights_only=True)
    weights = max(_state_dicts(content), key=len, default={})
    if not weights:
        raise WrongCheckpointError(
            f"{path} holds a {type(content).__name__} without named weights. Choose another file."
        )
    return weights


def _state_dicts(content: Any) -> Iterator[dict[str, Tensor]]:
    """Return the possible weights in a training state: the tensors of each dictionary, except an optimizer's."""
    if not isinstance(content, Mapping):
        return
    yield {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name, value in content.items():
        if not str(name).startswith("optim"):
            yield from _state_dicts(value)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a component's folder, from its index if it has one."""
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        with as_wrong_checkpoint(indexes[0]):
            names = set(read_json(indexes[0])["weight_map"].values())
        files = [folder / name for name in sorted(names)]
    else:
        # A Mac puts a file of its own, with a dot before the name, beside each one on a foreign disk.
        files = sorted(folder.glob("[!.]*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise CheckpointNotFoundError(
            f"{folder} has no {', '.join(missing) or '.safetensors file'}. Download the whole checkpoint again."
        )
    return files


class Source(NamedTuple):
    """The file and the name of a parameter's values."""

    file: TensorFile
    name: str


def index_tensors(paths: Iterable[Path], rename: Callable[[str], str | None]) -> dict[str, Source]:
    """Return parameter name -> place in the files. `rename` maps the files' names, to None to drop a tensor."""
    sources: dict[str, Source] = {}
    for file in map(TensorFile, paths):
        for name in file.names:
            parameter = rename(name)
            if parameter is not None:
                sources[parameter] = Source(file, name)
    return sources


def check_same_tensors(expected: Iterable[tuple[str, Tensor]], sources: dict[str, Source], what: str) -> None:
    """Raise `WrongCheckpointError` unless the files hold exactly the parameters of `what`, in their shapes."""
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
            f"{path} holds {what} in scaled float8, which only ComfyUI's own nodes can run. Open the template "
            f"'{FOR_CORE_NODES}', choose 'single files' and this file in its Checkpoint Loader, or take a file in "
            "bfloat16 here."
        )
    if problems:
        path = next((source.file.path for source in sources.values()), "The file")
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WrongCheckpointError(f"{path} does not hold {what}: {'; '.join(problems[:3])}{more}.")


def load_tensors(
    module: nn.Module,
    sources: dict[str, Source],
    dtype: torch.dtype | None,
    what: str,
    observer: Observer | None = None,
) -> None:
    """Load the tensors of `sources` into `module`, built on the meta device, in `dtype` or their own if None.

    Raises `WrongCheckpointError` if names or shapes differ.
    """
    reading = Reading(sources, what, observer or NullObserver())
    check_same_tensors(module.state_dict().items(), sources, what)
    dtype = dtype or one_compute_dtype(sources)
    in_float32 = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())  # of diffusers' models
    tensors = {
        name: reading.read(source, torch.float32 if name.startswith(in_float32) and dtype else dtype)
        for name, source in sources.items()
    }
    module.load_state_dict(tensors, assign=True)
    module.requires_grad_(False).eval()


class Reading:
    """Reads the tensors of a part one by one, and reports the bytes of its files."""

    def __init__(self, sources: Mapping[str, Source], what: str, observer: Observer) -> None:
        self._what = what
        self._observer = observer
        self._bytes = sum(file.stat().st_size for file in {source.file.path for source in sources.values()})
        self._values = sum(math.prod(source.file.shape(source.name)) for source in sources.values())
        self._read = 0

    def read(self, source: Source, dtype: torch.dtype | None) -> Tensor:
        """Return a tensor, as of `TensorFile.read`."""
        self._observer.raise_if_stopped()
        before, self._read = self._hundredths(), self._read + math.prod(source.file.shape(source.name))
        tensor = source.file.read(source.name, dtype)
        if (now := self._hundredths()) != before:
            size = f"{now * self._bytes / 1e11:.1f} of {self._bytes / 1e9:.1f} GB"
            self._observer.progress(f"Reading {self._what}, {size}", now, 100)
        return tensor

    def _hundredths(self) -> int:
        return 100 * self._read // max(1, self._values)


def one_compute_dtype(sources: Mapping[str, Source]) -> torch.dtype | None:
    """Return None if all tensors share one computable dtype, else float32: layers of two dtypes do not mix."""
    dtypes = {source.file.dtype(source.name) for source in sources.values()}
    return None if len(dtypes) == 1 and dtypes <= set(COMPUTE_DTYPES) else torch.float32
