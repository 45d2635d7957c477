"""Graphs of this pack's nodes between ComfyUI's own, as Python values, with the demo as their checkpoint."""

import json
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from cosmos_predict25.devtools.comfyui import ComfyUI, PromptFailedError
from cosmos_predict25.devtools.toy.world import SIDE
from cosmos_predict25.pipeline.local.load.find import DEMO

POSITIVE = "A large red circle moves left over a blue background."
NEGATIVE = "blurry"
FRAMES = 9


@dataclass(frozen=True, eq=False)
class Node:
    """A node with its inputs. `node[1]`: its second output, an input of another."""

    kind: str
    inputs: dict[str, Any]

    def __getitem__(self, slot: int) -> "Output":
        return Output(self, slot)


@dataclass(frozen=True, eq=False)
class Output:
    node: Node
    slot: int


def node(kind: str, **inputs: Any) -> Node:
    return Node(kind, inputs)


def first(kind: str, **inputs: Any) -> Output:
    """The first output of a new node."""
    return node(kind, **inputs)[0]


def to_prompt(*ends: Node) -> dict[str, Any]:
    """The graph of `ends` in API format. Equal nodes are one, so that ComfyUI keeps what they gave."""
    prompt, ids = {}, {}

    def add(one: Node) -> str:
        inputs = {
            name: [add(value.node), value.slot] if isinstance(value, Output) else value
            for name, value in one.inputs.items()
        }
        key = json.dumps([one.kind, inputs])
        name = ids.setdefault(key, str(len(ids) + 1))
        prompt[name] = {"class_type": one.kind, "inputs": inputs}
        return name

    for end in ends:
        add(end)
    return prompt


LOADER = node(
    "CosmosPredict25CheckpointLoader", checkpoint=DEMO, transformer="none", vae="none", text_encoder="none",
    prompt_writer=False,
)  # fmt: skip
MODEL, CLIP, VAE = (LOADER[slot] for slot in range(3))


def text(words: str = POSITIVE, clip: Output = CLIP) -> Output:
    return first("CLIPTextEncode", text=words, clip=clip)


def empty(num_frames: int = FRAMES, side: int = SIDE) -> Output:
    return first("CosmosPredict25EmptyLatent", width=side, height=side, num_frames=num_frames)


KSAMPLER = {"seed": 7, "steps": 8, "cfg": 3.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0}


def sampled(
    model: Output = MODEL, positive: Output | None = None, negative: Output | None = None,
    latent: Output | None = None, **values: Any,
) -> Output:  # fmt: skip
    """The latent of a KSampler."""
    inputs = {"positive": positive or text(), "negative": negative or text(NEGATIVE), "latent_image": latent or empty()}
    return first("KSampler", model=model, **inputs, **{**KSAMPLER, **values})


def pictures(latent: Output | None = None) -> Output:
    return first("VAEDecode", samples=latent or sampled(), vae=VAE)


def frames_of(server: ComfyUI, images: Output) -> Tensor:
    """The frames of an IMAGE, (N, H, W, 3) in 0..1."""
    entry = server.run(to_prompt(node("SaveImage", images=images, filename_prefix="mix")))
    return torch.stack([
        torch.from_numpy(numpy.array(Image.open(file).convert("RGB"))) / 255 for file in server.saved_files(entry)
    ])  # fmt: skip


def refusal(server: ComfyUI, end: Output) -> tuple[str, str]:
    """The node that refuses to run and its words."""
    try:
        server.run(to_prompt(node("PreviewAny", source=end)))
    except PromptFailedError as failed:
        _, error = failed.entry["status"]["messages"][-1]
        return error["node_type"], error["exception_message"].strip()
    return "", ""
