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


def sampled(model: Any, width: int) -> torch.Tensor:
    import comfy.sample

    from cosmos_predict25.nodes.native.sampler import sampler

    prompt = [[torch.randn(1, 512, width, generator=torch.Generator().manual_seed(2)), {}]]
    sigmas = torch.tensor([200.0, 2.0, 0.0])
    empty = torch.zeros_like(LATENTS)
    inputs = (LATENTS, 1, sampler("standard"), sigmas, prompt, prompt, empty)
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
def test_a_copy_of_the_vae_decodes_the_same_with_weights_of_its_own(core, parts):
    from cosmos_predict25.nodes.native.vae import load_vae

    vae = load_vae(parts)
    expected = vae.decode(LATENTS)
    other = copy.copy(vae)
    other.patcher = vae.patcher.deepclone_multigpu(CPU)
    other.first_stage_model = other.patcher.model
    assert other.first_stage_model is not vae.first_stage_model
    assert other.decode(LATENTS).equal(expected)
