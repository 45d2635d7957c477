"""The stock diffusers pipeline against ours: time and memory on the same random weights.

    .demo/env/bin/python benchmarks/generate.py                 # a small model, for a CPU
    .demo/env/bin/python benchmarks/generate.py --grow          # what longer and larger videos cost
    .demo/env/bin/python benchmarks/generate.py --shape 2b      # the real shape, 1280x704, 93 frames: needs a GPU
    .demo/env/bin/python benchmarks/generate.py --shape 2b --checkpoint FOLDER   # and what real weights make

Each contender runs in a process of its own, by turns. The stock pipeline runs as its documentation shows it, with
everything on the device; ours and the native MODEL also under ComfyUI's memory manager, with each attention that is
installed, without ComfyUI's fused kernels, and with all weights streamed. Prints medians, and how far the latents of
ours are from stock's. After the last step is the time from there to the frames, in it the VAE's decoding. With a shape
other than small, whole runs of each schedule follow.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from cosmos_predict25.devtools.peak import PeakRss
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.pipeline.request import DISTILLED, FEW_STEPS, GenerationRequest

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"heads": 2, "blocks": 2, "text_hidden": 512, "text_layers": 2, "text_mlp": 512, "vae": 8,
             "width": 32, "height": 32, "num_frames": 9, "num_inference_steps": 3},
    "small": {"heads": 8, "blocks": 4, "text_hidden": 512, "text_layers": 8, "text_mlp": 1024, "vae": 32,
              "width": 256, "height": 256, "num_frames": 17, "num_inference_steps": 6},
    "2b": {"heads": 16, "blocks": 28, "text_hidden": 3584, "text_layers": 28, "text_mlp": 18944, "vae": 96,
           "width": 1280, "height": 704, "num_frames": 93, "num_inference_steps": 3},
}  # fmt: skip
"""tiny is there to try the contenders of 2b without a GPU."""
ATTENTIONS = {"pytorch": "torch", "sage": "sageattention", "flash": "flash_attn", "xformers": "xformers"}
"""ComfyUI's name of an attention -> the package that it needs."""
PASSES = {
    "standard, 35 steps": 70,
    "standard, 20 steps": 40,
    "few steps, 15 steps": 30,
    "distilled, 4 steps": 4,
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "standard, 35 steps": {"num_inference_steps": 35},
    "few steps, 15 steps": {"num_inference_steps": 15, "schedule": FEW_STEPS},
    "distilled, 4 steps": {"num_inference_steps": 4, "schedule": DISTILLED, "guidance_scale": 1},
}
"""Fields of a request."""
GOALS = "Goals on an H200: 70 passes in 235 s, 1.6 times as fast as stock, after the last step 2.5 s."
PROMPT = "Rough rocks travel on a conveyor belt through a dimly lit quarry. " * 4

Run = Callable[[dict[str, Any], dict[str, Any], "Stopwatch", dict[str, Any]], torch.Tensor]


def contenders(shape: str) -> dict[str, dict[str, Any]]:
    """Name -> what `contend` is told."""
    found: dict[str, dict[str, Any]] = {"stock": {"run": "stock"}, "ours": {"run": "ours"}}
    if shape == "small":
        return found
    for attention, package in ATTENTIONS.items():
        if find_spec(package):
            found[f"ours in ComfyUI, {attention}"] = {"run": "hosted", "attention": attention}
    found["ours in ComfyUI, pytorch, not fused"] = {"run": "hosted", "attention": "pytorch", "fused": False}
    found["ours in ComfyUI, pytorch, streamed"] = {"run": "hosted", "attention": "pytorch", "streamed": True}
    found["native MODEL, pytorch"] = {"run": "native", "attention": "pytorch"}
    found["native MODEL, pytorch, streamed"] = {"run": "native", "attention": "pytorch", "streamed": True}
    return found


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
    """Notes when each step ends, and when the first frames after the last one are there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.step_ends: list[float] = []
        self.frames: list[float] = []

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(self) -> None:
        self.step_ends.append(self.now())

    def frame(self) -> None:
        self.frames.append(self.now())

    def figures(self, start: float, end: float) -> dict[str, float]:
        """`end`: when all was done. A contender that tells of no frames has the first one with the last one."""
        last = self.step_ends[-1]
        return {
            "s / pass": statistics.median(later - earlier for earlier, later in pairwise(self.step_ends)) / 2,
            "first frame after, s": (self.frames or [end])[0] - last,
            "after the last step, s": end - last,
            "s in all": end - start,
        }


def run_stock(parts: dict[str, Any], shape: dict[str, Any], watch: Stopwatch, _: dict[str, Any]) -> torch.Tensor:
    from diffusers import Cosmos2_5_PredictBasePipeline

    from cosmos_predict25.devtools.stock import AllowEverything

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


def run_ours(parts: dict[str, Any], shape: dict[str, Any], watch: Stopwatch, _: dict[str, Any]) -> torch.Tensor:
    from cosmos_predict25.pipeline.local.placement import OneAtATime

    return generate_with(our_model(parts), shape, watch, OneAtATime(watch.device))


def run_hosted(parts: dict[str, Any], shape: dict[str, Any], watch: Stopwatch, options: dict) -> torch.Tensor:
    """Under ComfyUI's memory manager, with its attention and, unless told otherwise, its fused kernels."""
    from cosmos_predict25.nodes.host import kernels
    from cosmos_predict25.nodes.host.memory import HostedModel

    if not options.get("fused", True):
        kernels.fused = lambda name: None
    model = our_model(parts)
    return generate_with(model, shape, watch, HostedModel(model, guardrail=False))


def generate_with(model: Any, shape: dict[str, Any], watch: Stopwatch, placement: Any) -> torch.Tensor:
    from cosmos_predict25.pipeline.local.generate import generate
    from cosmos_predict25.pipeline.observer import NullObserver

    class Watcher(NullObserver):
        def progress(self, message, done, total, latents=None):
            if latents is not None:
                watch.step()
            elif message.startswith("Decoding,"):
                watch.frame()

    request = request_of(shape)
    return generate(model, request, placement=placement, observer=Watcher()).latents


def our_model(parts: dict[str, Any]) -> Any:
    from cosmos_predict25.pipeline.local.model import LocalModel, TextEncoder
    from cosmos_predict25.pipeline.local.transformer import use_less_memory

    transformer = parts["transformer"]
    text_encoder = TextEncoder(parts.pop("text_encoder").model.language_model, transformer.crossattn_proj)
    transformer.crossattn_proj = torch.nn.Identity()
    scheduler_config = dict(parts["scheduler"].config)
    return LocalModel(
        "random", parts["tokenizer"], text_encoder, use_less_memory(transformer), parts["vae"], scheduler_config
    )


def run_native(parts: dict[str, Any], shape: dict[str, Any], watch: Stopwatch, _: dict[str, Any]) -> torch.Tensor:
    """ComfyUI's MODEL and VAE with our SAMPLER, of random embeddings: its latents are of no prompt."""
    import comfy.sample
    import comfy.samplers

    from cosmos_predict25.nodes.native.model import load_transformer
    from cosmos_predict25.nodes.native.sampler import sampler
    from cosmos_predict25.nodes.native.vae import load_vae
    from cosmos_predict25.pipeline.local.latents import initial_noise
    from cosmos_predict25.pipeline.local.load.parts import Parts
    from cosmos_predict25.pipeline.local.load.weights import index_tensors, weight_files

    del parts["text_encoder"]
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for name in ("transformer", "vae"):
            parts[name].save_pretrained(Path(folder, name))
            sources.append(index_tensors(weight_files(Path(folder, name)), str))
        configs = [dict(parts.pop(name).config) for name in ("transformer", "vae")]
        files = Parts("random", configs[0], sources[0], configs[1], sources[1], Path(folder), Path(folder))
        model, _, vae = *load_transformer(files), load_vae(files)
        sigmas = comfy.samplers.calculate_sigmas(
            model.get_model_object("model_sampling"), "karras", shape["num_inference_steps"]
        )
        noise = initial_noise(1, shape["num_frames"], shape["height"], shape["width"])
        conditions = ([[torch.randn(1, 512, configs[0]["text_embed_dim"]), {}]] for _ in range(2))
        samples = comfy.sample.sample_custom(
            model, noise, 8, sampler("standard"), sigmas, *conditions, torch.zeros_like(noise),
            callback=lambda *_: watch.step(), disable_pbar=True,
        )  # fmt: skip
        vae.decode(samples)
    return torch.empty(0)


RUNS: dict[str, Run] = {"stock": run_stock, "ours": run_ours, "hosted": run_hosted, "native": run_native}


def request_fields(shape: dict[str, Any]) -> dict[str, Any]:
    return {name: shape[name] for name in ("width", "height", "num_frames", "num_inference_steps")}


def request_of(shape: dict[str, Any]) -> GenerationRequest:
    sampling = {name: shape[name] for name in ("schedule", "guidance_scale") if name in shape}
    return GenerationRequest(prompt=PROMPT, seed=1, **request_fields(shape), **sampling)


def pipeline_scale(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    from cosmos_predict25.pipeline.local.latents import denormalize

    return denormalize(vae, latents).cpu()


def import_comfyui(attention: str, streamed: bool) -> None:
    """As the user starts it: before anything of ComfyUI's is imported."""
    from cosmos_predict25.devtools.environment import NEWEST, source_folder

    sys.path.append(str(source_folder(NEWEST)))
    from comfy.cli_args import args

    args.cpu, args.novram = not torch.cuda.is_available(), streamed and torch.cuda.is_available()
    args.use_pytorch_cross_attention = attention == "pytorch"
    args.use_sage_attention, args.use_flash_attention = attention == "sage", attention == "flash"


def contend(options: dict[str, Any], latents_file: Path) -> None:
    """Run one contender in this process and print its figures as JSON."""
    from cosmos_predict25.devtools.random_checkpoint import random_scheduler, random_tokenizer
    from cosmos_predict25.pipeline.local.flops import flops_of

    shape = options["shape"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "attention" in options:
        import_comfyui(options["attention"], options.get("streamed", False))
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
    for part in ("text_encoder", "transformer", "vae"):
        parts[part].requires_grad_(False)
    flops = flops_of([request_of(shape)], parts["transformer"])
    watch = Stopwatch(device)
    start = watch.now()
    with PeakRss() as rss:
        latents = RUNS[options["run"]](parts, shape, watch, options)
    figures = {**watch.figures(start, watch.now()), "RSS, MiB": rss.mib}
    if device.type == "cuda":
        figures["VRAM, MiB"] = torch.cuda.max_memory_allocated() / 2**20
    torch.save(latents, latents_file)
    print(json.dumps(figures | {"PFLOP": flops / 1e15} if options.get("schedule") else figures))


def run_contender(options: dict[str, Any], latents_file: Path) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--contender", json.dumps(options), str(latents_file)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def compare(name: str, rounds: int) -> None:
    """Publish the table of all contenders for a shape."""
    asked = contenders(name)
    figures: dict[str, list[dict[str, float]]] = {contender: [] for contender in asked}
    with tempfile.TemporaryDirectory() as folder:
        files = {contender: Path(folder, f"{number}.pt") for number, contender in enumerate(asked)}
        for _ in range(rounds):
            for contender, options in asked.items():
                figures[contender].append(run_contender({**options, "shape": SHAPES[name]}, files[contender]))
                print(contender, figures[contender][-1], flush=True)
        latents = {contender: torch.load(file) for contender, file in files.items()}
    medians = {
        contender: {column: statistics.median(run[column] for run in runs) for column in runs[0]}
        for contender, runs in figures.items()
    }
    medians["stock : ours"] = {column: value / medians["ours"][column] for column, value in medians["stock"].items()}
    rows = [[contender, *(f"{value:.2f}" for value in values.values())] for contender, values in medians.items()]
    publish(["", *medians["stock"]], rows, "\n\n".join(notes(name, medians, latents)))


def time_schedules(name: str) -> None:
    """Publish the time of a whole run of each schedule, and the share of the card's rate that its steps reach."""
    from cosmos_predict25.pipeline.local.flops import RATES, passes_of

    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for schedule, fields in SCHEDULES.items():
            options = {"run": "hosted", "attention": "pytorch", "schedule": True, "shape": {**SHAPES[name], **fields}}
            found[schedule] = run_contender(options, Path(folder, "latents.pt"))
            print(schedule, found[schedule], flush=True)
    rate = RATES.get(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    rows = []
    for schedule, figures in found.items():
        request = request_of({**SHAPES[name], **SCHEDULES[schedule]})
        denoising = 2 * figures["s / pass"] * request.num_inference_steps  # the stopwatch takes a step for two passes
        flops = figures["PFLOP"] * 1e15
        share = f"{flops / denoising / rate:.0%}" if rate else "not known"
        times = (denoising, figures["after the last step, s"], figures["s in all"])
        rows.append(
            [schedule, f"{passes_of(request)}", f"{flops / denoising / 1e12:.2f}", share, *map("{:.1f}".format, times)]
        )
    publish(["schedule", "passes", "TFLOP/s", "of the rate", "denoising, s", "decoding, s", "s in all"], rows)


def notes(name: str, medians: dict[str, dict[str, float]], latents: dict[str, torch.Tensor]) -> list[str]:
    """What the table does not say: how near the latents are and, for more contenders, what the passes add up to."""
    stock = latents["stock"]
    apart = max((values - stock).abs().max().item() for values in latents.values() if values.numel())
    found = [f"The final latents differ from stock's by {apart:.1e} at most, of a spread of {stock.std():.2f}."]
    if name != "small":
        best = min((key for key in medians if key.startswith("ours")), key=lambda key: medians[key]["s / pass"])
        seconds = medians[best]["s / pass"]
        sums = (f"{schedule} {passes * seconds:.0f} s" for schedule, passes in PASSES.items())
        found += [f"Computed for {best}, without decoding: {', '.join(sums)}.", GOALS]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grow", action="store_true", help="what longer and larger videos cost")
    parser.add_argument("--checkpoint", type=Path, help="a folder in diffusers layout, to be compared and measured too")
    parser.add_argument("--contender", nargs=2, metavar=("OPTIONS", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        return contend(json.loads(options.contender[0]), Path(options.contender[1]))
    if options.grow:
        from cosmos_predict25.benchmarks.growth import publish_growth

        return publish_growth(options.rounds)
    if options.checkpoint:
        from cosmos_predict25.benchmarks.fidelity import publish_fidelity

        publish_fidelity(options.checkpoint, request_fields(SHAPES[options.shape]))
    compare(options.shape, options.rounds)
    return time_schedules(options.shape) if options.shape != "small" else None


if __name__ == "__main__":
    main()
