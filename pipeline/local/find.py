"""Which checkpoints there are, without loading anything: no torch, diffusers or transformers is imported here."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointNotFound

PIPELINE_CLASS = "Cosmos2_5_PredictBasePipeline"
REPOSITORY = "nvidia/Cosmos-Predict2.5-2B"
REVISION = "diffusers/base/post-trained"


def find_pipeline_folders(roots: Iterable[Path]) -> dict[str, Path]:
    """Name -> folder of every Cosmos-Predict2.5 pipeline in diffusers layout below `roots`, the largest one first."""
    found: dict[str, Path] = {}
    for root in roots:
        for folder, subfolders, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                subfolders.clear()
                if _pipeline_class(Path(folder)) == PIPELINE_CLASS:
                    found.setdefault(Path(folder).relative_to(root).as_posix(), Path(folder))
    return dict(sorted(found.items(), key=lambda item: -size_of_weights(item[1])))


def find_text_encoders(roots: Iterable[Path]) -> dict[str, Path]:
    """Name -> folder of every transformers model directly in one of `roots`."""
    configs = (config for root in roots for config in sorted(root.glob("*/config.json")))
    return {config.parent.name: config.parent for config in configs}


def size_of_weights(folder: Path) -> int:
    """Bytes of all safetensors files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def nothing_found(folder: Path) -> CheckpointNotFound:
    """The error to raise when there is no checkpoint; `folder` is where one should be put."""
    return CheckpointNotFound(
        f"No Cosmos-Predict2.5 checkpoint was found in {folder}. The model is gated: accept its license at "
        f"https://huggingface.co/{REPOSITORY}, log in with a token (hf auth login), then download it (about 20 GB) "
        f'with: hf download {REPOSITORY} --revision {REVISION} --local-dir "{folder / REPOSITORY.split("/")[1]}"'
    )


def _pipeline_class(folder: Path) -> str | None:
    try:
        return json.loads((folder / "model_index.json").read_text()).get("_class_name")
    except (OSError, ValueError):
        return None
