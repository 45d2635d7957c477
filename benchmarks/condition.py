"""What it costs to start from a picture or a clip: the time of a pass, and the memory at 1280x704 and 93 frames.

    .demo/env/bin/python benchmarks/condition.py

The time is that of a pass of 2 blocks of 2048 channels, as the 2B model's: on a GPU at that size, else over 17 frames
of 256x256, in the CPU's own time on one thread. The three take turns. The memory is counted on tensors without values,
for the whole 2B model.
"""

import statistics
import time
from collections.abc import Callable

import torch
from diffusers import CosmosTransformer3DModel

from cosmos_predict25.benchmarks.memory import VIDEO, card, import_comfyui
from cosmos_predict25.devtools.accounting import SHAPES, account, build_model, fake_gpu
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity, timesteps_of
from cosmos_predict25.pipeline.local.latents import initial_noise, latent_frames
from cosmos_predict25.pipeline.local.model import sizes_of
from cosmos_predict25.pipeline.local.plan import make_plan
from cosmos_predict25.pipeline.local.sizes import GIB, Chunks
from cosmos_predict25.pipeline.local.transformer import use_less_memory

STARTS = {"text alone": 0, "a picture": 1, "a clip": 5}
ROUNDS = 9
SMALL = (17, 256, 256)
SMALL_CHUNKS = Chunks(596)
"""They cut latent frames of 256 tokens as chunks of 8192 cut those of 3520 at 1280x704."""
CARD = 24


def passes(device: torch.device) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    transformer = use_less_memory(
        CosmosTransformer3DModel(in_channels=17, num_attention_heads=16, num_layers=2, extra_pos_embed_type=None)
    ).to(device, dtype)
    if device.type != "cuda":
        transformer.chunks = SMALL_CHUNKS
    frames, height, width = VIDEO.values() if device.type == "cuda" else SMALL
    latents = initial_noise(0, frames, height, width, device)
    embeds, sigma = torch.randn(1, 512, 1024, device=device), torch.tensor([0.7], device=device)

    def prepare(given: int) -> Callable[[], object]:
        known = latent_frames(given) if given else 0
        mask, timestep = condition_mask(latents, known), timesteps_of(sigma, latents.shape[2], known)
        return lambda: predict_velocity(transformer, latents, timestep, embeds, mask)

    return {name: prepare(given) for name, given in STARTS.items()}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def time_passes() -> dict[str, list[float]]:
    """Seconds of each pass in each round. The first round is not counted."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    work = passes(device)
    rounds = [{name: seconds(each, device) for name, each in work.items()} for _ in range(ROUNDS + 1)]
    return {name: [times[name] for times in rounds[1:]] for name in work}


def memory_of_starts() -> dict[str, list[str]]:
    """Beside the weights: GiB of encoding the start, GiB of a pass, and its values for each token and channel."""
    from cosmos_predict25.nodes.host.kernels import ComfyKernels

    figures = {}
    with fake_gpu():
        model = build_model(**SHAPES["2b"])
        model.transformer.kernels = ComfyKernels()
        sizes = sizes_of(model)
        tokens = latent_frames(VIDEO["num_frames"]) * VIDEO["height"] * VIDEO["width"] // 16**2
        for name, given in STARTS.items():
            plan = make_plan(sizes, **VIDEO, memory=card(CARD), num_conditioning_frames=given)
            encoding = account(model, plan, "condition", **VIDEO, given=given) - sizes.vae.weights if given else 0
            work = account(model, plan, "denoise", **VIDEO, given=given) - sizes.transformer.weights
            values = work / (tokens * sizes.channels * sizes.itemsize)
            figures[name] = [f"{encoding / GIB:.2f}", f"{work / GIB:.2f}", f"{values:.2f}"]
    return figures


def main() -> None:
    import_comfyui()
    times, memory = time_passes(), memory_of_starts()
    ratios = {
        name: statistics.median(a / b for a, b in zip(each, times["text alone"], strict=True))
        for name, each in times.items()
    }
    rows = [
        [name, f"{statistics.median(times[name]):.3f}", f"{100 * (ratios[name] - 1):+.1f} %", *memory[name]]
        for name in STARTS
    ]
    header = ["start", "s / pass", "against text", "encoding, GiB", "a pass, GiB", "values a token and channel"]
    publish(header, rows)


if __name__ == "__main__":
    main()
