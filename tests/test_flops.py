"""The operations of a pass, and the time that a card's published rate tells."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from cosmos_predict25.devtools.accounting import GPU, SHAPES, denoise, fake_gpu
from cosmos_predict25.pipeline.local import flops
from cosmos_predict25.pipeline.local.flops import RATES, SHARE, flops_of_pass, passes_of, seconds_by_rate
from cosmos_predict25.pipeline.local.transformer import CosmosTransformer, use_less_memory
from cosmos_predict25.pipeline.request import GenerationRequest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
VIDEO = {"num_frames": 93, "height": 704, "width": 1280}


def network(heads: int, blocks: int) -> CosmosTransformer:
    """The real widths without values, in bfloat16."""
    network = CosmosTransformer3DModel(
        in_channels=17, num_attention_heads=heads, num_layers=blocks, extra_pos_embed_type=None
    )
    return use_less_memory(network).to(dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def transformers():
    with torch.device("meta"):
        return {name: network(**shape) for name, shape in SHAPES.items()}


def request(**fields) -> GenerationRequest:
    return GenerationRequest(prompt="a cat", **{**VIDEO, **fields})


@pytest.mark.parametrize("heads", [16, 40])
def test_the_operations_of_a_pass_are_those_that_pytorch_counts(heads):
    with fake_gpu(), FlopCounterMode(display=False) as counter:
        transformer = network(heads, blocks=2).to(GPU)
        model: Any = SimpleNamespace(transformer=transformer)
        denoise(model, **VIDEO, known=0)
    counted, computed = counter.get_total_flops(), flops_of_pass(transformer, **VIDEO).total
    print(f"\n{counted:.6e} counted, {computed:.6e} computed", end="")
    assert computed == pytest.approx(counted, rel=1e-5)


def test_attention_is_most_of_a_large_video_and_little_of_a_picture(transformers):
    large, picture = (flops_of_pass(transformers["2b"], frames, 704, 1280) for frames in (93, 1))
    assert large.attention / large.total == pytest.approx(0.856, abs=0.001)
    assert picture.attention / picture.total == pytest.approx(0.216, abs=0.01)


@pytest.mark.parametrize(("guidance", "passes"), [(7, 70), (1, 35)])
def test_guidance_doubles_the_passes(guidance, passes):
    assert passes_of(request(guidance_scale=guidance, num_inference_steps=35)) == passes


@pytest.mark.parametrize(
    ("card", "published"),
    [("RTX 3080", 59.5), ("RTX 3090", 71), ("RTX 4090", 165.2), ("RTX 5090", 209.5)],
)
def test_the_rate_of_a_card_is_that_of_its_architecture_paper(card, published):
    assert RATES[f"NVIDIA GeForce {card}"] / 1e12 == pytest.approx(published, rel=0.005)


def card_named(monkeypatch: pytest.MonkeyPatch, name: str) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    return GPU


def test_the_time_of_nvidias_own_measurement_is_met(transformers, monkeypatch):
    """35 steps on an H200 took them 221.7 s, with text encoder and VAE."""
    seconds = seconds_by_rate(request(), transformers["2b"], card_named(monkeypatch, "NVIDIA H200"))
    assert seconds == pytest.approx(221.7, rel=0.05)


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4070 SUPER", "NVIDIA A40", "AMD Radeon RX 7900 XTX"])
def test_an_unknown_card_gets_no_time(transformers, monkeypatch, name):
    assert seconds_by_rate(request(), transformers["2b"], card_named(monkeypatch, name)) is None


def test_a_cpu_and_float32_get_no_time(transformers, monkeypatch):
    device = card_named(monkeypatch, "NVIDIA H200")
    assert seconds_by_rate(request(), transformers["2b"], torch.device("cpu")) is None
    monkeypatch.setattr(transformers["2b"], "compute_dtype", torch.float32)
    assert seconds_by_rate(request(), transformers["2b"], device) is None


def test_half_of_the_steps_takes_half_of_the_time(transformers, monkeypatch):
    device = card_named(monkeypatch, "NVIDIA GeForce RTX 3060")
    times = [seconds_by_rate(request(num_inference_steps=n), transformers["14b"], device) for n in (20, 10)]
    assert times[0] == pytest.approx(2 * times[1])
    assert times[0] * RATES["NVIDIA GeForce RTX 3060"] * SHARE == pytest.approx(
        flops.flops_of([request(num_inference_steps=20)], transformers["14b"])
    )


SECONDS = {"s": 1, "min": 60}


def test_the_times_in_the_readme_are_these(transformers):
    """Two prompts and the decoding are 730 TFLOP, by docs/benchmarks.md."""
    section = README.split("<!-- benchmarks/cards.py -->")[1].split("<!-- end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if " GB, " in line]
    assert len(rows) == 9
    rates = {name.removeprefix("NVIDIA ").removeprefix("GeForce ").removesuffix(" GPU"): RATES[name] for name in RATES}
    flops_of_one = flops_of_pass(transformers["2b"], **VIDEO).total
    for card, _, _, *times in rows:
        for passes, time in zip((70, 30, 4), times, strict=True):
            value, unit = time.split()
            expected = (passes * flops_of_one + 730e12) / (SHARE * rates[card.split(", ")[1]])
            assert float(value) * SECONDS[unit] == pytest.approx(expected, rel=0.04), f"{card}, {passes} passes"
