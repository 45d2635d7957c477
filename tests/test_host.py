"""The parts of a checkpoint under ComfyUI's memory manager, on the CPU; what a GPU would answer is made up."""

import os
import random
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cosmos_predict25.devtools.stock import AllowEverything
from cosmos_predict25.devtools.toy.world import Scene, SceneObject, render
from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO, DEMO_FOLDER
from cosmos_predict25.pipeline.local.sizes import GIB, DeviceMemory
from cosmos_predict25.pipeline.observer import NullObserver
from cosmos_predict25.pipeline.request import GenerationRequest

REQUEST = GenerationRequest(
    prompt="A red circle.", seed=3, num_frames=9, num_inference_steps=2, width=64, height=64, guidance_scale=3
)


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
        assert hosted.use(part, memory_required=0) == torch.device("cpu")
    assert all(part in parts_under_comfyui() for part in parts)
    model_management.unload_all_models()
    assert not model_management.current_loaded_models
    hosted.use(hosted.model.vae, memory_required=0)
    assert parts_under_comfyui() == [hosted.model.vae]


def test_unloading_puts_the_weights_from_disk_back(hosted):
    """Instead of copying what is on the GPU: copies stand for it here."""
    from comfy import model_management

    transformer = hosted.model.transformer
    from_disk = places(transformer)
    hosted.use(transformer, memory_required=0)
    for parameter in transformer.parameters():
        parameter.data = parameter.data.clone()
    assert places(transformer) != from_disk
    model_management.unload_all_models()
    assert places(transformer) == from_disk


def test_what_is_taken_off_the_gpu_in_part_is_the_memory_maps_again(hosted, monkeypatch):
    """ComfyUI copies a layer's weight to the CPU's memory then, which would hold the model twice."""
    from comfy import model_management

    patcher = hosted.patcher
    from_disk = places(hosted.model.transformer)
    hosted.use(hosted.model.transformer, memory_required=0)
    monkeypatch.setattr(patcher, "load_device", torch.device("cuda"))  # the weights came from there, as far as it knows
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda module, device: module._apply(lambda weight: weight.to(device, copy=True))
    )
    assert patcher.partially_unload(torch.device("cpu"), patcher.model_size() // 2) > 0
    assert places(hosted.model.transformer) == from_disk
    monkeypatch.undo()
    model_management.unload_all_models()


def test_a_second_host_of_a_model_wraps_nothing_twice(hosted):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel

    model = hosted.model
    from_disk = places(model.vae)
    classes = [type(layer) for layer in model.vae.modules()]
    hosted.use(model.vae, memory_required=0)
    for parameter in model.vae.parameters():
        parameter.data = parameter.data.clone()  # as if it were on the GPU
    second = HostedModel(model, guardrail=False)
    assert [type(layer) for layer in model.vae.modules()] == classes
    second.use(model.vae, memory_required=0)
    model_management.unload_all_models()
    assert places(model.vae) == from_disk


@pytest.mark.parametrize(
    ("left_for_others", "stays"),
    [(0, False), (0.5, False), (1, True)],
    ids=["nothing beside it", "half of the reserve", "the whole reserve"],
)
def test_room_is_made_unless_comfyuis_own_reserve_is_free_beside_it(hosted, monkeypatch, left_for_others, stays):
    from comfy import model_management

    size = 2**30
    free = size + int(left_for_others * model_management.minimum_inference_memory())
    hosted.use(hosted.model.vae, memory_required=0)
    monkeypatch.setattr(
        model_management, "get_free_memory", lambda device, torch_free_too=False: (free, 0) if torch_free_too else free
    )
    assert hosted.make_room(size) == torch.device("cpu")
    assert (hosted.model.vae in parts_under_comfyui()) == stays


@pytest.mark.parametrize("spares_all", [False, True], ids=["", "--novram"])
def test_a_gpu_gives_all_but_the_reserve_and_room_for_the_streamed_layers(hosted, monkeypatch, spares_all):
    """Two streams fetch the next layers while one computes. Models of others leave the GPU, those elsewhere do not."""
    from comfy import model_management

    gpu = torch.device("cuda", 0)
    loaded = [
        SimpleNamespace(device=device, model=SimpleNamespace(loaded_size=lambda size=size: size * GIB))
        for device, size in ((gpu, 3), (torch.device("cpu"), 50))
    ]
    monkeypatch.setattr(hosted, "device", gpu)
    monkeypatch.setattr(model_management, "NUM_STREAMS", 2)
    monkeypatch.setattr(model_management, "extra_reserved_memory", lambda: GIB // 2)
    monkeypatch.setattr(model_management, "get_free_memory", lambda device: (8 if device == gpu else 20) * GIB)
    monkeypatch.setattr(model_management, "current_loaded_models", loaded)
    state = model_management.VRAMState.NO_VRAM if spares_all else model_management.VRAMState.NORMAL_VRAM
    monkeypatch.setattr(model_management, "vram_state", state)
    assert hosted.memory() == DeviceMemory(
        free=8 * GIB + 3 * GIB - GIB // 2, ram=20 * GIB, layers_in_flight=3, streams_all=spares_all
    )


def test_weights_stay_as_they_are_on_the_cpu(core):
    from cosmos_predict25.nodes.host.memory import text_weight_dtype, weight_dtype

    assert weight_dtype() is None
    assert text_weight_dtype() is None


@pytest.mark.parametrize(
    ("bfloat16", "float16", "dtype"),
    [(True, True, torch.bfloat16), (False, True, torch.float16), (False, False, torch.float32)],
    ids=["GPU with bfloat16", "GPU with float16", "GPU with neither"],
)
def test_weights_have_the_smallest_type_that_a_gpu_is_good_at(core, monkeypatch, bfloat16, float16, dtype):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import text_weight_dtype, weight_dtype

    monkeypatch.setattr(model_management, "get_torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(model_management, "should_use_bf16", lambda device: bfloat16)
    monkeypatch.setattr(model_management, "should_use_fp16", lambda device: float16)
    assert weight_dtype() == dtype
    assert text_weight_dtype() == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "bfloat16", "dtype"),
    [("cuda", True, torch.bfloat16), ("cuda", False, torch.float32), ("cpu", False, torch.bfloat16)],
)
def test_the_text_encoder_computes_in_float32_on_a_gpu_without_bfloat16(core, monkeypatch, device, bfloat16, dtype):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import text_compute_dtype

    monkeypatch.setattr(model_management, "get_torch_device", lambda: torch.device(device))
    monkeypatch.setattr(model_management, "should_use_bf16", lambda device: bfloat16)
    assert text_compute_dtype(torch.bfloat16) == dtype


@torch.inference_mode()
def test_the_preview_has_the_colors_of_the_demos_video_and_wans_factors_else(core, hosted, monkeypatch):
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args
    from comfy.latent_formats import Wan21

    from cosmos_predict25.nodes.host.observers import format_for_previews

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    vae = load_pipeline_folder(DEMO_FOLDER, torch.float32).vae
    frames = render(Scene((SceneObject("red", "square"),), "bounce", "blue"), random.Random(0)) / 255
    latents = normalize(vae, vae.encode(frames.permute(3, 0, 1, 2)[None] * 2 - 1).latent_dist.mode())
    previewer = latent_preview.get_previewer(torch.device("cpu"), format_for_previews(vae))
    shown = torch.tensor(list(previewer.decode_latent_to_preview(latents).getdata())).reshape(12, 12, 3)
    small = frames[0].reshape(12, 8, 12, 8, 3).mean((1, 3)) * 255
    assert (shown - small).abs().mean() < 45  # 81 with the factors of Wan 2.1
    assert format_for_previews(hosted.model.vae).latent_rgb_factors == Wan21.latent_rgb_factors


def generate_on(hosted, **options):
    return generate(hosted.model, REQUEST, placement=hosted, prompts=hosted.prompts, **options)


class Override:
    """An attention override as of a node of ComfyUI's. Notes each call; `factor`: of what it makes of the attention."""

    def __init__(self, factor: float = 1.0) -> None:
        self.calls: list[dict[str, Any]] = []
        self.factor = factor

    def __call__(self, func, q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, **options):
        told = options["transformer_options"]
        assert (mask, attn_precision, skip_reshape, heads) == (None, None, True, q.shape[1])
        assert q.shape == k.shape == v.shape
        self.calls.append({"block": told["block_index"], "sigma": told["sigmas"].tolist(), "node": told.get("node")})
        return self.factor * func(q, k, v, heads, mask=mask, skip_reshape=skip_reshape, **options)


def under_attention(hosted, override: Override):
    """What the node makes of `hosted`, and its lines."""
    from comfy.model_patcher import ModelPatcher

    from cosmos_predict25.nodes.apply_attention import CosmosPredict25ApplyAttention

    cpu = torch.device("cpu")
    patched = ModelPatcher(torch.nn.Linear(1, 1), cpu, cpu)
    patched.model_options["transformer_options"] |= {"optimized_attention_override": override, "node": "another's"}
    output: Any = CosmosPredict25ApplyAttention.execute(hosted, patched)
    return output.args[0], output.ui["cosmos_predict25"]


def test_an_attention_node_is_asked_once_for_the_self_attention_of_each_block_and_pass(hosted):
    override = Override()
    plain = generate_on(hosted).frames
    changed, lines = under_attention(hosted, override)
    assert generate_on(changed).frames.equal(plain)
    assert len(lines) == 1
    blocks, sigmas = len(hosted.model.transformer.transformer_blocks), (200.0, 0.01)
    assert [call["block"] for call in override.calls] == list(range(blocks)) * 2 * REQUEST.num_inference_steps
    told = [call["sigma"] for call in override.calls[:: 2 * blocks]]
    assert [sigma for (sigma,) in told] == pytest.approx(sigmas, rel=1e-3)
    assert {call["node"] for call in override.calls} == {"another's"}


def test_what_an_attention_node_computes_changes_the_video_of_its_own_branch_alone(hosted):
    plain = generate_on(hosted).frames
    changed, _ = under_attention(hosted, override := Override(factor=0))
    assert (generate_on(changed).frames - plain).abs().max() > 1e-3
    calls = len(override.calls)
    assert generate_on(hosted).frames.equal(plain)
    assert len(override.calls) == calls


def test_a_model_that_no_attention_node_has_changed_is_refused(hosted):
    from cosmos_predict25.nodes.apply_attention import CosmosPredict25ApplyAttention

    with pytest.raises(InvalidRequestError, match="attention_from"):
        CosmosPredict25ApplyAttention.execute(hosted, SimpleNamespace(model_options={"transformer_options": {}}))  # pyright: ignore[reportArgumentType]


def test_where_comfyuis_attention_is_not_used_an_attention_node_is_refused(hosted):
    hosted.ways = replace(hosted.ways, kernels=False)
    with pytest.raises(InvalidRequestError, match="torch's own attention"):
        under_attention(hosted, Override())


@pytest.fixture
def copies(core, monkeypatch):
    """Weights that ComfyUI has loaded are copies, as on a GPU."""
    from cosmos_predict25.nodes.host.memory import CosmosPredict25Patcher

    load = CosmosPredict25Patcher.load

    def load_copies(patcher, *args, **options):
        load(patcher, *args, **options)
        for parameter in patcher.model.part.parameters():
            parameter.data = parameter.data.clone()

    monkeypatch.setattr(CosmosPredict25Patcher, "load", load_copies)


class Stop(Exception):  # noqa: N818
    """As ComfyUI's own interruption."""


class StopsInAPass(NullObserver):
    """Asked before each block of the first pass."""

    denoising = False

    def progress(self, message, done, total, latents=None):
        self.denoising = message == "Denoising"

    def raise_if_stopped(self):
        if self.denoising:
            raise Stop


def fails(*_):
    raise RuntimeError("out of luck")


def assert_from_disk_again(hosted, checkpoint, before: dict) -> None:
    """The same places of the memory map, and nothing has been written there."""
    other = load_pipeline_folder(checkpoint)
    for name, place in before.items():
        part, loaded = getattr(hosted.model, name), getattr(other, name)
        assert places(part) == place
        assert all(a.equal(b) for a, b in zip(part.parameters(), loaded.parameters(), strict=True))


@pytest.mark.usefixtures("copies")
@pytest.mark.parametrize("ending", ["Stop", "an error in a pass", "another model"])
def test_the_weights_from_disk_are_back_after_a_run_that_ended_with(hosted, checkpoint, monkeypatch, ending):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel

    transformer = hosted.model.transformer
    before = {name: places(getattr(hosted.model, name)) for name in ("text_encoder", "transformer", "vae")}
    if ending == "Stop":
        with pytest.raises(Stop):
            generate_on(hosted, observer=StopsInAPass())
        assert places(transformer) != before["transformer"]
        model_management.unload_all_models()
    elif ending == "an error in a pass":
        transformer.transformer_blocks[1].register_forward_pre_hook(fails)
        with pytest.raises(RuntimeError, match="out of luck"):
            generate_on(hosted)
        assert places(transformer) != before["transformer"]
        model_management.unload_all_models()
    else:
        generate_on(hosted)
        assert places(transformer) != before["transformer"]
        monkeypatch.setattr(
            model_management, "get_free_memory", lambda device, torch_free_too=False: (0, 0) if torch_free_too else 0
        )
        # The guardrail asks for room, and ComfyUI gives it that of the model before.
        generate_on(HostedModel(load_pipeline_folder(checkpoint), guardrail=True), guardrail=AllowEverything)
    assert_from_disk_again(hosted, checkpoint, before)


@pytest.mark.parametrize("state", ["LOW_VRAM", "NO_VRAM"])
def test_the_demos_video_is_the_same_where_comfyui_spares_memory(core, monkeypatch, state):
    """As with --lowvram and --novram, which ComfyUI ignores with --cpu: the CPU passes for a GPU with little free."""
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel

    model = load_pipeline_folder(DEMO_FOLDER)
    expected = generate(model, REQUEST)
    hosted = HostedModel(model, guardrail=False)
    free = model_management.extra_reserved_memory() + 2**28
    monkeypatch.setattr(model_management, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(model_management, "vram_state", model_management.VRAMState[state])
    monkeypatch.setattr(
        model_management, "get_free_memory", lambda device, torch_free_too=False: (free, 0) if torch_free_too else free
    )
    video = generate_on(hosted)
    streamed = [
        sum(hasattr(layer, "prev_comfy_cast_weights") for layer in part.modules())
        for part in (model.text_encoder, model.transformer, model.vae)
    ]
    print(f"\n{streamed} layers streamed", end="")
    assert all(streamed)
    assert video.latents.equal(expected.latents)
    assert video.frames.equal(expected.frames)
    model_management.unload_all_models()


def test_a_loader_runs_again_when_a_file_of_its_checkpoint_was_replaced(core, checkpoint, tmp_path, monkeypatch):
    import folder_paths

    from cosmos_predict25.nodes.checkpoint_loader import CosmosPredict25CheckpointLoader
    from cosmos_predict25.nodes.loader import CosmosPredict25Loader

    shutil.copytree(checkpoint, tmp_path / "mine")
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: [str(tmp_path)])
    files = {"transformer": "none", "vae": "none", "text_encoder": "none"}
    for loader in (CosmosPredict25Loader, CosmosPredict25CheckpointLoader):
        before = loader.fingerprint_inputs("mine", **files)
        assert loader.fingerprint_inputs("mine", **files) == before
        os.utime(tmp_path / "mine" / "vae" / "config.json", (1, 1))
        assert loader.fingerprint_inputs("mine", **files) != before
        os.utime(tmp_path / "mine" / "vae" / "config.json")


def test_the_files_of_a_text_encoders_folder_are_not_offered_one_by_one(core, tmp_path, monkeypatch):
    import folder_paths

    from cosmos_predict25.nodes.checkpoint_inputs import single_file_inputs

    for name in ("reason/config.json", "reason/model-00001-of-00002.safetensors", "alone.safetensors", "old.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    suffixes = {".safetensors", ".pt"}
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "text_encoders", ([str(tmp_path)], suffixes))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    assert single_file_inputs()[2].options == ["none", "reason"]
    assert single_file_inputs(text_encoder_files=True)[2].options == ["none", "reason", "alone.safetensors"]


def test_the_loader_asks_for_the_text_encoders_own_type(in_graph, monkeypatch):
    from cosmos_predict25.nodes.host import memory
    from cosmos_predict25.nodes.loader import CosmosPredict25Loader

    monkeypatch.setattr(memory, "weight_dtype", lambda: torch.float32)
    monkeypatch.setattr(memory, "text_weight_dtype", lambda: torch.bfloat16)
    hosted: Any = in_graph(CosmosPredict25Loader).execute(DEMO, False, "none", "none", "none", False).args[0]
    assert hosted.model.text_encoder.token_embeddings.dtype == torch.bfloat16
    assert hosted.model.transformer.dtype == torch.float32
