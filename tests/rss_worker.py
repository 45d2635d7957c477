"""Run by tests/test_memory_rss.py in a process of its own: resident memory in bytes, printed as JSON.

python rss_worker.py runs CHECKPOINT OTHER_CHECKPOINT    # after one video of each, and after five more
python rss_worker.py encode FOLDER                       # idle, and the most while one prompt is encoded, streamed
"""

import ctypes
import gc
import json
import struct
import sys
from pathlib import Path

import psutil
import torch
from torch.nn import Linear

from cosmos_predict25.devtools import comfy_on_cpu  # noqa: F401

# isort: split
from comfy import model_management
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLTextModel

from cosmos_predict25.devtools.accounting import TEXT
from cosmos_predict25.devtools.peak import PeakRss
from cosmos_predict25.devtools.random_checkpoint import random_tokenizer
from cosmos_predict25.nodes.host.memory import CosmosPredict25Part, CosmosPredict25Patcher, HostedModel
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import _load_language_model, load_pipeline_folder
from cosmos_predict25.pipeline.local.load.weights import index_tensors, load_tensors
from cosmos_predict25.pipeline.local.model import TextEncoder
from cosmos_predict25.pipeline.request import GenerationRequest

LAYERS = 1


def resident() -> int:
    """Without what is free in the allocator's pools, whose size depends on the order in which threads have run."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def runs(folders: list[Path]) -> dict[str, int]:
    request = GenerationRequest(
        prompt="A red circle.", seed=3, num_frames=9, num_inference_steps=2, width=64, height=64
    )

    def both() -> None:
        for folder in folders:
            host = HostedModel(load_pipeline_folder(folder), guardrail=False)
            generate(host.model, request, placement=host, prompts=host.prompts)
            model_management.unload_all_models()

    both()
    first = resident()
    for _ in range(5):
        both()
    return {"first": first, "last": resident()}


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of bfloat16 zeros that takes no room on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def encode(folder: Path) -> dict[str, int]:
    """A layer of the real width."""
    config = Qwen2_5_VLConfig(text_config={**TEXT, "num_hidden_layers": LAYERS})
    config.save_pretrained(folder)
    with torch.device("meta"):
        weights = Qwen2_5_VLTextModel(config.text_config).state_dict()
        projection = torch.nn.Sequential(Linear(LAYERS * TEXT["hidden_size"], 1024), torch.nn.GELU())
    write_zeros(folder / "model.safetensors", {name: tuple(weight.shape) for name, weight in weights.items()})
    file = folder.with_suffix(".safetensors")
    write_zeros(file, {name: tuple(weight.shape) for name, weight in projection.state_dict().items()})
    load_tensors(projection, index_tensors([file], str), None, "the projection")
    text_encoder = TextEncoder(_load_language_model(folder, None), projection)
    device = torch.device("cpu")
    patcher = CosmosPredict25Patcher(CosmosPredict25Part(text_encoder), device, device)
    idle = resident()
    with PeakRss() as peak:
        patcher.partially_load(device, 1)
        encode_prompt(text_encoder, random_tokenizer(), "A red circle.")
    weights = sum(weight.nbytes for weight in text_encoder.parameters())
    return {"idle": idle, "above": int(peak.mib * 2**20), "weights": weights}


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[2:]]
    print(json.dumps(runs(folders) if sys.argv[1] == "runs" else encode(*folders)))
