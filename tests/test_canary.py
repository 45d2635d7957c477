"""Releases that nobody has tested: what is found out about them, and that a video is the same with each fallback."""

import functools
import importlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.pipeline.errors import MissingDependencyError
from cosmos_predict25.pipeline.local import canary, compat
from cosmos_predict25.pipeline.local.compat import PRIVATE, Release
from cosmos_predict25.pipeline.local.load.find import DEMO, DEMO_FOLDER
from cosmos_predict25.pipeline.local.ways import OURS
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.pipeline.start import Start

CPU = torch.device("cpu")
NEWER = {"diffusers": Release("9.9.9", "0.42.1"), "transformers": Release("9.8.7", "5.24.0")}
REQUEST = GenerationRequest(
    prompt="A red circle.", seed=3, num_frames=9, num_inference_steps=3, width=64, height=64, guidance_scale=3
)
WAN = "diffusers.models.autoencoders.autoencoder_kl_wan"
COSMOS = "diffusers.models.transformers.transformer_cosmos"
UNIPC = "diffusers.schedulers.scheduling_unipc_multistep"
QWEN = "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"
ROOMS = ("cosmos_predict25.pipeline.local", "cosmos_predict25.nodes.host", "cosmos_predict25.nodes.native")
REPO = Path(__file__).parents[1]


@pytest.fixture
def fresh() -> Iterator[Callable[[str], Any]]:
    """Imports a module of the pack's anew, with all of its room, from libraries that a test has changed."""
    before = taken_out()
    yield lambda name: importlib.import_module(f"cosmos_predict25.{name}")
    taken_out()
    for name, module in before.items():
        sys.modules[name] = module
        package, _, own_name = name.rpartition(".")
        setattr(sys.modules[package], own_name, module)


def taken_out() -> dict[str, ModuleType]:
    """The modules of `ROOMS`, which are imported no more, but for `compat`."""
    names = [name for name in sys.modules if name.startswith(ROOMS) and not name.endswith("local.compat")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return video(lambda name: importlib.import_module(f"cosmos_predict25.{name}"), OURS)


def video(pack: Callable[[str], Any], ways: Any, placement: Callable[[Any], Any] = lambda _: None) -> torch.Tensor:
    """The demo's, from a start, which takes each part of the model."""
    model = pack("pipeline.local.load.checkpoint").load_pipeline_folder(DEMO_FOLDER, ways=ways)
    start = Start(torch.full((1, 64, 64, 3), 0.25))
    return pack("pipeline.local.generate").generate(model, REQUEST, start=start, placement=placement(model)).frames


def name_in(module: str, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def rename(monkeypatch, module: str, name: str, old: str, new: str, calls: tuple[str, ...] = ("forward",)) -> None:
    """What a class calls `old` it calls `new` from now on, and so do its own methods."""
    cls = name_in(module, name)
    make = cls.__init__

    @functools.wraps(make)
    def renamed(instance, *args, **options):
        make(instance, *args, **options)
        setattr(instance, new, take(instance, old))

    def take(instance, attribute):
        value = getattr(instance, attribute)
        delattr(instance, attribute)
        return value

    def with_old_name(method):
        @functools.wraps(method)
        def call(instance, *args, **options):
            setattr(instance, old, take(instance, new))
            try:
                return method(instance, *args, **options)
            finally:
                setattr(instance, new, take(instance, old))

        return call

    monkeypatch.setattr(cls, "__init__", renamed)
    for method in calls:
        monkeypatch.setattr(cls, method, with_old_name(getattr(cls, method)))


def change(monkeypatch, module: str, name: str, method: str, to: Callable[..., Any]) -> None:
    """`to` gets the method as it was, then what the method gets."""
    cls = name_in(module, name)
    before = getattr(cls, method)
    monkeypatch.setattr(cls, method, functools.wraps(before)(lambda *args, **options: to(before, *args, **options)))


def rename_in_the_transformer(monkeypatch):
    rename(monkeypatch, COSMOS, "CosmosAdaLayerNormZero", "activation", "act")


def rename_in_the_vae(monkeypatch):
    rename(monkeypatch, WAN, "WanCausalConv3d", "_padding", "causal_padding")


def rename_in_the_text_encoder(monkeypatch):
    rename(monkeypatch, QWEN, "Qwen2_5_VLTextModel", "rotary_emb", "rope")


def rename_in_the_solver(monkeypatch):
    methods = "set_timesteps", "step"
    rename(monkeypatch, UNIPC, "UniPCMultistepScheduler", "model_outputs", "outputs", methods)


def gain(before: Callable[..., torch.Tensor], *args: Any, gain: float = 1.1, **options: Any) -> torch.Tensor:
    """A new argument with a default that changes the result."""
    return before(*args, **options) * gain


def gain_in_the_transformer(monkeypatch):
    change(monkeypatch, COSMOS, "CosmosTransformerBlock", "forward", gain)


def gain_in_the_vae(monkeypatch):
    change(monkeypatch, WAN, "WanDecoder3d", "forward", gain)


def gain_in_the_text_encoder(monkeypatch):
    """Of the rows that the model looks up itself."""

    def forward(before, model, input_ids=None, inputs_embeds=None, gain=1.5, **options):
        embeds = inputs_embeds if input_ids is None else model.get_input_embeddings()(input_ids) * gain
        return before(model, inputs_embeds=embeds, **options)

    change(monkeypatch, QWEN, "Qwen2_5_VLTextModel", "forward", forward)


def gain_in_the_solver(monkeypatch):
    """Only sigmas that it was given are taken for those that it has."""

    def set_timesteps(before, scheduler, *args, **options):
        before(scheduler, *args, **options)
        scheduler.own_sigmas = scheduler.sigmas

    def step(before, scheduler, output, *args, gain=1.1, **options):
        return before(scheduler, output * (1 if scheduler.sigmas is scheduler.own_sigmas else gain), *args, **options)

    change(monkeypatch, UNIPC, "UniPCMultistepScheduler", "set_timesteps", set_timesteps)
    change(monkeypatch, UNIPC, "UniPCMultistepScheduler", "step", step)


def signature_in_the_transformer(monkeypatch):
    """The frame rate has to be given."""

    def forward(before, rope, hidden_states, *, fps):
        return before(rope, hidden_states, fps=fps)

    change(monkeypatch, COSMOS, "CosmosRotaryPosEmbed", "forward", forward)


def signature_in_the_vae(monkeypatch):
    """Convolutions are told more than they were."""
    cls = name_in(WAN, "WanCausalConv3d")
    change(monkeypatch, WAN, "WanCausalConv3d", "forward", lambda before, *args, kind: before(*args))
    monkeypatch.setattr(cls, "__call__", lambda layer, *args: torch.nn.Module.__call__(layer, *args, kind="causal"))


def signature_in_the_text_encoder(monkeypatch):
    """What was a class is a function."""
    rotary = name_in(QWEN, "Qwen2_5_VLRotaryEmbedding")
    monkeypatch.setattr(importlib.import_module(QWEN), rotary.__name__, lambda config: rotary(config))


def signature_in_the_solver(monkeypatch):
    def set_begin_index(before, scheduler, *, index):
        before(scheduler, index)

    change(monkeypatch, UNIPC, "UniPCMultistepScheduler", "set_begin_index", set_begin_index)


def no_name(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The library has moved what this pack takes from it."""

    def move(monkeypatch):
        for name in names:
            monkeypatch.setitem(PRIVATE, name, f"{PRIVATE[name]}_of_old")

    move.__name__ = f"no {names[0]}"
    return move


RELEASES = [
    ("transformer", rename_in_the_transformer),
    ("transformer", gain_in_the_transformer),
    ("transformer", signature_in_the_transformer),
    ("transformer", no_name("CosmosTransformerBlock")),
    ("transformer", no_name("apply_rotary_emb")),
    ("vae", rename_in_the_vae),
    ("vae", gain_in_the_vae),
    ("vae", signature_in_the_vae),
    ("vae", no_name("CACHE_T")),
    ("vae", no_name("WanCausalConv3d")),
    ("vae", no_name("WanMidBlock")),
    ("vae", no_name("WanResample")),
    ("vae", no_name("WanResidualBlock")),
    ("text_encoder", rename_in_the_text_encoder),
    ("text_encoder", gain_in_the_text_encoder),
    ("text_encoder", signature_in_the_text_encoder),
    ("text_encoder", no_name("Qwen2_5_VLRotaryEmbedding")),
    ("solver", rename_in_the_solver),
    ("solver", gain_in_the_solver),
    ("solver", signature_in_the_solver),
]
LINES = {
    "transformer": ("diffusers 9.9.9", "more memory", "pip install diffusers==0.42.1"),
    "vae": ("diffusers 9.9.9", "more memory", "pip install diffusers==0.42.1"),
    "text_encoder": ("transformers 9.8.7", "slower", "pip install transformers==5.24.0"),
    "solver": ("diffusers 9.9.9", "sampler", "pip install diffusers==0.42.1"),
}


@pytest.mark.sample(12)
@pytest.mark.quick(6)
@pytest.mark.parametrize(("part", "release"), RELEASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_release_that_changes_a_part_has_it_run_as_the_library_does(monkeypatch, fresh, expected, part, release):
    release(monkeypatch)
    ways, lines = fresh("pipeline.local.canary").check_parts(NEWER, CPU, torch.float32, torch.float32)
    assert {name for name, ours in asdict(ways).items() if not ours} == {part}
    print(f"\n{lines[0]}", end="")
    assert len(lines) == 1
    assert all(word in lines[0] for word in LINES[part])
    # A gain is another result. Where only a name has moved, the library computes as in the other cases of its part.
    if release.__name__.startswith(("rename", "signature")):
        similarity = psnr(video(fresh, ways), expected)
        print(f"\n{similarity:.0f} dB", end="")
        assert similarity > 60


def test_without_the_fast_norm_all_is_as_it_was(monkeypatch, fresh, expected):
    no_name("WanRMS_norm")(monkeypatch)
    ways, lines = fresh("pipeline.local.canary").check_parts(NEWER, CPU, torch.float32, torch.float32)
    assert (asdict(ways), lines) == (asdict(OURS), ())
    assert psnr(video(fresh, ways), expected) > 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_of_releases_that_compute_the_same_nothing_is_said(dtype):
    begin = time.monotonic()
    assert canary.check_parts(NEWER, CPU, dtype, torch.bfloat16) == (OURS, ())
    print(f"\n{time.monotonic() - begin:.1f} s", end="")


def test_what_the_library_cannot_compute_either_is_refused(monkeypatch):
    def forward(before, transformer, states, *, context):
        return before(transformer, states)

    change(monkeypatch, COSMOS, "CosmosTransformer3DModel", "forward", forward)
    with pytest.raises(MissingDependencyError) as refused:
        canary.check_parts(NEWER, CPU, torch.float32, torch.float32)
    for word in ("transformer", "diffusers 9.9.9", "pip install diffusers==0.42.1"):
        assert word in str(refused.value)


def test_where_its_own_package_was_tested_all_others_are_named():
    part = canary.PARTS["vae"]
    line = canary.described(part, {"torch": Release("3.0.0", "2.11.0"), "ComfyUI": Release("0.46.0", "0.33.0")})
    assert "With torch 3.0.0 and ComfyUI 0.46.0" in line
    assert line.endswith("pip install torch==2.11.0, ComfyUI 0.33.0")


@pytest.mark.exhaustive  # a release of another's must not turn the short run red
def test_the_packages_that_the_tests_run_with_are_those_that_are_called_tested():
    assert compat.untested() == {}


def test_another_release_is_found(monkeypatch):
    monkeypatch.setitem(compat.TESTED, "diffusers", ("0.37.1",))  # pyright: ignore[reportArgumentType]
    assert compat.untested() == {"diffusers": Release(version("diffusers"), "0.37.1")}


def test_tested_releases_are_not_tried(monkeypatch):
    monkeypatch.setattr(canary, "check_parts", None)
    assert canary.check(CPU, torch.float16, torch.float64) == (OURS, ())


HOST = {"ComfyUI": Release("0.99.0", "0.33.0")}


def no_layers(monkeypatch):
    import comfy.ops

    monkeypatch.delattr(comfy.ops, "manual_cast")


def gain_in_a_layer(monkeypatch):
    change(monkeypatch, "comfy.ops", "manual_cast.Linear", "forward_comfy_cast_weights", gain)


def signature_of_unloading(monkeypatch):
    from comfy.model_patcher import ModelPatcher

    def unpatch_model(before, patcher, device_to=None, weights=True, **older):
        return before(patcher, device_to, older.get("unpatch_weights", weights))

    def detach(before, patcher, unpatch_all=True):
        patcher.unpatch_model(patcher.offload_device, weights=unpatch_all)
        return patcher.model

    change(monkeypatch, "comfy.model_patcher", ModelPatcher.__name__, "unpatch_model", unpatch_model)
    change(monkeypatch, "comfy.model_patcher", ModelPatcher.__name__, "detach", detach)


def gain_in_attention(monkeypatch):
    from comfy.ldm.modules import attention

    before = attention.optimized_attention
    monkeypatch.setattr(attention, "optimized_attention", functools.partial(gain, before))


def signature_of_attention(monkeypatch):
    from comfy.ldm.modules import attention

    before = attention.optimized_attention
    monkeypatch.setattr(
        attention,
        "optimized_attention",
        lambda query, key, value, *, heads, layout: before(query, key, value, heads, skip_reshape=layout == "bhtd"),
    )


def gain_in_a_norm(monkeypatch):
    import comfy.quant_ops

    monkeypatch.setattr(comfy.quant_ops.ck, "adaln", functools.partial(gain, comfy.quant_ops.ck.adaln))


def signature_of_a_norm(monkeypatch):
    import comfy.quant_ops

    before = comfy.quant_ops.ck.rms_rope_split_half1
    monkeypatch.setattr(
        comfy.quant_ops.ck, "rms_rope_split_half1", lambda x, *, table, weight, eps: before(x, table, weight, eps)
    )


@pytest.mark.quick(3)
@pytest.mark.usefixtures("core")
@pytest.mark.parametrize(
    ("parts", "release"),
    [
        ({"layers"}, no_layers),
        ({"layers"}, gain_in_a_layer),
        ({"layers"}, signature_of_unloading),
        ({"kernels"}, gain_in_attention),
        ({"kernels"}, signature_of_attention),
        ({"kernels"}, gain_in_a_norm),
        ({"kernels"}, signature_of_a_norm),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_comfyui_that_changes_something_is_used_without_it(monkeypatch, fresh, expected, parts, release):
    release(monkeypatch)
    found = fresh("nodes.host.canary").check_parts(HOST, CPU, torch.float32, torch.float32)
    print(f"\n{found.lines}", end="")
    assert asdict(found.ways) == asdict(OURS)
    assert {name for name, used in asdict(found.host).items() if not used} == parts
    assert len(found.lines) == len(parts)
    assert all("ComfyUI 0.99.0" in line and "Tested: ComfyUI 0.33.0" in line for line in found.lines)
    memory = fresh("nodes.host.memory")
    frames = video(fresh, found.ways, lambda model: memory.HostedModel(model, False, ways=found.host))
    assert psnr(frames, expected) > 60


@pytest.mark.usefixtures("core")
def test_of_a_comfyui_that_computes_the_same_nothing_is_said():
    from cosmos_predict25.nodes.host import canary as host

    begin = time.monotonic()
    found = host.check_parts(HOST, CPU, torch.bfloat16, torch.bfloat16)
    print(f"\n{time.monotonic() - begin:.1f} s", end="")
    assert asdict(found.ways) == asdict(OURS)
    assert (asdict(found.host), found.lines) == ({"layers": True, "kernels": True}, ())


NATIVE = [
    ("comfy.text_encoders.llama", "Llama2_"),
    ("comfy.text_encoders.llama", "Qwen25_7BVLI_Config"),
    ("comfy.text_encoders.llama", "BaseGenerate"),
    ("comfy.text_encoders.qwen_vl", "Qwen2VLVisionTransformer"),
    ("comfy.text_encoders.qwen_vl", "process_qwen2vl_images"),
    ("comfy.ldm.modules.attention", "optimized_attention_for_device"),
    ("comfy.supported_models_base", "ClipTarget"),
    ("comfy.ldm.cosmos.predict2", "MiniTrainDIT"),
    ("comfy.ldm.wan.vae", "WanVAE"),
    ("comfy.model_base", "CosmosPredict2"),
    ("comfy.supported_models", "CosmosI2VPredict2"),
    ("comfy.model_sampling", "ModelSamplingCosmosRFlow"),
    ("comfy.model_sampling", "COSMOS_RFLOW"),
    ("comfy.utils", "convert_old_quants"),
    ("comfy.utils", "detect_layer_quantization"),
    ("comfy.utils", "calculate_parameters"),
    ("comfy.ops", "mixed_precision_ops"),
    ("comfy.model_sampling", "ModelSamplingContinuousV"),
    ("comfy.model_sampling", "CONST"),
    ("comfy.ldm.cosmos.predict2", "Attention"),
    ("comfy.patcher_extension", "WrappersMP"),
]


@pytest.mark.sample(7)
@pytest.mark.quick(6)
@pytest.mark.usefixtures("core", "fresh")
@pytest.mark.parametrize(("module", "name"), NATIVE, ids=lambda value: value.split(".")[-1])
def test_a_comfyui_without_a_name_of_its_networks_is_named(monkeypatch, in_graph, module, name):
    import server  # noqa: F401 ComfyUI's own, which takes some of them too

    from cosmos_predict25.nodes.checkpoint_loader import CosmosPredict25CheckpointLoader
    from cosmos_predict25.nodes.host import compat

    monkeypatch.setattr(compat.comfyui_version, "__version__", "0.99.0")
    monkeypatch.delattr(importlib.import_module(module), name)
    with pytest.raises(MissingDependencyError) as refused:
        in_graph(CosmosPredict25CheckpointLoader).execute(DEMO, "none", "none", "none", False)
    for word in (name, "ComfyUI 0.99.0", "Tested: ComfyUI 0.33.0", "Generate Locally"):
        assert word in str(refused.value)


def test_every_name_of_comfyuis_networks_is_tried_without():
    imported = re.findall(
        r"from (\S+) import \(?\s*(\w+) as", (REPO / "nodes/native/compat.py").read_text(encoding="utf-8")
    )
    assert set(imported) == set(NATIVE)


def test_the_loader_says_what_the_canary_found(in_graph, monkeypatch):
    from cosmos_predict25.nodes.host import canary as host
    from cosmos_predict25.nodes.loader import CosmosPredict25Loader

    found = host.Found(replace(OURS, vae=False), host.HostWays(kernels=False), ("With diffusers 9.9.9 it is slower.",))
    monkeypatch.setattr(host, "check", lambda *_: found)
    output: Any = in_graph(CosmosPredict25Loader).execute(DEMO, False, "none", "none", "none", False)
    assert output.args[0].model.ways == found.ways
    assert output.args[0].ways == found.host
    assert "With diffusers 9.9.9 it is slower." in output.ui["cosmos_predict25"]
