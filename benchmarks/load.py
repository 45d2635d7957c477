"""Loading a checkpoint: time and peak memory against the size of its files, ours and diffusers' side by side.

    .demo/env/bin/python benchmarks/load.py

Writes a checkpoint of more than 2 GB with random weights into a temporary folder. Each case runs in a process of its
own, and reads every weight once after loading, because what is memory-mapped counts only when it is read.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cosmos_predict25.devtools.report import publish

CASES = [(loader, dtype) for dtype in ("float32", "bfloat16") for loader in ("diffusers", "ours")]


def load(loader: str, folder: Path, dtype: torch.dtype) -> list[torch.nn.Module]:
    if loader == "ours":
        from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder

        model = load_pipeline_folder(folder, dtype)
        return [model.text_encoder, model.transformer, model.vae]

    from cosmos_predict25.devtools.stock import load_stock

    pipeline = load_stock(folder, dtype)
    return [pipeline.text_encoder, pipeline.transformer, pipeline.vae]


def measure(loader: str, folder: Path, dtype: torch.dtype) -> None:
    """Run one case in this process and print its figures as JSON."""
    import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401

    from cosmos_predict25.devtools.peak import PeakRss

    with PeakRss() as rss:
        start = time.perf_counter()
        modules = load(loader, folder, dtype)
        seconds = time.perf_counter() - start
        for module in modules:
            for parameter in module.parameters():
                parameter.sum()
    print(json.dumps({"seconds": seconds, "mib": rss.mib}))


def measure_in_a_fresh_process(loader: str, folder: Path, dtype: str) -> dict[str, float]:
    command = [sys.executable, __file__, loader, str(folder), dtype]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    from cosmos_predict25.devtools.random_checkpoint import write_random_checkpoint
    from cosmos_predict25.pipeline.local.load.find import size_of_weights

    if len(sys.argv) == 4:
        return measure(sys.argv[1], Path(sys.argv[2]), getattr(torch, sys.argv[3]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "random-weights"
        write_random_checkpoint(folder, hidden_size=2560, num_attention_heads=96)
        size = size_of_weights(folder) / 2**20
        rows = []
        for loader, dtype in CASES:
            figures = measure_in_a_fresh_process(loader, folder, dtype)
            ratio = figures["mib"] / size
            rows.append([f"{loader} to {dtype}", f"{figures['seconds']:.2f}", f"{figures['mib']:.0f}", f"{ratio:.2f}"])
    publish(["", "s", "peak RSS, MiB", "of the files"], rows, f"The files have {size:.0f} MiB of float32 weights.")
    return None


if __name__ == "__main__":
    main()
