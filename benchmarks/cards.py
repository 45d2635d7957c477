"""Does it run on my card, and how long does it take? Computed for the README and docs/benchmarks.md.

    .demo/env/bin/python benchmarks/cards.py

The peak is that of the plan. The time is that of all operations at `SHARE` of the card's published rate. Beside it, the
bytes that a pass reads and writes, at the card's published bandwidth, which take less on every card.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from cosmos_predict25.benchmarks.memory import VIDEO, card, import_comfyui
from cosmos_predict25.devtools.accounting import GPU, SHAPES, build_model, denoise, empty_latents, encode, fake_gpu
from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.flops import RATES, SHARE, flops_of_pass
from cosmos_predict25.pipeline.local.model import LocalModel, sizes_of
from cosmos_predict25.pipeline.local.plan import Plan, make_plan
from cosmos_predict25.pipeline.local.sizes import GIB

CARDS = {
    "NVIDIA GeForce RTX 4050 Laptop GPU": (6, 192),
    "NVIDIA GeForce RTX 4060": (8, 272),
    "NVIDIA GeForce RTX 3080": (10, 760),
    "NVIDIA GeForce RTX 3060": (12, 360),
    "NVIDIA GeForce RTX 4070": (12, 504),
    "NVIDIA GeForce RTX 4060 Ti": (16, 288),
    "NVIDIA GeForce RTX 4090": (24, 1008),
    "NVIDIA GeForce RTX 5090": (32, 1792),
    "NVIDIA H200": (141, 4800),
}
"""Name -> memory in GB, and its published bandwidth in GB/s."""
PASSES = {"time, 35 steps": 70, "time, 15 steps (*few steps*)": 30, "time, 4 steps (*distilled*)": 4}
"""With guidance, a step is two passes."""
README_NOTE = (
    f"Computed, not measured: at {SHARE:.0%} of the card's bfloat16 rate, as in NVIDIA's own figure for an H200. The "
    "node tells the time on your card."
)


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write while entered. Views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.namespace == "aten" and not function.is_view:
            tensors = (value for value in tree_iter((args, kwargs, result)) if isinstance(value, Tensor))
            self.bytes += sum(tensor.nbytes for tensor in tensors if tensor.device.type == GPU.type)
        return result


def does_it_run(plan: Plan) -> str:
    stages = {"text encoder": plan.encode, "transformer": plan.denoise}
    in_ram = {name: 1 - stage.resident / stage.weights for name, stage in stages.items()}
    shares = " and ".join(f"{share:.0%} of the {name}" for name, share in in_ram.items() if share)
    return f"yes, with {shares} in RAM" if shares else "yes"


def decode_all(model: LocalModel) -> None:
    for _ in decode_chunks(model.vae, empty_latents(**VIDEO)):
        pass


def flops_of_ends(model: LocalModel) -> tuple[int, int]:
    """Count the operations of one prompt and of the decoding."""
    flops = []
    for work in (encode, decode_all):
        with FlopCounterMode(display=False) as counter:
            work(model)
        flops.append(counter.get_total_flops())
    return flops[0], flops[1]


def bytes_of_pass(model: LocalModel) -> int:
    with Traffic() as traffic:
        denoise(model, **VIDEO, known=0)
    return traffic.bytes


def in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds > 600 else f"{seconds / 60:.1f} min"


def short(name: str) -> str:
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ").removesuffix(" GPU")


def readme_row(name: str, model: LocalModel, pass_flops: float, other_flops: float) -> list[str]:
    gigabytes, _ = CARDS[name]
    plan = make_plan(sizes_of(model), **VIDEO, memory=card(gigabytes))
    flops = (passes * pass_flops + other_flops for passes in PASSES.values())
    times = (in_words(each / (SHARE * RATES[name])) for each in flops)
    return [f"{gigabytes} GB, {short(name)}", does_it_run(plan), f"{plan.peak / GIB:.1f} GiB", *times]


def pass_row(name: str, pass_flops: float, pass_bytes: float) -> list[str]:
    _, bandwidth = CARDS[name]
    seconds = pass_flops / (SHARE * RATES[name]), pass_bytes / bandwidth / 1e9
    return [short(name), f"{RATES[name] / 1e12:.1f}", f"{bandwidth}", *(f"{each:.2f}" for each in seconds)]


def main() -> None:
    import_comfyui()
    torch.set_num_threads(1)
    with fake_gpu():
        model = build_model(**SHAPES["2b"])
        for part in (model.text_encoder, model.transformer, model.vae):
            part.to(GPU)
        prompt, decoding = flops_of_ends(model)
        traffic = bytes_of_pass(model)
        flops = flops_of_pass(model.transformer, **VIDEO)
        rows = [readme_row(name, model, flops.total, 2 * prompt + decoding) for name in CARDS]
    publish(["card", "does it run", "peak VRAM", *PASSES], rows, README_NOTE, REPO / "README.md", with_conditions=False)
    note = (
        f"A prompt has {prompt / 1e12:.1f} TFLOP. A pass has {flops.total / 1e12:.0f} TFLOP, "
        f"{flops.attention / flops.total:.0%} of them in attention, and moves {traffic / 1e9:.0f} GB. Decoding has "
        f"{decoding / 1e12:.0f} TFLOP."
    )
    header = ["card", "bfloat16, TFLOP/s", "GB/s", f"a pass at {SHARE:.0%} of the rate, s", "its bytes, s"]
    publish(header, [pass_row(name, flops.total, traffic) for name in CARDS], note, with_conditions=False)


if __name__ == "__main__":
    main()
