"""The stock diffusers pipeline against ours: time and memory on the same random weights.

    .demo/env/bin/python benchmarks/generate.py                 # a small model, for a CPU
    .demo/env/bin/python benchmarks/generate.py --shape 2b      # the real shape, 1280x704, 93 frames: needs a GPU

Each contender runs in a process of its own, by turns. The stock pipeline runs as its documentation shows it, with
everything on the device. Prints medians, and how far the final latents of the two are apart.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from cosmos_predict25.benchmarks.peak import PeakRss
from cosmos_predict25.benchmarks.report import publish

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"heads": 8, "blocks": 4, "text_hidden": 512, "text_layers": 8, "text_mlp": 1024, "vae": 32,
              "width": 256, "height": 256, "num_frames": 17, "num_inference_steps": 6},
    "2b": {"heads": 16, "blocks": 28, "text_hidden": 3584, "text_layers": 28, "text_mlp": 18944, "vae": 96,
           "width": 1280, "height": 704, "num_frames": 93, "num_inference_steps": 3},
}  # fmt: skip
CONTENDERS = ("stock", "ours")
PROMPT = "Rough rocks travel on a conveyor belt through a dimly lit quarry. " * 4


def build_models(shape: dict[str, Any]) -> dict[str, Any]:
    """The models of the stock pipeline, with random weights on the default device in the default dtype."""
    from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    text_config = {
        "vocab_size": 152064, "hidden_size": shape["text_hidden"], "intermediate_size": shape["text_mlp"],
        "num_hidden_layers": shape["text_layers"], "num_attention_heads": shape["text_hidden"] // 128,
        "num_key_value_heads": 4, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision_config = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": shape["text_hidden"]}
    transformer = CosmosTransformer3DModel(
        in_channels=17, out_channels=16, num_attention_heads=shape["heads"], attention_head_dim=128,
        num_layers=shape["blocks"], rope_scale=(1.0, 3.0, 3.0), extra_pos_embed_type=None,
        use_crossattn_projection=True, crossattn_proj_in_channels=shape["text_layers"] * shape["text_hidden"],
    )  # fmt: skip
    return {
        "text_encoder": Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text_config, vision_config=vision_config)
        ),
        "transformer": transformer,
        "vae": AutoencoderKLWan(base_dim=shape["vae"]),
    }


class Stopwatch:
    """Notes when each step ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.step_ends: list[float] = []

    def step(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.step_ends.append(time.perf_counter())

    def seconds_per_step(self) -> float:
        return statistics.median(later - earlier for earlier, later in pairwise(self.step_ends))


def run_stock(parts: dict[str, Any], shape: dict[str, Any], watch: Stopwatch) -> torch.Tensor:
    from diffusers import Cosmos2_5_PredictBasePipeline

    from cosmos_predict25.benchmarks.stock import AllowEverything

    latents = torch.empty(0)

    def on_step(pipeline, index, timestep, tensors):
        nonlocal latents
        latents = tensors["latents"]
        watch.step()
        return {}

    pipeline = Cosmos2_5_PredictBasePipeline(**parts, safety_checker=AllowEverything()).to(watch.device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline(prompt=PROMPT, generator=torch.Generator().manual_seed(1), callback_on_step_end=on_step,
             output_type="np", **request_fields(shape))  # fmt: skip
    return pipeline_scale(parts["vae"], latents)


def run_ours(parts: dict[str, Any], shape: dict[str, Any], watch: Stopwatch) -> torch.Tensor:
    from cosmos_predict25.pipeline.local.generate import generate
    from cosmos_predict25.pipeline.local.model import LocalModel, TextEncoder
    from cosmos_predict25.pipeline.local.placement import OneAtATime
    from cosmos_predict25.pipeline.local.transformer import use_less_memory
    from cosmos_predict25.pipeline.observer import NullObserver
    from cosmos_predict25.pipeline.request import GenerationRequest

    class Stepper(NullObserver):
        def progress(self, message, done, total, latents=None):
            if latents is not None:
                watch.step()

    transformer = parts["transformer"]
    text_encoder = TextEncoder(parts.pop("text_encoder").model.language_model, transformer.crossattn_proj)
    transformer.crossattn_proj = torch.nn.Identity()
    scheduler_config = dict(parts["scheduler"].config)
    transformer = use_less_memory(transformer)
    model = LocalModel("random", parts["tokenizer"], text_encoder, transformer, parts["vae"], scheduler_config)
    request = GenerationRequest(prompt=PROMPT, seed=1, **request_fields(shape))
    return generate(model, request, placement=OneAtATime(watch.device), observer=Stepper()).latents


def request_fields(shape: dict[str, Any]) -> dict[str, Any]:
    return {name: shape[name] for name in ("width", "height", "num_frames", "num_inference_steps")}


def pipeline_scale(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    from cosmos_predict25.pipeline.local.latents import denormalize

    return denormalize(vae, latents).cpu()


def contend(name: str, shape: dict[str, Any], latents_file: Path) -> None:
    """Run one contender in this process and print its figures as JSON."""
    from cosmos_predict25.scripts.random_checkpoint import random_scheduler, random_tokenizer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_default_dtype(torch.bfloat16)
    # Made on the device, which is quicker, and then where both expect them: in the CPU's memory, as after loading.
    with torch.device(device):
        parts = build_models(shape)
    parts |= {"tokenizer": random_tokenizer(), "scheduler": random_scheduler()}
    torch.set_default_dtype(torch.float32)
    if device.type == "cuda":
        for part in ("text_encoder", "transformer", "vae"):
            parts[part].to("cpu")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    watch = Stopwatch(device)
    start = time.perf_counter()
    with PeakRss() as rss:
        latents = {"stock": run_stock, "ours": run_ours}[name](parts, shape, watch)
    figures = {
        "s / step": watch.seconds_per_step(),
        "s in all": time.perf_counter() - start,
        "RSS, MiB": rss.mib,
    }
    if device.type == "cuda":
        figures["VRAM, MiB"] = torch.cuda.max_memory_allocated() / 2**20
    torch.save(latents, latents_file)
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    if options.contender:
        return contend(options.contender[0], shape, Path(options.contender[1]))

    figures: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.pt" for name in CONTENDERS}
        for _ in range(options.rounds):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--shape", options.shape, "--contender", name, str(files[name])]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                figures[name].append(json.loads(output.splitlines()[-1]))
        stock, ours = (torch.load(files[name]) for name in CONTENDERS)
    medians = {
        name: {column: statistics.median(run[column] for run in runs) for column in runs[0]}
        for name, runs in figures.items()
    }
    medians["ratio"] = {column: value / medians["ours"][column] for column, value in medians["stock"].items()}
    rows = [[name, *(f"{value:.2f}" for value in values.values())] for name, values in medians.items()]
    note = f"The final latents differ by {(stock - ours).abs().max():.1e} at most, of a spread of {stock.std():.2f}."
    publish(["", *figures["stock"][0]], rows, note)
    return None


if __name__ == "__main__":
    main()
