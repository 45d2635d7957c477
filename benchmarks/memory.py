"""The plan for 1280x704 and 93 frames on cards of every size, and whether it holds.

    .demo/env/bin/python benchmarks/memory.py                        # computed: planned, and counted on fake tensors
    .demo/env/bin/python benchmarks/memory.py --shape 2b --steps 2   # with a GPU: measured on emulated cards as well

Counted is what is alive on the GPU at once while ComfyUI's own code loads and streams weights without values. On a GPU
each card is emulated by a limit on the process's memory, with random weights in the real shape; measured are the peak
of PyTorch's allocator and the seconds of a step. A card is taken to have 0.5 GiB less free than it has, for the desktop
and CUDA itself.
"""

import argparse
import sys
import time
from typing import Any
from unittest import mock

import torch

from cosmos_predict25.devtools.accounting import (
    SHAPES,
    account,
    build_model,
    fake_gpu,
)
from cosmos_predict25.devtools.environment import NEWEST, source_folder
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.pipeline.errors import NotEnoughMemoryError
from cosmos_predict25.pipeline.local.model import LocalModel, sizes_of
from cosmos_predict25.pipeline.local.plan import Plan, make_plan
from cosmos_predict25.pipeline.local.sizes import GIB, DeviceMemory

CARDS = (6, 8, 10, 12, 16, 24, 32)
TAKEN = 0.5
RAM = 32
VIDEO = {"num_frames": 93, "height": 704, "width": 1280}
STAGES = ("encode", "denoise", "decode")
COMPUTED = "Computed, not measured: no GPU was at hand."


def import_comfyui() -> None:
    """Make ComfyUI importable, for the CPU where there is no GPU."""
    sys.path.append(str(source_folder(NEWEST)))
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = True


def card(gib: float) -> DeviceMemory:
    """With ComfyUI's two streams for weights."""
    return DeviceMemory((gib - TAKEN) * GIB, RAM * GIB, layers_in_flight=3)


def computed_row(name: str, model: LocalModel, gib: int, known: dict) -> list[str]:
    """`known`: stages that were counted before."""
    plan = make_plan(sizes_of(model), **VIDEO, memory=card(gib))
    counted = []
    for stage in STAGES:
        key = (stage, getattr(plan, stage), plan.chunks, plan.grid)
        if key not in known:
            known[key] = account(model, plan, stage, **VIDEO)
        counted.append(known[key])
    predicted = " / ".join(f"{getattr(plan, stage).peak / GIB:.2f}" for stage in STAGES)
    return [name, f"{gib}", what_happens(plan), predicted, " / ".join(f"{peak / GIB:.2f}" for peak in counted)]


def what_happens(plan: Plan) -> str:
    return plan.describe().partition(";")[0]


def computed_table() -> None:
    from cosmos_predict25.nodes.host.kernels import ComfyKernels

    rows = []
    with fake_gpu():
        for name, shape in SHAPES.items():
            model, known = build_model(**shape), {}
            model.transformer.kernels = ComfyKernels()
            for gib in CARDS:
                row = computed_row(name, model, gib, known)
                rows.append(row)
                print(*row, flush=True)
    header = ["model", "card, GiB", "what happens", "predicted, GiB", "counted, GiB"]
    publish(header, rows, f"{COMPUTED} GiB are those of encoding / denoising / decoding.")


def measured_row(gib: int, model: LocalModel, steps: int) -> list[str]:
    """A whole generation on this GPU, limited to the memory of a card. Not for a CPU."""
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel
    from cosmos_predict25.pipeline.local.generate import generate
    from cosmos_predict25.pipeline.local.prompt_cache import PromptCache
    from cosmos_predict25.pipeline.observer import NullObserver
    from cosmos_predict25.pipeline.request import GenerationRequest

    ends: list[float] = []

    class Stopwatch(NullObserver):
        def progress(self, message, done, total, latents=None):
            if latents is not None:
                torch.cuda.synchronize()
                ends.append(time.perf_counter())

    limit = (gib - TAKEN) * GIB
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
    torch.cuda.reset_peak_memory_stats()

    def free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
        if device is not None and device.type == "cpu":
            return RAM * GIB
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        free = limit - torch.cuda.memory_allocated()
        return (free, unused) if torch_free_too else free

    host = HostedModel(model, guardrail=False)
    request = GenerationRequest(prompt="Rough rocks.", seed=1, num_inference_steps=steps, **VIDEO)
    with mock.patch.object(model_management, "get_free_memory", free_memory):
        plan = make_plan(sizes_of(model), **VIDEO, memory=host.memory())
        generate(model, request, placement=host, plan=plan, observer=Stopwatch(), prompts=PromptCache())
        model_management.unload_all_models()
    peak = torch.cuda.max_memory_allocated() / GIB
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return [f"{gib}", what_happens(plan), f"{plan.peak / GIB:.2f}", f"{peak:.2f}", f"{seconds:.2f}"]


def measured_table(shape: str, steps: int) -> None:
    from cosmos_predict25.devtools.random_checkpoint import random_scheduler, random_tokenizer

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = build_model(**SHAPES[shape])
    for part in (model.text_encoder, model.transformer, model.vae):
        part.to("cpu")
    model = LocalModel(
        shape, random_tokenizer(), model.text_encoder, model.transformer, model.vae, dict(random_scheduler().config)
    )
    model.text_encoder.token_embeddings = model.text_encoder.token_embeddings.cpu()
    rows = []
    for gib in CARDS:
        try:
            rows.append(measured_row(gib, model, steps))
        except (NotEnoughMemoryError, torch.OutOfMemoryError) as error:
            rows.append([f"{gib}", str(error).splitlines()[0], "-", "-", "-"])
    publish(["card, GiB", "what happens", "predicted, GiB", "measured, GiB", "s / step"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, help="measure this shape on this machine's GPU")
    parser.add_argument("--steps", type=int, default=2, help="of the measured generation (default: %(default)s)")
    options = parser.parse_args()
    import_comfyui()
    if options.shape:
        measured_table(options.shape, options.steps)
    else:
        computed_table()


if __name__ == "__main__":
    main()
