"""Find checkpoints without loading them: torch, diffusers and transformers are not imported here."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import CheckpointNotFoundError

PIPELINE_CLASS = "Cosmos2_5_PredictBasePipeline"
REPOSITORY = "nvidia/Cosmos-Predict2.5-2B"
DOWNLOAD = f"download {REPOSITORY} --revision diffusers/base/post-trained --local-dir"
DISTRIBUTED = ".distcp"
OF_NVIDIA = "_ema_bf16.pt"
"""Suffix of the file names in the main revision."""
CONVERT = f"{sys.executable} -m torch.distributed.checkpoint.format_utils dcp_to_torch"
SHARD = re.compile(r"(.+[-_])(\d+)-of-(\d+)(\.\w+)")

FOR_CORE_NODES = "Cosmos Text to Video (core nodes)"
"""The template that runs a MODEL, a CLIP and a VAE."""
DEMO = "Demo: moving shapes (CPU)"
DEMO_FOLDER = Path(__file__).parents[3] / "demo" / "moving-shapes"
DEMO_LORA = "Demo: black shapes, for moving shapes"
DEMO_LORA_FILE = DEMO_FOLDER.with_name("loras") / "black-shapes.safetensors"
DEMO_DISTILLED_LORA = "Demo: four steps (distilled), for moving shapes"
DEMO_DISTILLED_LORA_FILE = DEMO_LORA_FILE.with_name("four-steps-distilled.safetensors")
DEMO_LORAS = {DEMO_LORA: DEMO_LORA_FILE, DEMO_DISTILLED_LORA: DEMO_DISTILLED_LORA_FILE}
"""The demo's LoRAs in the LoRA Loader, and their files."""
DEMO_SHAPES = ("circle", "ball", "disc", "square", "box", "block", "triangle", "pyramid")
"""The words for the demo's shapes."""


def find_checkpoints(roots: Iterable[Path]) -> dict[str, Path]:
    """Return name -> folder of the pipelines in `roots`, the largest first and the pack's own demo last."""
    demo = {DEMO: DEMO_FOLDER} if _is_cosmos(DEMO_FOLDER) else {}
    return {**find_pipeline_folders(roots), **demo}


def find_pipeline_folders(roots: Iterable[Path]) -> dict[str, Path]:
    """Return name -> folder of every Cosmos-Predict2.5 folder in diffusers layout in `roots`, the largest first."""
    found: dict[str, Path] = {}
    for root in roots:
        for folder, subfolders, files in _walk(root):
            if "model_index.json" in files:
                subfolders.clear()
                if _is_cosmos(folder):
                    found.setdefault(folder.relative_to(root).as_posix(), folder)
    return dict(sorted(found.items(), key=lambda item: -size_of_weights(item[1])))


def find_text_encoders(roots: Iterable[Path]) -> dict[str, Path]:
    """Return name -> folder of every transformers model in `roots`. The first root with a name wins."""
    found: dict[str, Path] = {}
    for root in roots:
        for folder, subfolders, files in _walk(root):
            subfolders.sort()
            if "config.json" in files and Path(folder) != root:
                subfolders.clear()
                found.setdefault(Path(folder).relative_to(root).as_posix(), Path(folder))
    return dict(sorted(found.items()))


def why_not_found(roots: Iterable[Path]) -> dict[str, str]:
    """Return name -> reason why it is not listed, for folders in `roots` that look like a checkpoint."""
    folders = [folder for root in roots if root.is_dir() for folder in sorted(root.iterdir()) if folder.is_dir()]
    reasons = {folder.name: _why_no_pipeline(folder) for folder in folders if not _is_cosmos(folder)}
    return {name: reason for name, reason in reasons.items() if reason}


def _why_no_pipeline(folder: Path) -> str | None:
    index = folder / "model_index.json"
    if index.is_file():
        return f"{index} {_what_else(index)}"
    files = files_below(folder)
    if any(file.suffix == DISTRIBUTED for file in files):
        return how_to_convert(folder)
    if any(file.name.endswith(OF_NVIDIA) for file in files):
        return (
            f"{folder} has no model_index.json: it is NVIDIA's main revision, not the one in diffusers layout. "
            f"Download that one: hf {DOWNLOAD} {folder}"
        )
    return None


def how_to_convert(folder: Path) -> str:
    """Return advice for the folder of a distributed checkpoint."""
    return (
        f"{folder} is a distributed checkpoint. If it is a state of NVIDIA's training, make one file of it with "
        "NVIDIA's scripts/convert_distcp_to_pt.py, put its model_ema_bf16.pt into models/diffusion_models, and choose "
        f"that. If it holds one network, as DFD's does, this makes a file of it: {CONVERT} {folder} "
        f"models/diffusion_models/{folder.name}.pt"
    )


def _what_else(index: Path) -> str:
    try:
        name = read_json(index).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        return f"cannot be read: {error}."
    return f"describes a {name}, not a {PIPELINE_CLASS}."


def shards_of(path: Path) -> list[Path]:
    """Return the file itself, or all shards of its model, as in "model-00002-of-00003.safetensors".

    Raises `CheckpointNotFoundError` if some are missing.
    """
    match = SHARD.fullmatch(path.name)
    if not match:
        return [path]
    name, count, suffix = match[1], match[3], match[4]
    files = [path.with_name(f"{name}{index:0{len(count)}}-of-{count}{suffix}") for index in range(1, int(count) + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointNotFoundError(
            f"{path} is one of {int(count)} files, and {path.parent} has no {', '.join(missing)}. Download these too."
        )
    return files


def read_json(file: Path) -> Any:
    """Return the content of a JSON file, which may begin with a byte order mark from a Windows editor."""
    return json.loads(file.read_text(encoding="utf-8-sig"))


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk like `os.walk`, through links, but never into a folder from inside itself, which would not end."""
    for folder, subfolders, files in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        above = {os.path.realpath(path) for path in (folder, *list(Path(folder).parents)[:depth])}
        subfolders[:] = [name for name in subfolders if os.path.realpath(Path(folder, name)) not in above]
        yield Path(folder), subfolders, files


def files_below(folder: Path) -> list[Path]:
    """Return every file below `folder`, through links, without broken ones."""
    paths = (parent / name for parent, _, names in _walk(folder) for name in names)
    return sorted(path for path in paths if path.is_file())


def size_of_weights(folder: Path) -> int:
    """Return the bytes of all safetensors files below `folder`."""
    return sum(file.stat().st_size for file in files_below(folder) if file.suffix == ".safetensors")


def nothing_found(roots: Sequence[Path], wanted: str = "") -> CheckpointNotFoundError:
    """Return the error if no root has a checkpoint, or none called `wanted`. It says how to download the model."""
    folders = " or ".join(map(str, roots))
    missing = f"The checkpoint {wanted!r} is not in {folders}."
    return CheckpointNotFoundError(
        f"{missing if wanted else f'There is no Cosmos-Predict2.5 model in {folders}.'}\n"
        f"To try the nodes without it, choose '{DEMO}' as checkpoint, which draws coloured shapes.\n"
        f"{how_to_download(roots[0])}"
    )


def how_to_download(root: Path) -> str:
    """Return the steps for downloading NVIDIA's model into `root`."""
    hf = f'"{sys.executable}" -m huggingface_hub.cli.hf'  # portable Windows has no `hf`
    return (
        f"To get NVIDIA's 2B model (20 GB):\n1. Accept its license: https://huggingface.co/{REPOSITORY}\n"
        f"2. Log in with a token: {hf} auth login\n"
        f'3. Download it: {hf} {DOWNLOAD} "{root / REPOSITORY.split("/")[1]}"\n4. Press R in ComfyUI, then Run.'
    )


def names_a_demo_shape(prompt: str) -> bool:
    """Return whether `prompt` has a word for a shape that the demo can draw, in singular or plural."""
    return any(word.startswith(DEMO_SHAPES) for word in prompt.lower().split())


def _is_cosmos(folder: Path) -> bool:
    try:
        index = read_json(folder / "model_index.json")
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get("_class_name") == PIPELINE_CLASS
