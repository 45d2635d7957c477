"""Run by tests/test_ulysses.py in each process of torchrun.

    torchrun --nproc_per_node=2 ulysses_worker.py FOLDER

Runs the command of many videos on FOLDER/jobs.jsonl, then saves into FOLDER, for each process, the frames of each of
`CASES`, and what a pass holds and sends.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor

from cosmos_predict25.pipeline import DEMO_FOLDER, GenerationRequest, load_pipeline_folder
from cosmos_predict25.pipeline.batch import command
from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity, timesteps_of
from cosmos_predict25.pipeline.local.generate import generate, plan_for
from cosmos_predict25.pipeline.local.latents import initial_noise
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.local.placement import OneAtATime
from cosmos_predict25.pipeline.local.sizes import Chunks, DeviceMemory
from cosmos_predict25.pipeline.local.transformer import use_less_memory
from cosmos_predict25.pipeline.local.ulysses import SharedPlacement, share_videos
from cosmos_predict25.pipeline.start import Start

PICTURE = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Case:
    """`heads`: of a transformer with random weights, or None for the demo's. `side`: of the video, which is square."""

    heads: int | None
    side: int
    num_frames: int
    chunks: Chunks
    starts: bool

    def frames(self, model: LocalModel, placement: OneAtATime) -> Tensor:
        request = GenerationRequest(
            prompt="A red circle moves left over blue.", num_frames=self.num_frames, width=self.side, height=self.side,
            num_inference_steps=2, guidance_scale=2, seed=1,
        )  # fmt: skip
        plan = replace(plan_for(model, request, placement, int(self.starts)), chunks=self.chunks)
        start = Start(PICTURE) if self.starts else None
        return generate(model, request, start=start, placement=placement, plan=plan).frames


CASES = {
    "the demo, from text": Case(None, 96, 9, Chunks(), False),
    "the demo, from a picture": Case(None, 96, 9, Chunks(), True),
    # 27 tokens: the second share has one less.
    "16 heads, from text": Case(16, 48, 9, Chunks(5, 7), False),
    "16 heads, from a picture": Case(16, 48, 9, Chunks(5, 7), True),
}


def model_with(heads: int | None) -> LocalModel:
    model = load_pipeline_folder(DEMO_FOLDER)
    if heads is None:
        return model
    torch.manual_seed(0)
    transformer = CosmosTransformer3DModel(
        in_channels=17, num_attention_heads=heads, attention_head_dim=16, num_layers=2, text_embed_dim=96,
        adaln_lora_dim=16, rope_scale=(1.0, 3.0, 3.0), extra_pos_embed_type=None,
    )  # fmt: skip
    return replace(model, transformer=use_less_memory(transformer.eval().requires_grad_(False)))


def counted(function: Callable[[Tensor, Tensor], object], sent: list[int]) -> Callable[[Tensor, Tensor], object]:
    """Return the collective `function`, which then notes the bytes that this process sends to others."""
    others = dist.get_world_size() - 1

    def count(received: Tensor, given: Tensor) -> object:
        # Each process receives the whole of a gather, and its own part of an exchange.
        sent.append(given.nbytes * others // (dist.get_world_size() if received.shape == given.shape else 1))
        return function(received, given)

    return count


@torch.inference_mode()
def measured_pass(model: LocalModel, side: int, num_frames: int) -> dict[str, Any]:
    """The bytes that a pass of this process sends, and of the residual stream in each block."""
    sent, residuals = [], []
    for block in model.transformer.transformer_blocks:
        block.register_forward_hook(lambda module, inputs, output: residuals.append(output.nbytes))
    latents, embeds = initial_noise(1, num_frames, side, side), torch.zeros(1, 512, 96)
    functions = dist.all_to_all_single, dist.all_gather_into_tensor
    dist.all_to_all_single, dist.all_gather_into_tensor = (counted(function, sent) for function in functions)
    timestep = timesteps_of(torch.tensor([0.7]), latents.shape[2], 1)
    predict_velocity(model.transformer, latents, timestep, embeds, condition_mask(latents, 1))
    dist.all_to_all_single, dist.all_gather_into_tensor = functions
    return {"sent": sum(sent), "residuals": residuals}


def planned_memory() -> DeviceMemory:
    """The memory that is planned with, where the second process has less of it."""
    own = DeviceMemory(free=100 - dist.get_rank(), ram=math.inf)
    with mock.patch.object(OneAtATime, "memory", return_value=own):
        return SharedPlacement("cpu").memory()


def refusal_of(heads: int) -> str:
    try:
        share_videos(model_with(heads))
    except InvalidRequestError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    with mock.patch.object(dist, "destroy_process_group"):  # a second group would need another torchrun
        code = command.main([str(folder / "jobs.jsonl"), str(folder / "out"), "--device", "cpu"])
    found: dict[str, Any] = {"exit code": code, "refusal": refusal_of(3), "memory": planned_memory()}
    placement = SharedPlacement("cpu")
    for name, case in CASES.items():
        model = model_with(case.heads)
        share_videos(model)
        found[name] = {"frames": case.frames(model, placement), **measured_pass(model, case.side, case.num_frames)}
    torch.save(found, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
