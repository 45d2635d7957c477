"""ComfyUI's memory manager under the parts of a checkpoint: the same results at every budget, and no mixed devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cosmos_predict25.devtools.accounting import GPU, build_model, fake_gpu
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER

PARTS = ("text_encoder", "transformer", "vae")


REPORTS = [
    pytest.param("0.30.0", marks=pytest.mark.slow),
    pytest.param("0.18.2", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
]


@pytest.fixture(scope="module", params=REPORTS)
def report(request):
    """What tests/memory_worker.py finds in this ComfyUI."""
    worker = Path(__file__).with_name("memory_worker.py")
    environment = {**os.environ, "TESTED_COMFYUI": request.param}
    command = [sys.executable, str(worker), str(DEMO_FOLDER)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("budget", ["zero", "half", "full"])
def test_a_part_computes_the_same_bits_whatever_share_of_it_is_streamed(report, budget):
    assert report["parts"][budget] == dict.fromkeys(PARTS, True)
    assert report["videos"][budget]
    assert [count > 0 for count in report["streamed"][budget]] == [budget != "full"] * 3


def test_half_the_memory_streams_fewer_layers_than_none(report):
    assert all(
        0 < half < zero for half, zero in zip(*(report["streamed"][name] for name in ("half", "zero")), strict=True)
    )


def test_the_memory_maps_weights_are_back_after_all_that(report):
    assert report["from disk again"]
    assert report["from disk after the second host"]
    assert report["wrapped once"]


def put_on_fake_devices(part, strays: str) -> None:
    """Within a FakeTensorMode: the weights of ComfyUI's layers on the CPU, as at zero budget, the rest on `strays`."""
    for layer in part.modules():
        device = "cpu" if hasattr(layer, "comfy_cast_weights") else strays
        for name, weight in layer._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype, device=device)
                layer._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
        for name, buffer in layer._buffers.items():
            layer._buffers[name] = torch.empty_like(buffer, device=strays)


def devices_of_results(part: str, strays: str) -> set[str]:
    """Where one part's results are, computed by fake tensors for a GPU that is not there."""
    from cosmos_predict25.nodes.host.memory import HostedModel

    model = load_pipeline_folder(DEMO_FOLDER)
    HostedModel(model, guardrail=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        put_on_fake_devices(getattr(model, part), strays)
        latents = torch.empty(1, 16, 3, 8, 8, device="cuda")
        if part == "text_encoder":
            results = [encode_prompt(model.text_encoder, model.tokenizer, "a cat", "cuda")]
        elif part == "transformer":
            embeds = torch.empty(1, 512, 96, device="cuda")
            sigma = torch.empty(1, device="cuda")
            results = [predict_velocity(model.transformer, latents, sigma, embeds, condition_mask(latents))]
        else:
            results = list(decode_chunks(model.vae, latents))
    return {result.device.type for result in results}


@pytest.mark.parametrize("part", PARTS)
def test_no_operation_mixes_devices_while_weights_are_streamed(core, part):
    assert devices_of_results(part, strays="cuda") == {"cuda"}


@pytest.mark.parametrize("part", PARTS)
def test_it_would_be_seen_if_the_strays_stayed_on_the_cpu(core, part):
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        devices_of_results(part, strays="cpu")


@pytest.mark.parametrize("part", PARTS)
def test_what_is_in_no_layer_of_comfyuis_goes_to_the_device_on_loading(core, part):
    """The meta device stands for a GPU."""
    from cosmos_predict25.nodes.host.memory import CosmosPredict25Part, CosmosPredict25Patcher

    module = getattr(load_pipeline_folder(DEMO_FOLDER), part)
    device = torch.device("meta")
    patcher = CosmosPredict25Patcher(CosmosPredict25Part(module), device, torch.device("cpu"))
    patcher.partially_load(device, 1)
    places = {True: set(), False: set()}
    for layer in module.modules():
        for values in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            places[hasattr(layer, "comfy_cast_weights")].add(values.device.type)
    assert places == {True: {"cpu"}, False: {"meta"}}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_in_no_layer_of_comfyuis_stays_where_less_memory_is_free_than_before(core, part):
    """Between two steps ComfyUI then takes weights off the GPU, the smallest first."""
    from cosmos_predict25.nodes.host.memory import CosmosPredict25Part, CosmosPredict25Patcher

    with fake_gpu():
        module = getattr(build_model(heads=2, blocks=2, text_layers=1), part)
        patcher = CosmosPredict25Patcher(CosmosPredict25Part(module), GPU, torch.device("cpu"))
        patcher.partially_load(GPU, patcher.model_size() // 2)
        loaded = patcher.loaded_size()
        patcher.partially_load(GPU, -patcher.model_size() // 8)
        assert patcher.loaded_size() < loaded
        strays = [layer for layer in module.modules() if not hasattr(layer, "comfy_cast_weights")]
        values = [each for layer in strays for each in (*layer.parameters(False), *layer.buffers(False))]
        assert {each.device for each in values} == {GPU}


def test_a_patch_of_a_norm_holds_where_all_else_is_streamed(core):
    from cosmos_predict25.nodes.host.memory import HostedModel

    model = load_pipeline_folder(DEMO_FOLDER)
    patcher = HostedModel(model, guardrail=False).patcher.clone()
    norm = model.transformer.transformer_blocks[0].attn1.norm_q
    before = norm.weight.clone()
    patcher.add_patches({"part.transformer_blocks.0.attn1.norm_q.weight": ("diff", (torch.ones_like(before),))})
    for budget in (0.1, 1e32):
        for _ in range(2):
            patcher.partially_load(patcher.load_device, budget)
            assert norm.weight.equal(before + 1)
        patcher.detach()
        assert norm.weight.equal(before)


def test_a_part_that_could_not_be_loaded_wholly_leaves_the_gpu(core, monkeypatch):
    from cosmos_predict25.nodes.host.memory import CosmosPredict25Part, CosmosPredict25Patcher

    def no_memory(patcher, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with fake_gpu():
        module = build_model(heads=2, blocks=2, text_layers=1).transformer
        patcher = CosmosPredict25Patcher(CosmosPredict25Part(module), GPU, torch.device("cpu"))
        patcher.partially_load(GPU, patcher.model_size() // 2)
        monkeypatch.setattr(CosmosPredict25Patcher, "_load_strays", no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            patcher.partially_load(GPU, -patcher.model_size() // 8)
        assert patcher.loaded_size() == 0
