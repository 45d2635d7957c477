"""The pack in a real ComfyUI, through its HTTP and websocket API: the newest version and the oldest supported one."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import av
import numpy
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, PromptFailedError, PromptRefusedError, to_api_prompt
from cosmos_predict25.devtools.frontend import SOCKETS, sockets_of
from cosmos_predict25.pipeline.local.load.find import DEMO

REPO = Path(__file__).resolve().parents[1]
WORKFLOW = json.loads((REPO / "workflows" / "NVIDIA Cosmos Text to Video (local).json").read_text(encoding="utf-8"))
SMALL = {"num_frames": 10, "num_inference_steps": 2, "width": 64, "height": 48}
RANDOM_LOADED = ["Loaded random-weights-demo.", "Variant: 2B post-trained."]
NODES = {
    "CosmosPredict25Prompt": "Prompt (Cosmos Predict2.5)",
    "CosmosPredict25SamplerSettings": "Sampler Settings (Cosmos Predict2.5)",
    "CosmosPredict25Loader": "Model Loader (Cosmos Predict2.5)",
    "CosmosPredict25Generate": "Generate Locally (Cosmos Predict2.5)",
    "CosmosPredict25Extend": "Extend Video Locally (Cosmos Predict2.5)",
    "CosmosPredict25ExtendFal": "Extend Video on fal (Cosmos Predict2.5)",
    "CosmosPredict25GenerateFal": "Generate on fal (Cosmos Predict2.5)",
    "CosmosPredict25ExportVideo": "Export Video (Cosmos Predict2.5)",
    "CosmosPredict25CheckpointLoader": "Checkpoint Loader (Cosmos Predict2.5)",
    "CosmosPredict25LoraLoader": "LoRA Loader (Cosmos Predict2.5)",
    "CosmosPredict25EmptyLatent": "Empty Latent (Cosmos Predict2.5)",
    "CosmosPredict25ApplyAttention": "Apply Attention (Cosmos Predict2.5)",
    "CosmosPredict25StartLatent": "Start Latent (Cosmos Predict2.5)",
    "CosmosPredict25Sampler": "UniPC Sampler (Cosmos Predict2.5)",
}


def shared_workflow(server: ComfyUI, **values: Any) -> dict[str, Any]:
    """The shared workflow in API format, small, with `values` in the widgets of those names."""
    prompt = to_api_prompt(WORKFLOW, server.object_info())
    for node in prompt.values():
        widgets = {name for name, value in node["inputs"].items() if not isinstance(value, list)}
        node["inputs"].update({name: value for name, value in {**SMALL, **values}.items() if name in widgets})
    return prompt


def node_id(prompt: dict[str, Any], kind: str) -> str:
    return next(name for name, node in prompt.items() if node["class_type"] == kind)


def events(entry: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [data for name, data in entry["status"]["messages"] if name == kind]


def said(entry: dict[str, Any], prompt: dict[str, Any], kind: str) -> list[str]:
    """What a node says when it has run."""
    return entry["outputs"][node_id(prompt, kind)]["cosmos_predict25"]


def probe(file: Path) -> tuple[int, int, int, float]:
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        return frames, stream.width, stream.height, float(stream.average_rate)


def test_object_info_has_every_node(any_comfyui):
    info = any_comfyui.object_info()
    for name, display_name in NODES.items():
        assert info[name]["display_name"] == display_name
        assert info[name]["python_module"] == "custom_nodes.cosmos-predict25"
        assert info[name]["description"]
        assert "cosmos" in info[name]["search_aliases"]
        inputs = {**info[name]["input"].get("required", {}), **info[name]["input"].get("optional", {})}
        assert all(options[0]["tooltip"] for _, *options in inputs.values())
        assert all(info[name]["output_tooltips"])
    assert info["CosmosPredict25Generate"]["output"] == ["VIDEO", "LATENT", "INT"]
    assert info["CosmosPredict25Generate"]["output_name"] == ["video", "latent", "seed"]


SEARCHES = {
    "text to video": {"CosmosPredict25Generate", "CosmosPredict25GenerateFal"},
    **{words: {"CosmosPredict25ExportVideo"} for words in ("save video", "prores", "gif", "mp4")},
}


@pytest.mark.parametrize("words", SEARCHES)
def test_a_search_finds_the_nodes(any_comfyui, words):
    found = {name for name, node in any_comfyui.object_info().items() if words in (node["search_aliases"] or ())}
    assert found & NODES.keys() >= SEARCHES[words]


def test_every_node_has_a_help_page(any_comfyui):
    for name, display_name in NODES.items():
        folder = f"{any_comfyui.url}/extensions/cosmos-predict25/docs"
        with urlopen(f"{folder}/{name}.md") as page:
            text = page.read().decode()
        assert text.startswith(f"# {display_name}")
        assert re.findall(r"!\[.*?\]\((.*?)\)", text) == [f"{name}.webp"]
        with urlopen(f"{folder}/{name}.webp") as file:
            assert Image.open(file).width <= 500  # the panel's width


def test_the_pictures_of_the_help_pages_have_the_sockets_of_today(comfyui):
    """Otherwise: scripts/screenshots.py --help-pictures."""
    infos = comfyui.object_info()
    assert json.loads(SOCKETS.read_text(encoding="utf-8")) == {name: sockets_of(infos[name]) for name in NODES}


def test_comfyuis_own_nodes_module_is_intact(any_comfyui):
    info = any_comfyui.object_info()
    assert info["KSampler"]["python_module"] == "nodes"
    assert info["SaveVideo"]["python_module"] == "comfy_extras.nodes_video"


def test_the_shared_workflow_makes_a_video(any_comfyui):
    prompt = shared_workflow(
        any_comfyui, keep_prompts=False
    )  # no other test's, so that no node is served from the cache
    messages = list(any_comfyui.follow(prompt))
    entry = any_comfyui.wait(messages[-1].data["prompt_id"])
    (file,) = any_comfyui.saved_files(entry)
    assert file.parent.name == "video"
    assert probe(file) == (10, 64, 48, 16.0)

    generate = node_id(prompt, "CosmosPredict25Generate")
    bars = [message.data for message in messages if message.type == "progress" and message.data["node"] == generate]
    assert bars[-1]["value"] == bars[-1]["max"] == 1 + 2 + 4
    assert sum(message.type == "preview" for message in messages) == 2
    texts = [message.data["text"] for message in messages if message.type == "text"]
    assert "Denoising, step 1 of 2" in texts
    assert said(entry, prompt, "CosmosPredict25Loader") == RANDOM_LOADED
    made, *_ = said(entry, prompt, "CosmosPredict25Generate")
    assert re.fullmatch(r"10 frames of 64x48 in \d+ s, seed 42\.", made)
    assert said(entry, prompt, "CosmosPredict25ExportVideo")[0].startswith(f"{file.name}, ")


def test_unchanged_inputs_are_served_from_the_cache(any_comfyui):
    prompt = shared_workflow(any_comfyui, seed=101)
    any_comfyui.run(prompt)
    (cached,) = events(any_comfyui.run(prompt), "execution_cached")
    assert node_id(prompt, "CosmosPredict25Generate") in cached["nodes"]


def test_models_stay_loaded_until_comfyui_evicts_them(any_comfyui):
    def loads() -> int:
        return any_comfyui.log.read_text(encoding="utf-8").count("Requested to load CosmosPredict25Part")

    any_comfyui.run(shared_workflow(any_comfyui, seed=201))
    loaded = loads()
    prompt = shared_workflow(any_comfyui, seed=202)
    (cached,) = events(any_comfyui.run(prompt), "execution_cached")
    assert node_id(prompt, "CosmosPredict25Loader") in cached["nodes"]
    assert loads() == loaded
    any_comfyui.request("/free", {"unload_models": True})
    for seed in range(203, 223):  # ComfyUI answers before it has done it, and tells nobody when it has.
        any_comfyui.run(shared_workflow(any_comfyui, seed=seed))
        if loads() > loaded:
            break
    # The transformer and the VAE: the same prompt needs no text encoder.
    assert loads() == loaded + 2


@pytest.mark.slow
def test_stop_ends_the_run_within_one_step(any_comfyui):
    """A step takes seconds at this size, so that a second preview would tell that Stop was not heeded."""
    values = {"num_inference_steps": 50, "num_frames": 45, "width": 256, "height": 256}
    previews, stopped_at = 0, 0.0
    for message in any_comfyui.follow(shared_workflow(any_comfyui, seed=301, **values)):
        if message.type == "preview":
            previews += 1
            any_comfyui.interrupt()
            stopped_at = time.monotonic()
    print(f"\nended {time.monotonic() - stopped_at:.2f} s after Stop", end="")
    entry = any_comfyui.wait(message.data["prompt_id"])
    assert previews == 1
    assert events(entry, "execution_interrupted")
    assert not events(entry, "execution_error")
    assert not any_comfyui.saved_files(entry)
    any_comfyui.run(shared_workflow(any_comfyui, seed=302))


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"height": 1936}, "CosmosPredict25SamplerSettings", "Value 1936 bigger than max of 1920: height"),
        ({"num_frames": 94}, "CosmosPredict25SamplerSettings", "Value 94 bigger than max of 93: num_frames"),
        ({"num_frames": 8}, "CosmosPredict25SamplerSettings", "Value 8 smaller than min of 9: num_frames"),
        ({"num_inference_steps": 51}, "CosmosPredict25SamplerSettings", "Value 51 bigger than max of 50"),
        ({"guidance_scale": 0.5}, "CosmosPredict25SamplerSettings", "Value 0.5 smaller than min of 1.0"),
        ({"seed": 2147483648}, "CosmosPredict25SamplerSettings", "Value 2147483648 bigger than max of 2147483647"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_runs(any_comfyui, values, kind, says):
    outputs = sorted(any_comfyui.output.rglob("*"))
    prompt = shared_workflow(any_comfyui, **values)
    with pytest.raises(PromptRefusedError) as refused:
        any_comfyui.run(prompt)
    errors = refused.value.node_errors[node_id(prompt, kind)]["errors"]
    assert says in f"{errors[0]['message']}: {errors[0]['details']}"
    assert sorted(any_comfyui.output.rglob("*")) == outputs
    any_comfyui.run(shared_workflow(any_comfyui))


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"height": 100}, "SamplerSettings", "height is 100, but must be a multiple of 16: try 96 or 112"),
        ({"prompt": " \n"}, "Prompt", "prompt is blank"),
        ({"checkpoint": "single files"}, "Loader", "checkpoint is 'single files', but transformer is 'none'"),
        ({"guardrail": True}, "Loader", "The guardrail is switched on, but the package cosmos-guardrail cannot be imp"),
    ],
    ids=str,
)
def test_what_a_node_refuses_is_told_on_it_before_a_model_is_loaded(any_comfyui, values, kind, says):
    prompt = shared_workflow(any_comfyui, seed=321, **values)
    loader = node_id(prompt, "CosmosPredict25Loader")
    with pytest.raises(PromptFailedError) as failed:
        any_comfyui.run(prompt)
    (error,) = events(failed.value.entry, "execution_error")
    assert error["node_id"] == node_id(prompt, f"CosmosPredict25{kind}")
    assert error["exception_type"].startswith("cosmos_predict25.")
    assert error["exception_message"].startswith(says)
    assert loader not in error["executed"]


def test_bad_values_from_other_nodes_are_refused_before_a_model_is_loaded(any_comfyui):
    prompt = shared_workflow(any_comfyui, guardrail=True)
    settings = node_id(prompt, "CosmosPredict25SamplerSettings")
    prompt["width"] = {"class_type": "PrimitiveInt", "inputs": {"value": 100}}
    prompt[settings]["inputs"]["width"] = ["width", 0]
    with pytest.raises(PromptFailedError) as failed:
        any_comfyui.run(prompt)
    (error,) = events(failed.value.entry, "execution_error")
    assert error["node_id"] == settings
    assert error["exception_type"] == "cosmos_predict25.InvalidRequestError"
    assert error["exception_message"].startswith("width is 100, but must be a multiple of 16")


def test_the_prompt_can_come_from_another_node(any_comfyui):
    prompt = shared_workflow(any_comfyui, seed=351)
    prompt["text"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a cat"}}
    prompt[node_id(prompt, "CosmosPredict25Prompt")]["inputs"]["prompt"] = ["text", 0]
    any_comfyui.run(prompt)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("auto", "There is no Cosmos-Predict2.5 model in "),
        ("cosmos-of-a-friend", "The checkpoint 'cosmos-of-a-friend' is not in "),
    ],
)
def test_without_a_model_nothing_runs_and_the_download_is_told(comfyui, no_checkpoint, chosen, says):
    prompt = shared_workflow(comfyui, checkpoint=chosen)
    with pytest.raises(PromptRefusedError) as refused:
        comfyui.queue(prompt)
    (error,) = refused.value.node_errors[node_id(prompt, "CosmosPredict25Loader")]["errors"]
    first, *steps = error["details"].splitlines()
    assert first.startswith(f"checkpoint - {says}")
    assert DEMO in steps[0]
    assert "accept its license" in " ".join(steps).lower()
    assert str(comfyui.models / "diffusers" / "Cosmos-Predict2.5-2B") in " ".join(steps)


def test_a_missing_checkpoint_of_a_shared_workflow_names_those_that_are_there(comfyui):
    with pytest.raises(PromptRefusedError) as refused:
        comfyui.queue(prompt := shared_workflow(comfyui, checkpoint="cosmos-of-a-friend"))
    (error,) = refused.value.node_errors[node_id(prompt, "CosmosPredict25Loader")]["errors"]
    first, *steps = error["details"].splitlines()
    assert "random-weights-demo" in first
    assert "accept its license" in " ".join(steps).lower()


def test_the_demo_makes_a_video_of_its_size_and_says_what_it_knows(comfyui):
    prompt = shared_workflow(
        comfyui, seed=401, width=1280, height=704, num_frames=9, checkpoint=DEMO, keep_prompts=False
    )
    entry = comfyui.run(prompt)
    loaded = said(entry, prompt, "CosmosPredict25Loader")
    assert loaded == ["Loaded moving-shapes.", "Demo: knows only coloured shapes."]
    lines = said(entry, prompt, "CosmosPredict25Generate")
    assert lines[0].startswith("9 frames of 96x96 in ")
    rest = " ".join(lines[1:])
    assert "This checkpoint makes at most 96x96 and 25 frames." in rest
    assert "circles, squares and triangles" in rest
    loaded = said(comfyui.run(shared_workflow(comfyui, seed=402)), prompt, "CosmosPredict25Loader")
    assert loaded == RANDOM_LOADED


def test_a_prompt_that_is_cut_is_told_with_the_word_where_it_was_cut(comfyui):
    prompt = shared_workflow(comfyui, seed=411, prompt=" ".join(f"word{number}" for number in range(600)))
    lines = " ".join(said(comfyui.run(prompt), prompt, "CosmosPredict25Generate"))
    assert re.search(r"\bprompt .* 512 tokens.* 'word\d+'", lines)


@pytest.fixture(scope="module")
def single_files(core: None, comfyui: ComfyUI, checkpoint: Path) -> dict[str, str]:
    """The checkpoint as single files in ComfyUI's model folders, the VAE with the names of Wan's own file."""
    from comfy.ldm.wan.vae import WanVAE
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    names = list(WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).state_dict())
    diffusers_names = convert_wan_vae_to_diffusers({name: name for name in names})
    weights = load_file(checkpoint / "vae" / "diffusion_pytorch_model.safetensors")
    for kind in ("vae", "diffusion_models", "text_encoders"):
        (comfyui.models / kind).mkdir(parents=True, exist_ok=True)
    save_file(
        {original: weights[name] for name, original in diffusers_names.items()},
        comfyui.models / "vae" / "wan.safetensors",
    )
    shutil.copy(
        checkpoint / "transformer" / "diffusion_pytorch_model.safetensors",
        comfyui.models / "diffusion_models" / "cosmos.safetensors",
    )
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(checkpoint / part, comfyui.models / "text_encoders" / "reason", dirs_exist_ok=True)
    (comfyui.models / "text_encoders" / "gone.safetensors").symlink_to("nowhere.safetensors")  # is in nobody's way
    return {"transformer": "cosmos.safetensors", "vae": "wan.safetensors", "text_encoder": "reason"}


def comfyui_with_module(
    name: str, code: str, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Iterator[ComfyUI]:
    """A running ComfyUI that finds `code` when it imports the module `name`, and has the node above."""
    folder = tmp_path_factory.mktemp(name)
    (folder / f"{name}.py").write_text(code)
    base = tmp_path_factory.mktemp(f"comfyui-with-{name}")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "name_node.py").write_text(NAME_NODE)
    shutil.copytree(checkpoint, base / "models" / "diffusers" / checkpoint.name)
    source = environment.source_folder(environment.NEWEST)
    with ComfyUI(source, base, REPO, environ={"PYTHONPATH": str(folder)}) as server:
        yield server


def images_of(server: ComfyUI, prompt: dict[str, Any], images: list[Any]) -> numpy.ndarray:
    """Frames (F, H, W, 3) in 0..255 that core's Save Image writes of the output `images` of a node in `prompt`."""
    nodes = {name: node for name, node in prompt.items() if node["class_type"] != "CosmosPredict25ExportVideo"}
    nodes["save"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "frame"}}
    return numpy.stack([numpy.asarray(Image.open(file)) for file in server.saved_files(server.run(nodes))])


def test_latents_decode_with_cores_vae_nodes_to_the_same_frames(comfyui, single_files):
    prompt = shared_workflow(comfyui, seed=501)
    generate = node_id(prompt, "CosmosPredict25Generate")
    prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": [generate, 0]}}
    prompt["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": single_files["vae"]}}
    prompt["decode"] = {"class_type": "VAEDecode", "inputs": {"samples": [generate, 1], "vae": ["vae", 0]}}
    ours = images_of(comfyui, prompt, ["parts", 0])
    cores = images_of(comfyui, prompt, ["decode", 0])
    assert ours.shape == (10, 48, 64, 3)
    assert cores.shape == (13, 48, 64, 3)
    difference = numpy.abs(ours.astype(int) - cores[:10]).max()
    print(f"\nlargest difference {difference} levels", end="")
    assert difference <= 1


def test_single_files_make_the_same_video_as_the_folder(comfyui, single_files):
    prompt = shared_workflow(comfyui, seed=601)
    generate, loader = (node_id(prompt, f"CosmosPredict25{kind}") for kind in ("Generate", "Loader"))
    prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": [generate, 0]}}
    folder = images_of(comfyui, prompt, ["parts", 0])
    prompt[loader]["inputs"].update({"checkpoint": "single files", **single_files})
    assert (images_of(comfyui, prompt, ["parts", 0]) == folder).all()


def test_single_files_ask_for_the_one_that_is_missing(comfyui, single_files):
    prompt = shared_workflow(comfyui)
    loader = node_id(prompt, "CosmosPredict25Loader")
    prompt[loader]["inputs"].update({"checkpoint": "single files", **single_files, "vae": "none"})
    with pytest.raises(PromptFailedError, match="checkpoint is 'single files', but vae is 'none'"):
        comfyui.run(prompt)


CORE_NODES = json.loads((REPO / "workflows" / "Cosmos Text to Video (core nodes).json").read_text(encoding="utf-8"))


def core_nodes(server: ComfyUI, **values: Any) -> dict[str, Any]:
    """The workflow of ComfyUI's own nodes in API format, with the demo, and `values` in the widgets of those names."""
    prompt = to_api_prompt(CORE_NODES, server.object_info())
    for node in prompt.values():
        widgets = {name for name, value in node["inputs"].items() if not isinstance(value, list)}
        wanted = {"checkpoint": DEMO, "steps": 4, **values}
        node["inputs"].update({name: value for name, value in wanted.items() if name in widgets})
    return prompt


def test_comfyuis_own_nodes_make_the_video_of_generate_locally(any_comfyui):
    prompt = core_nodes(any_comfyui, noise_seed=42)
    messages = list(any_comfyui.follow(prompt))
    entry = any_comfyui.wait(messages[-1].data["prompt_id"])
    (file,) = any_comfyui.saved_files(entry)
    assert probe(file) == (25, 96, 96, 16.0)
    assert sum(message.type == "preview" for message in messages) == 4
    loaded = said(entry, prompt, "CosmosPredict25CheckpointLoader")
    assert loaded == ["Loaded moving-shapes.", "Demo: knows only coloured shapes."]
    cores = images_of(any_comfyui, prompt, [node_id(prompt, "VAEDecode"), 0])

    text = next(node["inputs"]["text"] for node in prompt.values() if node["class_type"] == "CLIPTextEncode")
    values = {"checkpoint": DEMO, "prompt": text, "seed": 42, "num_inference_steps": 4, "guidance_scale": 2}
    prompt = shared_workflow(any_comfyui, **values, num_frames=25, width=96, height=96)
    prompt["parts"] = {
        "class_type": "GetVideoComponents",
        "inputs": {"video": [node_id(prompt, "CosmosPredict25Generate"), 0]},
    }
    difference = numpy.abs(images_of(any_comfyui, prompt, ["parts", 0]).astype(int) - cores).max()
    print(f"\nlargest difference {difference} levels", end="")
    assert difference <= 1


def test_the_checkpoint_loader_takes_single_files_and_refuses_what_the_model_loader_does(comfyui, single_files):
    values = {"num_frames": 9, "noise_seed": 5}
    folder = core_nodes(comfyui, checkpoint="random-weights-demo", **values)
    files = core_nodes(comfyui, checkpoint="single files", **single_files, **values)
    decoded = [node_id(folder, "VAEDecode"), 0]
    assert (images_of(comfyui, folder, decoded) == images_of(comfyui, files, decoded)).all()
    for wrong, says in (
        ({**single_files, "vae": "none"}, "checkpoint is 'single files', but vae is 'none'"),
        ({**single_files, "transformer": "wan.safetensors"}, "is not Cosmos-Predict2.5 but a VAE"),
    ):
        shutil.copy(comfyui.models / "vae" / "wan.safetensors", comfyui.models / "diffusion_models")
        with pytest.raises(PromptFailedError, match=says):
            comfyui.run(core_nodes(comfyui, checkpoint="single files", **wrong, **values))


NAME_NODE = """
class TestName:
    RETURN_TYPES = ("COMBO",)
    FUNCTION = "give"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("STRING", {})}}

    def give(self, value):
        return (value,)


NODE_CLASS_MAPPINGS = {"TestName": TestName}
"""
"""Another pack's node that names a choice; ComfyUI itself has none."""

STAND_IN_GUARDRAIL = """
class CosmosSafetyChecker:
    def to(self, device):
        pass

    def check_text_safety(self, prompt):
        return "forbidden" not in prompt

    def check_video_safety(self, frames):
        return frames * 0
"""


@pytest.fixture(scope="module")
def comfyui_with_guardrail(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[ComfyUI]:
    """A ComfyUI whose `cosmos_guardrail` refuses the word "forbidden" and blackens every frame."""
    yield from comfyui_with_module("cosmos_guardrail", STAND_IN_GUARDRAIL, tmp_path_factory, checkpoint)


def test_the_guardrail_checks_the_prompt_and_changes_the_frames(comfyui_with_guardrail):
    server = comfyui_with_guardrail
    prompt = shared_workflow(server, guardrail=True, prompt="a forbidden cat")
    with pytest.raises(PromptFailedError, match="The guardrail refused the prompt"):
        server.run(prompt)
    prompt = shared_workflow(server, guardrail=True)
    prompt["parts"] = {
        "class_type": "GetVideoComponents",
        "inputs": {"video": [node_id(prompt, "CosmosPredict25Generate"), 0]},
    }
    assert images_of(server, prompt, ["parts", 0]).max() == 0
    prompt[node_id(prompt, "CosmosPredict25Loader")]["inputs"]["guardrail"] = False
    assert images_of(server, prompt, ["parts", 0]).max() > 0


def test_a_checkpoint_named_by_another_node_is_loaded_once(comfyui_with_guardrail):
    server = comfyui_with_guardrail
    prompt = shared_workflow(server, seed=371)
    prompt["name"] = {"class_type": "TestName", "inputs": {"value": "random-weights-demo"}}
    prompt[node_id(prompt, "CosmosPredict25Loader")]["inputs"]["checkpoint"] = ["name", 0]
    server.run(prompt)
    (cached,) = events(server.run(prompt), "execution_cached")
    assert node_id(prompt, "CosmosPredict25Generate") in cached["nodes"]


@pytest.fixture(scope="module")
def comfyui_without_diffusers(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[ComfyUI]:
    """A ComfyUI in which `import diffusers` fails, as in an environment where it is not installed."""
    missing = "raise ModuleNotFoundError(\"No module named 'diffusers'\", name='diffusers')\n"
    yield from comfyui_with_module("diffusers", missing, tmp_path_factory, checkpoint)


def test_without_diffusers_the_nodes_are_there_and_the_loader_says_what_to_install(comfyui_without_diffusers):
    assert set(NODES) <= set(comfyui_without_diffusers.object_info())
    with pytest.raises(
        PromptFailedError, match=r"No module named 'diffusers'\. Install .* -m pip install -r .*requirements"
    ):
        comfyui_without_diffusers.run(shared_workflow(comfyui_without_diffusers))


def test_without_diffusers_the_export_node_works(comfyui_without_diffusers):
    export = {"format": "X264 (.mp4)", "quality": "high", "filename_prefix": "black", "images": ["images", 0]}
    prompt = {
        "images": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 3, "color": 0}},
        "export": {"class_type": "CosmosPredict25ExportVideo", "inputs": export},
    }
    (file,) = comfyui_without_diffusers.saved_files(comfyui_without_diffusers.run(prompt))
    assert probe(file) == (3, 64, 48, 16.0)


def test_without_diffusers_comfyuis_own_nodes_make_a_video(comfyui_without_diffusers):
    prompt = core_nodes(comfyui_without_diffusers)
    own = node_id(prompt, "CosmosPredict25Sampler")
    with pytest.raises(PromptFailedError, match=r"No module named 'diffusers'\. Install"):
        comfyui_without_diffusers.run(prompt)
    prompt[own] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "uni_pc_bh2"}}
    (file,) = comfyui_without_diffusers.saved_files(comfyui_without_diffusers.run(prompt))
    assert probe(file) == (25, 96, 96, 16.0)
