"""The parts of a checkpoint under ComfyUI's memory manager, on the CPU; what a GPU would answer is made up."""

import pytest
import torch

from cosmos_predict25.pipeline.errors import PlacementError
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder


@pytest.fixture
def hosted(core, checkpoint):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel

    yield HostedModel(load_pipeline_folder(checkpoint), guardrail=False)
    model_management.unload_all_models()


def parts_under_comfyui() -> list[torch.nn.Module]:
    from comfy import model_management

    return [item.model.model.part for item in model_management.current_loaded_models]


def places(part: torch.nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in part.parameters()]


def test_comfyui_sees_what_is_loaded_and_unloads_it(hosted):
    from comfy import model_management

    parts = (hosted.model.text_encoder, hosted.model.transformer, hosted.model.vae)
    for part in parts:
        assert hosted.use(part, activation_bytes=0) == torch.device("cpu")
    assert all(part in parts_under_comfyui() for part in parts)
    model_management.unload_all_models()
    assert not model_management.current_loaded_models
    hosted.use(hosted.model.vae, activation_bytes=0)
    assert parts_under_comfyui() == [hosted.model.vae]


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


@pytest.mark.parametrize(
    ("left_for_others", "stays"),
    [(0, False), (0.5, False), (1, True)],
    ids=["nothing beside it", "half of the reserve", "the whole reserve"],
)
def test_room_is_made_unless_comfyuis_own_reserve_is_free_beside_it(hosted, monkeypatch, left_for_others, stays):
    from comfy import model_management

    size = 2**30
    free = size + int(left_for_others * model_management.minimum_inference_memory())
    hosted.use(hosted.model.vae, activation_bytes=0)
    monkeypatch.setattr(
        model_management, "get_free_memory", lambda device, torch_free_too=False: (free, 0) if torch_free_too else free
    )
    assert hosted.make_room(size) == torch.device("cpu")
    assert (hosted.model.vae in parts_under_comfyui()) == stays


def test_weights_stay_as_they_are_on_the_cpu(core):
    from cosmos_predict25.nodes.host.memory import weight_dtype

    assert weight_dtype() is None


@pytest.mark.parametrize(
    ("good_at_bfloat16", "dtype"),
    [(True, torch.bfloat16), (False, torch.float32)],
    ids=["GPU with bfloat16", "GPU without bfloat16"],
)
def test_weights_are_bfloat16_on_a_gpu_that_is_good_at_it(core, monkeypatch, good_at_bfloat16, dtype):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import weight_dtype

    monkeypatch.setattr(model_management, "get_torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(model_management, "should_use_bf16", lambda device: good_at_bfloat16)
    assert weight_dtype() == dtype
