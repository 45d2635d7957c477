"""Find checkpoints without loading them: torch, diffusers and transformers are not imported here."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import CheckpointNotFoundError

PIPELINE_CLASS = "Cosmos2_5_PredictBasePipeline"
REPOSITORY = "nvidia/Cosmos-Predict2.5-2B"
DOWNLOAD = f"download {REPOSITORY} --revision diffusers/base/post-trained --local-dir"


DEMO = "Demo: moving shapes (CPU)"
DEMO_FOLDER = Path(__file__).parents[3] / "demo" / "moving-shapes"
DEMO_LORA = "Demo: black shapes, for moving shapes"
DEMO_LORA_FILE = DEMO_FOLDER.with_name("loras") / "black-shapes.safetensors"
DEMO_SHAPES = ("circle", "ball", "disc", "square", "box", "block", "triangle", "pyramid")
"""The words for what the demo can draw."""


def find_checkpoints(roots: Iterable[Path]) -> dict[str, Path]:
    """Return name -> folder of the pipelines below `roots`, the largest one first, and last the pack's own demo."""
    demo = {DEMO: DEMO_FOLDER} if _is_cosmos(DEMO_FOLDER) else {}
    return {**find_pipeline_folders(roots), **demo}


def find_pipeline_folders(roots: Iterable[Path]) -> dict[str, Path]:
    """Return name -> folder of every Cosmos-Predict2.5 folder in diffusers layout below `roots`, the largest first."""
    found: dict[str, Path] = {}
    for root in roots:
        for folder, subfolders, files in _walk(root):
            if "model_index.json" in files:
                subfolders.clear()
                if _is_cosmos(folder):
                    found.setdefault(folder.relative_to(root).as_posix(), folder)
    return dict(sorted(found.items(), key=lambda item: -size_of_weights(item[1])))


def find_text_encoders(roots: Iterable[Path]) -> dict[str, Path]:
    """Name -> folder of every transformers model directly in one of `roots`; the first root that has a name wins."""
    found: dict[str, Path] = {}
    for root in roots:
        for config in sorted(root.glob("*/config.json")):
            found.setdefault(config.parent.name, config.parent)
    return found


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield what `os.walk` does, through links, but not into a folder again from within: that has no end."""
    for folder, subfolders, files in os.walk(root, followlinks=True):
        depth = len(Path(folder).relative_to(root).parts)
        above = {os.path.realpath(path) for path in (folder, *list(Path(folder).parents)[:depth])}
        subfolders[:] = [name for name in subfolders if os.path.realpath(Path(folder, name)) not in above]
        yield Path(folder), subfolders, files


def files_below(folder: Path) -> list[Path]:
    """Return every file below `folder`, through links; links to nowhere are left out."""
    paths = (parent / name for parent, _, names in _walk(folder) for name in names)
    return sorted(path for path in paths if path.is_file())


def size_of_weights(folder: Path) -> int:
    """Return the bytes of all safetensors files below `folder`."""
    return sum(file.stat().st_size for file in files_below(folder) if file.suffix == ".safetensors")


def nothing_found(roots: Sequence[Path]) -> CheckpointNotFoundError:
    """Return the error to raise if no root has a checkpoint; the first of `roots` is where to put one."""
    hf = f'"{sys.executable}" -m huggingface_hub.cli.hf'  # portable Windows has no `hf`
    return CheckpointNotFoundError(
        f"No Cosmos-Predict2.5 checkpoint was found in {' or '.join(map(str, roots))}. The model is gated: accept its "
        f"license at https://huggingface.co/{REPOSITORY}, log in with a token ({hf} auth login), then download it "
        f'(about 20 GB) with: {hf} {DOWNLOAD} "{roots[0] / REPOSITORY.split("/")[1]}"'
    )


def names_a_demo_shape(prompt: str) -> bool:
    """Return whether `prompt` has a word for a shape that the demo can draw, in singular or plural."""
    return any(word.startswith(DEMO_SHAPES) for word in prompt.lower().split())


def _is_cosmos(folder: Path) -> bool:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get("_class_name") == PIPELINE_CLASS
