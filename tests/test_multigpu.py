"""ComfyUI's copies of a model for another device, which MultiGPU CFG Split and Select VAE Device make, on the CPU."""

import copy
from typing import Any

import pytest
import torch

from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER, DEMO_LORA_FILE
from cosmos_predict25.pipeline.local.load.parts import folder_parts

CPU = torch.device("cpu")
LATENTS = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def parts():
    return folder_parts(DEMO_FOLDER)


def prompt(seed: int, width: int) -> list[Any]:
    return [[torch.randn(1, 512, width, generator=torch.Generator().manual_seed(seed)), {}]]


def sampled(model: Any, width: int, cfg: float = 1) -> torch.Tensor:
    import comfy.sample

    from cosmos_predict25.nodes.native.sampler import sampler

    sigmas = torch.tensor([200.0, 2.0, 0.0])
    empty = torch.zeros_like(LATENTS)
    inputs = (LATENTS, cfg, sampler("standard"), sigmas, prompt(2, width), prompt(3, width), empty)
    return comfy.sample.sample_custom(model, *inputs, disable_pbar=True)


@torch.inference_mode()
@pytest.mark.parametrize("lora", [False, True], ids=["as it is", "with a LoRA"])
def test_a_copy_of_the_model_makes_the_same_with_weights_of_its_own(core, parts, lora):
    from cosmos_predict25.nodes.host.lora import with_lora
    from cosmos_predict25.nodes.native.model import UnitNoise, load_transformer

    model: Any = load_transformer(parts)[0]
    width = parts.transformer_config["encoder_hidden_states_channels"]
    plain = sampled(model, width)
    if lora:
        model = with_lora(model, None, DEMO_LORA_FILE, 1.0)[0]
        assert not sampled(model, width).equal(plain)
    expected = sampled(model, width)
    copied = model.deepclone_multigpu(CPU)
    weights, others = ({w.data_ptr() for w in each.model.parameters()} for each in (model, copied))
    assert not weights & others
    assert isinstance(copied.get_model_object("model_sampling"), UnitNoise)
    assert copied.patches.keys() == model.patches.keys()
    assert sampled(copied, width).equal(expected)


@torch.inference_mode()
def test_cfg_split_computes_each_prompt_on_its_own_device_and_keeps_lora_and_noise(core, parts, monkeypatch):
    """Of a CPU there are two names, which ComfyUI takes for two devices."""
    import comfy.model_management
    from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode

    from cosmos_predict25.nodes.host.lora import with_lora
    from cosmos_predict25.nodes.native.model import UnitNoise, load_transformer

    devices = [CPU, torch.device("cpu", 0)]
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: devices)
    width = parts.transformer_config["encoder_hidden_states_channels"]
    model = with_lora(load_transformer(parts)[0], None, DEMO_LORA_FILE, 1.0)[0]
    expected = sampled(model, width, cfg=3)
    split: Any = MultiGPUCFGSplitNode.execute(model, 2).args[0]
    (copied,) = split.get_additional_models_with_key("multigpu")
    assert isinstance(copied.get_model_object("model_sampling"), UnitNoise)
    assert copied.patches.keys() == model.patches.keys()
    passes = []
    for each in (split, copied):
        each.model.diffusion_model.register_forward_pre_hook(
            lambda module, inputs, device=each.load_device: passes.append((device, len(inputs[0])))
        )
    found = sampled(split, width, cfg=3)
    assert sorted(passes, key=str) == [(devices[0], 1)] * 2 + [(devices[1], 1)] * 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_copy_of_the_vae_decodes_the_same_with_weights_of_its_own(core, parts):
    from cosmos_predict25.nodes.native.vae import load_vae

    vae = load_vae(parts)
    expected = vae.decode(LATENTS)
    other = copy.copy(vae)
    other.patcher = vae.patcher.deepclone_multigpu(CPU)
    other.first_stage_model = other.patcher.model
    assert other.first_stage_model is not vae.first_stage_model
    assert other.decode(LATENTS).equal(expected)
