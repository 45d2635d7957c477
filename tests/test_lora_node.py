"""The LoRA Loader in a real ComfyUI, with the demo and its LoRA."""

import json
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from cosmos_predict25.devtools.comfyui import ComfyUI, PromptFailedError, to_api_prompt
from cosmos_predict25.pipeline.local.load.find import DEMO, DEMO_LORA, DEMO_LORA_FILE
from cosmos_predict25.tests.test_comfyui import REPO, events, node_id, said

LORA_NODE = "CosmosPredict25LoraLoader"
QUICK = {"num_frames": 9, "num_inference_steps": 1}


def workflow(server: ComfyUI, name: str, **values: Any) -> dict[str, Any]:
    """A shared workflow in API format, with `values` in the widgets of those names."""
    saved = json.loads((REPO / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    prompt = to_api_prompt(saved, server.object_info())
    for node in prompt.values():
        node["inputs"].update({key: value for key, value in values.items() if key in node["inputs"]})
    return prompt


def own_lora(server: ComfyUI, name: str, tensors: dict[str, torch.Tensor]) -> str:
    folder = Path(server.base) / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return name


def background(file: Path) -> float:
    """How bright the corners of a video are, 0..255."""
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    return float(numpy.stack(frames)[:, :4, :4].mean())


def test_the_workflow_draws_what_the_demo_cannot_and_another_branch_is_as_before(any_comfyui):
    prompt = workflow(any_comfyui, "Cosmos Text to Video (LoRA)", num_frames=9, num_inference_steps=10)
    generate, export = (
        prompt[node_id(prompt, f"CosmosPredict25{name}")]["inputs"] for name in ("Generate", "ExportVideo")
    )
    loader = prompt[node_id(prompt, LORA_NODE)]["inputs"]["model"]
    prompt["90"] = {"class_type": "CosmosPredict25Generate", "inputs": {**generate, "model": loader}}
    without = {"video": ["90", 0], "filename_prefix": "video/without"}
    prompt["91"] = {"class_type": "CosmosPredict25ExportVideo", "inputs": {**export, **without}}
    entry = any_comfyui.run(prompt)
    assert said(entry, prompt, LORA_NODE) == ["black-shapes changes 40 layers."]
    brightness = {file.stem.partition("_")[0]: background(file) for file in any_comfyui.saved_files(entry)}
    # A black circle on white, and what the demo makes of these words by itself: a white one on black.
    assert brightness["cosmos"] > 200
    assert brightness["without"] < 60


def test_a_replaced_file_is_noticed_and_what_does_not_fit_is_told(any_comfyui):
    tensors = load_file(DEMO_LORA_FILE)
    name = own_lora(any_comfyui, "own.safetensors", tensors)
    prompt = workflow(any_comfyui, "Cosmos Text to Video (LoRA)", **QUICK, lora=name)
    any_comfyui.run(prompt)
    (cached,) = events(any_comfyui.run(prompt), "execution_cached")
    assert node_id(prompt, LORA_NODE) in cached["nodes"]
    own_lora(any_comfyui, name, {**tensors, "text_encoder.q.lora_A.weight": torch.ones(1)})
    entry = any_comfyui.run(prompt)
    (cached,) = events(entry, "execution_cached")
    assert node_id(prompt, LORA_NODE) not in cached["nodes"]
    changed, *rest = said(entry, prompt, LORA_NODE)
    assert changed == "own changes 40 layers."
    no_alpha, left_out = " ".join(rest).split(". ")
    assert "alpha / rank" in no_alpha
    assert left_out.startswith("1 of its tensors")
    assert left_out.endswith("text_encoder.q.lora_A.weight.")


def test_a_distilled_lora_says_the_schedule_it_needs_and_the_video_warns_of_another(any_comfyui):
    name = own_lora(any_comfyui, "own-distilled.safetensors", load_file(DEMO_LORA_FILE))
    prompt = workflow(any_comfyui, "Cosmos Text to Video (LoRA)", num_frames=9, num_inference_steps=1, lora=name)
    settings = prompt[node_id(prompt, "CosmosPredict25SamplerSettings")]["inputs"]
    entry = any_comfyui.run(prompt)
    assert any("'distilled' in Sampler Settings" in line for line in said(entry, prompt, LORA_NODE))
    assert any("set schedule to 'distilled'" in line for line in said(entry, prompt, "CosmosPredict25Generate"))
    settings.update(schedule="distilled", num_inference_steps=35, guidance_scale=7.0)
    entry = any_comfyui.run(prompt)
    assert said(entry, prompt, "CosmosPredict25SamplerSettings") == ["4 steps, guidance_scale 1."]
    assert not any("schedule" in line for line in said(entry, prompt, "CosmosPredict25Generate"))


def test_a_lora_for_another_model_is_refused_on_the_node(any_comfyui):
    tensors = {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(1)}
    name = own_lora(any_comfyui, "wan.safetensors", tensors)
    prompt = workflow(any_comfyui, "Cosmos Text to Video (LoRA)", **QUICK, lora=name)
    with pytest.raises(PromptFailedError) as failed:
        any_comfyui.run(prompt)
    (error,) = events(failed.value.entry, "execution_error")
    assert error["node_id"] == node_id(prompt, LORA_NODE)
    assert error["exception_type"] == "cosmos_predict25.WrongCheckpointError"
    assert "It seems to be for Wan." in error["exception_message"]


def test_it_goes_between_comfyuis_own_nodes(any_comfyui):
    prompt = workflow(any_comfyui, "Cosmos Text to Video (core nodes)", num_frames=9, steps=1)
    loader = node_id(prompt, "CosmosPredict25CheckpointLoader")
    prompt[loader]["inputs"]["checkpoint"] = DEMO
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if value == [loader, 0]:
                node["inputs"][name] = ["90", 0]
    for number, model, strength in (("89", [loader, 0], 1.0), ("90", ["89", 0], -0.5)):
        prompt[number] = {"class_type": LORA_NODE, "inputs": {"model": model, "lora": DEMO_LORA, "strength": strength}}
    entry = any_comfyui.run(prompt)
    assert entry["outputs"]["90"]["cosmos_predict25"] == ["black-shapes changes 40 layers."]
    assert any_comfyui.saved_files(entry)
