"""The parts of a checkpoint under ComfyUI's memory manager, on the CPU."""

import pytest
import torch

from cosmos_predict25.pipeline.errors import PlacementError
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder


@pytest.fixture
def hosted(core, checkpoint):
    from cosmos_predict25.nodes.host.memory import HostedModel

    return HostedModel(load_pipeline_folder(checkpoint), guardrail=False)


def places(part: torch.nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in part.parameters()]


def test_comfyui_sees_what_is_loaded_and_unloads_it(hosted):
    from comfy import model_management

    parts = (hosted.model.text_encoder, hosted.model.transformer, hosted.model.vae)
    for part in parts:
        assert hosted.use(part, activation_bytes=0) == torch.device("cpu")
    loaded = [item.model.model.part for item in model_management.current_loaded_models]
    assert all(part in loaded for part in parts)
    model_management.unload_all_models()
    assert not model_management.current_loaded_models
    hosted.use(hosted.model.vae, activation_bytes=0)
    assert [item.model.model.part for item in model_management.current_loaded_models] == [hosted.model.vae]


def test_unloading_puts_the_weights_from_disk_back(hosted):
    """Instead of copying what is on the GPU: copies stand for it here."""
    from comfy import model_management

    transformer = hosted.model.transformer
    from_disk = places(transformer)
    hosted.use(transformer, activation_bytes=0)
    for parameter in transformer.parameters():
        parameter.data = parameter.data.clone()
    assert places(transformer) != from_disk
    model_management.unload_all_models()
    assert places(transformer) == from_disk


def test_a_part_that_comfyui_leaves_on_the_cpu_is_an_error_that_says_why(hosted):
    hosted.device = torch.device("meta")
    with pytest.raises(
        PlacementError, match="ComfyUI left the AutoencoderKLWan on cpu instead of meta, as with --novram"
    ):
        hosted.use(hosted.model.vae, activation_bytes=0)


def test_weights_stay_as_they_are_on_the_cpu(core):
    from cosmos_predict25.nodes.host.memory import weight_dtype

    assert weight_dtype() is None
