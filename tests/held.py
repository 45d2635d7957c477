"""The files that people hold, made small: for tests/test_refusals.py and tests/test_files.py."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder, load_single_files
from cosmos_predict25.pipeline.local.load.lora import Lora, read_lora
from cosmos_predict25.pipeline.local.load.original_names import original_name
from cosmos_predict25.pipeline.local.model import LocalModel

Weights = dict[str, Tensor]
LAYER = "transformer_blocks.0.attn1.to_q"
SHAPES = {LAYER: (8, 8), "crossattn_proj.0": (8, 16)}


@dataclass(frozen=True)
class Held:
    """`folder`: a checkpoint in diffusers layout that may be changed. `empty`: room for more files."""

    folder: Path
    empty: Path

    @property
    def transformer(self) -> Path:
        return self.folder / "transformer" / "diffusion_pytorch_model.safetensors"

    @property
    def vae(self) -> Path:
        return self.folder / "vae" / "diffusion_pytorch_model.safetensors"

    @property
    def text_encoder(self) -> Path:
        """A transformers folder, with its tokenizer."""
        place = self.empty / "reason"
        if not place.exists():
            shutil.copytree(self.folder / "text_encoder", place)
            shutil.copytree(self.folder / "tokenizer", place, dirs_exist_ok=True)
        return place

    def weights(self, prefix: str = "net.") -> Weights:
        """The transformer's, by NVIDIA's names."""
        return {prefix + original_name(name): tensor for name, tensor in load_file(self.transformer).items()}

    def with_lora(self) -> Weights:
        """As NVIDIA's LoRA training leaves them."""
        found = {}
        for name, tensor in self.weights("").items():
            layer = name.removesuffix(".weight")
            if layer.endswith(("_proj", "layer1", "layer2")):
                found[f"net.base_model.model.{layer}.base_layer.weight"] = tensor
                found[f"net.base_model.model.{layer}.lora_A.default.weight"] = torch.ones(4, tensor.shape[1])
                found[f"net.base_model.model.{layer}.lora_B.default.weight"] = torch.ones(tensor.shape[0], 4)
            else:
                found[f"net.base_model.model.{name}"] = tensor
        return found

    def write(self, name: str, content: Any) -> Path:
        """Bytes as they are, weights as safetensors or a pickle by the suffix, and anything else as a pickle."""
        path = self.empty / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".safetensors":
            save_file({key: tensor.contiguous() for key, tensor in content.items()}, path)
        else:
            torch.save(content, path)
        return path

    def change_json(self, name: str, **values: Any) -> None:
        """Of a file in the checkpoint's folder; None removes a field."""
        path = self.folder / name
        found = {**json.loads(path.read_text(encoding="utf-8")), **values}
        path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))

    def load_folder(self, **options: Any) -> LocalModel:
        return load_pipeline_folder(self.folder, **options)

    def load_file(self, transformer: Path, **options: Any) -> LocalModel:
        return load_single_files(transformer, self.vae, self.text_encoder, **options)

    def load(self, name: str, content: Any) -> LocalModel:
        """With that as the transformer's file."""
        return self.load_file(self.write(name, content))

    def load_lora(self, name: str, content: Any) -> Lora:
        return read_lora(self.write(name, content), SHAPES)


def pair(layer: str, rank: int = 4, kinds: tuple[str, str] = ("lora_A.weight", "lora_B.weight")) -> Weights:
    """A LoRA of ones for LAYER, with that name."""
    return {f"{layer}.{kinds[0]}": torch.ones(rank, 8), f"{layer}.{kinds[1]}": torch.ones(8, rank)}
