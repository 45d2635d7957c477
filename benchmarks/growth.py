"""What a longer and a larger video costs, in time and memory. For benchmarks/generate.py --grow.

Memory is counted at the 2B model's real widths on tensors without values. Time is that of the small model.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel

from cosmos_predict25.benchmarks.generate import SHAPES, run_contender
from cosmos_predict25.benchmarks.memory import import_comfyui
from cosmos_predict25.devtools.accounting import GPU, LiveBytes, account, build_model, empty_latents, fake_gpu
from cosmos_predict25.devtools.accounting import SHAPES as REAL
from cosmos_predict25.devtools.report import markdown_table, publish
from cosmos_predict25.pipeline.fal.journal import Journal, Record
from cosmos_predict25.pipeline.fal.queue.policy import NetworkPolicy
from cosmos_predict25.pipeline.local.model import sizes_of
from cosmos_predict25.pipeline.local.plan import make_plan
from cosmos_predict25.pipeline.local.sizes import GIB, DeviceMemory

LENGTHS = (33, 61, 93)
SIZES = ((640, 352), (960, 528), (1280, 704))
SMALL_LENGTHS = (9, 17, 33)
SMALL_SIZES = ((128, 128), (192, 192), (256, 256))
LARGE_CARD = DeviceMemory(80 * GIB, 64 * GIB, layers_in_flight=3)
EXPORTED = (93, 465, 930)
"""Frames of one, five and ten parts."""
HOURS = (0.1, 0.5, 1)
"""A run follows a job for no longer than an hour."""
JOBS = (1, 100, 1000)
PRICE = 0.20
"""Dollars of a video, as fal says."""


def publish_growth(rounds: int) -> None:
    import_comfyui()
    header = ["frames", "size", "ours, denoising", "ours, decoding", "stock, denoising", "stock, decoding"]
    note = "GiB with all weights on the device, computed at the widths of the 2B model."
    parts = [
        f"{note} Seconds, measured on the small model:",
        markdown_table(
            ["frames", "size", "stock, s / pass", "ours", "stock, after the last step, s", "ours"], time_rows(rounds)
        ),
        "Export of 640x352 to H.264, high, measured; RSS is what comes on top of the frames:",
        markdown_table(["frames", "s", "peak RSS, MiB", "MB"], export_rows()),
        "A job at fal, computed from the pauses between two looks at it:",
        markdown_table(["hours", "looks"], [[f"{hours:g}", str(looks(3600 * hours))] for hours in HOURS]),
        f"Jobs at fal: what a run does before it sends one, measured, and the price at ${PRICE:.2f} a video:",
        markdown_table(["jobs", "look through the journal, ms", "journal, kB", "price, $"], job_rows()),
    ]
    publish([*header, "stock : ours"], memory_rows(), "\n\n".join(parts))


def memory_rows() -> list[list[str]]:
    rows = []
    with fake_gpu():
        model, stock = build_model(**REAL["2b"]), StockBytes(**REAL["2b"])
        for frames in LENGTHS:
            for width, height in SIZES:
                video = {"num_frames": frames, "height": height, "width": width}
                plan = make_plan(sizes_of(model), **video, memory=LARGE_CARD)
                ours = [account(model, plan, stage, **video) for stage in ("denoise", "decode")]
                theirs = [stock.denoise(**video), stock.decode(**video)]
                gib = (f"{each / GIB:.1f}" for each in (*ours, *theirs))
                rows.append([f"{frames}", f"{width}x{height}", *gib, f"{max(theirs) / max(ours):.1f}"])
                print(*rows[-1], flush=True)
    return rows


class StockBytes:
    """The bytes alive in diffusers' own transformer and VAE, to be used within `fake_gpu`; each with its weights."""

    def __init__(self, heads: int, blocks: int) -> None:
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(GPU):
                self.transformer = CosmosTransformer3DModel(
                    in_channels=17, num_attention_heads=heads, num_layers=blocks, extra_pos_embed_type=None
                )
                self.vae: Any = AutoencoderKLWan()
        finally:
            torch.set_default_dtype(torch.float32)

    def denoise(self, num_frames: int, height: int, width: int) -> int:
        """A pass with the timestep of every frame, as the pipeline gives it."""
        latents = empty_latents(num_frames, height, width).bfloat16()
        with LiveBytes() as live:
            self.transformer(
                hidden_states=latents,
                timestep=torch.empty(1, 1, latents.shape[2], 1, 1, dtype=torch.bfloat16, device=GPU),
                encoder_hidden_states=torch.empty(1, 512, 1024, dtype=torch.bfloat16, device=GPU),
                condition_mask=latents[:, :1],
                padding_mask=torch.empty(1, 1, height, width, dtype=torch.bfloat16, device=GPU),
                return_dict=False,
            )
        return live.peak + weights_of(self.transformer)

    def decode(self, num_frames: int, height: int, width: int) -> int:
        with LiveBytes() as live:
            self.vae.decode(empty_latents(num_frames, height, width).bfloat16(), return_dict=False)
        return live.peak + weights_of(self.vae)


def weights_of(part: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in part.parameters())


def time_rows(rounds: int) -> list[list[str]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in SMALL_LENGTHS:
            for width, height in SMALL_SIZES:
                shape = {**SHAPES["small"], "num_frames": frames, "width": width, "height": height}
                runs: dict[str, list[dict[str, float]]] = {"stock": [], "ours": []}
                for _ in range(rounds):
                    for name, found in runs.items():
                        found.append(run_contender({"run": name, "shape": shape}, Path(folder, "latents.pt")))
                cells = [
                    f"{statistics.median(run[column] for run in found):.2f}"
                    for column in ("s / pass", "after the last step, s")
                    for found in runs.values()
                ]
                rows.append([f"{frames}", f"{width}x{height}", *cells])
                print(*rows[-1], flush=True)
    return rows


def export_rows() -> list[list[str]]:
    """H.264 at high quality of 640x352, each in a process of its own."""
    rows = []
    for frames in EXPORTED:
        command = [sys.executable, __file__, str(frames)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append([str(frames), *json.loads(found.splitlines()[-1])])
    return rows


def export_once(num_frames: int) -> None:
    from cosmos_predict25.devtools.clip import moving_clip
    from cosmos_predict25.devtools.peak import PeakRss
    from cosmos_predict25.pipeline.export import export

    part = moving_clip(min(num_frames, EXPORTED[0]), 352, 640)
    frames = part.repeat(num_frames // len(part), 1, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        with PeakRss() as rss:
            begin = time.perf_counter()
            export(frames, path)
            seconds = time.perf_counter() - begin
        print(json.dumps([f"{seconds:.2f}", f"{rss.mib:.0f}", f"{path.stat().st_size / 1e6:.2f}"]))


def looks(seconds: float) -> int:
    """How often a job is asked after that takes so long."""
    policy, waited, count = NetworkPolicy(), 0.0, 1
    while waited < seconds:
        waited += policy.poll_interval(waited)
        count += 1
    return count


def job_rows() -> list[list[str]]:
    """What a run does before it sends a job: it looks for an unfinished one among all that there were."""
    rows = []
    for count in JOBS:
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder))
            for number in range(count):
                journal.save(record(number))
            begin = time.perf_counter()
            journal.unfinished()
            milliseconds = 1000 * (time.perf_counter() - begin)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        rows.append([str(count), f"{milliseconds:.1f}", f"{size / 1000:.1f}", f"{count * PRICE:.2f}"])
    return rows


def record(number: int) -> Record:
    return Record(
        fingerprint=f"{number:032x}",
        endpoint="fal-ai/cosmos-predict-2.5/text-to-video",
        input_sha256="0" * 64,
        request_sha256="0" * 64,
        input_keys=["prompt", "seed"],
        seed=number,
    )


if __name__ == "__main__":
    export_once(int(sys.argv[1]))
