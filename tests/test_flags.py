"""ComfyUI's flags that people cure things with: which types and devices Generate Locally takes, and what it reads."""

from typing import Any

import pytest
import torch

from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO, DEMO_FOLDER
from cosmos_predict25.tests.test_host import REQUEST

GPU = torch.device("cuda", 0)


@pytest.fixture
def flags(core, monkeypatch):
    """Sets ComfyUI's flags by name, as its command line does, on a GPU that is good at all types or on the CPU."""
    from comfy import model_management
    from comfy.cli_args import args

    def set_flags(device: torch.device, *names: str) -> None:
        monkeypatch.setattr(model_management, "get_torch_device", lambda: device)
        if device == GPU:
            properties = type("Properties", (), {"major": 9, "name": "H200"})
            monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _=None: properties)
            monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
            monkeypatch.setattr(model_management, "cpu_state", model_management.CPUState.GPU)
        for name in names:
            monkeypatch.setattr(args, name, True)
        if "force_fp16" in names:
            monkeypatch.setattr(args, "fp16_unet", True)
        monkeypatch.setattr(model_management, "FORCE_FP32", "force_fp32" in names)

    return set_flags


@pytest.mark.parametrize(
    ("device", "names", "transformer", "vae", "text"),
    [
        (GPU, (), torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (GPU, ("fp32_unet",), torch.float32, torch.bfloat16, torch.bfloat16),
        (GPU, ("fp16_unet",), torch.float16, torch.bfloat16, torch.bfloat16),
        (GPU, ("bf16_unet",), torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (GPU, ("fp32_vae",), torch.bfloat16, torch.float32, torch.bfloat16),
        (GPU, ("fp16_vae",), torch.bfloat16, torch.float16, torch.bfloat16),
        (GPU, ("bf16_vae",), torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (GPU, ("cpu_vae",), torch.bfloat16, torch.float32, torch.bfloat16),
        (GPU, ("force_fp32",), torch.float32, torch.float32, torch.bfloat16),
        (GPU, ("force_fp16",), torch.float16, torch.bfloat16, torch.bfloat16),
        (GPU, ("fp32_text_enc",), torch.bfloat16, torch.bfloat16, torch.float32),
        (GPU, ("fp16_text_enc",), torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (GPU, ("fp8_e4m3fn_unet",), torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.device("cpu"), (), None, torch.float32, None),
        (torch.device("cpu"), ("force_fp32",), torch.float32, torch.float32, None),
        (torch.device("cpu"), ("bf16_unet", "bf16_vae"), torch.bfloat16, torch.bfloat16, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_types_are_those_of_the_flags(flags, device, names, transformer, vae, text):
    from cosmos_predict25.nodes.host.memory import text_weight_dtype, vae_weight_dtype, weight_dtype

    flags(device, *names)
    assert (weight_dtype(), vae_weight_dtype(), text_weight_dtype()) == (transformer, vae, text)


def test_the_loader_gives_each_part_its_type(flags, in_graph):
    from cosmos_predict25.nodes.loader import CosmosPredict25Loader

    flags(torch.device("cpu"), "bf16_unet", "fp16_vae", "fp32_text_enc")
    hosted: Any = in_graph(CosmosPredict25Loader).execute(DEMO, False, "none", "none", "none", False).args[0]
    model = hosted.model
    types = model.transformer.dtype, model.vae.dtype, model.text_encoder.token_embeddings.dtype
    assert types == (torch.bfloat16, torch.float16, torch.float32)


def test_the_vae_stays_on_the_cpu_where_it_is_told_to(flags):
    from cosmos_predict25.nodes.host.memory import HostedModel

    flags(GPU, "cpu_vae")
    model = load_pipeline_folder(DEMO_FOLDER)
    hosted = HostedModel(model, guardrail=False)
    devices = [hosted._patchers[part].load_device for part in (model.text_encoder, model.transformer, model.vae)]
    assert devices == [GPU, GPU, torch.device("cpu")]
    assert hosted.use(model.vae, 0) == torch.device("cpu")


def test_without_mmap_the_weights_are_read_into_memory_and_make_the_same_video(flags):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel

    model = load_pipeline_folder(DEMO_FOLDER)
    expected = generate(model, REQUEST).frames
    parts = (model.text_encoder, model.transformer, model.vae)
    mapped = {weight.data_ptr() for part in parts for weight in part.parameters()}
    flags(torch.device("cpu"))
    HostedModel(model, guardrail=False)
    assert mapped == {weight.data_ptr() for part in parts for weight in part.parameters()}
    flags(torch.device("cpu"), "disable_mmap")
    model = load_pipeline_folder(DEMO_FOLDER)
    mapped = [(weight, weight.data_ptr()) for part in (model.text_encoder, model.transformer, model.vae)
              for weight in part.parameters()]  # fmt: skip
    hosted = HostedModel(model, guardrail=False)
    assert all(weight.data_ptr() != place for weight, place in mapped)
    video = generate(model, REQUEST, placement=hosted, prompts=hosted.prompts)
    # Where weights lie in memory decides which way the last bits of a product are rounded.
    assert (video.frames - expected).abs().max() <= 1e-4
    model_management.unload_all_models()
