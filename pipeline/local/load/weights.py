"""Tensors from files: by memory map, straight into the dtype that they will have."""

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
"""Ends of the names by which files for ComfyUI have the scales of layers in float8."""
SAFETENSORS = (".safetensors", ".sft")
COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What a CPU computes in as it is. All else, such as float8, only stores."""


class TensorFile:
    """The tensors of one file, read when asked for: a safetensors file, or a pickle, which is read with `weights_only`.

    `names`, and `metadata`, which a pickle has none of. Raises `WrongCheckpointError` for a file that is neither.
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
        """The tensor in `dtype`, or in its own where that is None: then it stays in the memory map."""
        if not self._map:
            return self._tensors[name].to(dtype or self._tensors[name].dtype)
        tensor = self._map.get_tensor(name)
        if dtype in (None, tensor.dtype):
            return tensor
        # A map of its own, given back with the tensor: else every page that was converted would stay in memory.
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(name).to(dtype)


def is_safetensors(path: Path) -> bool:
    """By what is in the file, as a name may be wrong: the length of a header, and JSON."""
    return beginning(path)[8:9] == b"{" or (path.suffix.lower() in SAFETENSORS and not zipfile.is_zipfile(path))


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {})


def read_pickle(path: Path) -> Mapping[str, Tensor]:
    """The weights in a pickle, by name, in the memory map where there can be one.

    transformer_engine kept the state of its layers as an io.BytesIO, which is harmless.
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
            f"{path} holds {type(content).__name__} without weights by name. Choose another file."
        )
    return weights


def _state_dicts(content: Any) -> Iterator[dict[str, Tensor]]:
    """What of a training's state may be its weights: the tensors of each dictionary in it, but for an optimizer's."""
    if not isinstance(content, Mapping):
        return
    yield {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name, value in content.items():
        if not str(name).startswith("optim"):
            yield from _state_dicts(value)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component's folder, of its index where it has one."""
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
    """Give `module`, built on the meta device, the tensors of `sources`, in `dtype` or, for None, in their own.

    Raises `WrongCheckpointError` when they differ.
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
    """None where the tensors have all one type to compute in, else float32: layers of two do not fit together."""
    dtypes = {source.file.dtype(source.name) for source in sources.values()}
    return None if len(dtypes) == 1 and dtypes <= set(COMPUTE_DTYPES) else torch.float32
