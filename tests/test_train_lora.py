"""ComfyUI's own Train LoRA on the demo, and its files in the LoRA Loader."""

import json
import shutil
from typing import Any

import pytest

from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.graph import (
    MODEL,
    NEGATIVE,
    POSITIVE,
    VAE,
    Node,
    Output,
    empty,
    first,
    frames_of,
    node,
    pictures,
    sampled,
    text,
    to_prompt,
)
from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.pipeline.local.load.find import DEMO

LAYERS = 87
"""All with weights: 15 of each block, and 12 others."""
STEPS = 30
INVERTED = first("ImageInvert", image=pictures(sampled(steps=8)))
"""A clip in colours that the demo does not give to its words."""
UNIPC = {"add_noise": True, "noise_seed": 7, "cfg": 3.0}


def trained(server: ComfyUI, algorithm: str) -> Node:
    """Train LoRA with the widgets that this ComfyUI has."""
    values: dict[str, Any] = {
        "batch_size": 1, "grad_accumulation_steps": 1, "steps": STEPS, "learning_rate": 0.003, "rank": 8,
        "optimizer": "AdamW", "loss_function": "MSE", "seed": 1, "training_dtype": "fp32", "lora_dtype": "fp32",
        "quantized_backward": False, "algorithm": algorithm, "gradient_checkpointing": True, "checkpoint_depth": 1,
        "offloading": False, "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False,
    }  # fmt: skip
    inputs = server.object_info()["TrainLoraNode"]["input"]
    known = {*inputs["required"], *inputs.get("optional", {})}
    latents = first("VAEEncode", pixels=INVERTED, vae=VAE)
    given = {name: value for name, value in values.items() if name in known}
    return node("TrainLoraNode", model=MODEL, latents=latents, positive=text(), **given)


def in_both_engines(name: str | None) -> tuple[Output, Output]:
    """The frames of Generate Locally and of ComfyUI's sampler, with a LoRA by the LoRA Loader."""
    ours = first("CosmosPredict25Loader", checkpoint=DEMO, guardrail=False, transformer="none", vae="none",
                 text_encoder="none")  # fmt: skip
    models = [ours, MODEL]
    if name:
        models = [first("CosmosPredict25LoraLoader", model=each, lora=name, strength=1.0) for each in models]
    settings = {"num_frames": 9, "num_inference_steps": 8, "guidance_scale": 2.0, "seed": 7, "width": 96, "height": 96}
    video = first(
        "CosmosPredict25Generate", model=models[0],
        prompt=first("CosmosPredict25Prompt", prompt=POSITIVE, negative_prompt=NEGATIVE),
        settings=first("CosmosPredict25SamplerSettings", **settings),
    )  # fmt: skip
    sigmas = first("BasicScheduler", model=models[1], scheduler="karras", steps=8, denoise=1.0)
    latent = first(
        "SamplerCustom", model=models[1], positive=text(), negative=text(NEGATIVE), sigmas=sigmas,
        sampler=first("CosmosPredict25Sampler"), latent_image=empty(), **UNIPC,
    )  # fmt: skip
    return first("GetVideoComponents", video=video), pictures(latent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm", ["LoRA", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("LoKr", "LoHa", "OFT"))]
)
def test_what_comfyui_trains_changes_the_video_in_both_engines(any_comfyui, algorithm):
    made = trained(any_comfyui, algorithm)
    ends = node("SaveLoRA", lora=made[0], prefix=f"loras/{algorithm}"), node("PreviewAny", source=made[1])
    prompt = to_prompt(*ends)
    entry = any_comfyui.run(prompt)
    shown = next(output["text"] for output in entry["outputs"].values() if "text" in output)
    loss = json.loads(shown[0])["loss"]
    third = STEPS // 3
    assert sum(loss[-third:]) < 0.8 * sum(loss[:third])

    folder = any_comfyui.models / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    file = max((any_comfyui.output / "loras").glob(f"{algorithm}_*.safetensors"))
    shutil.copy(file, folder)
    name = file.name
    loader = to_prompt(
        node("PreviewAny", source=first("CosmosPredict25LoraLoader", model=MODEL, lora=name, strength=1.0))
    )
    said = next(output for output in any_comfyui.run(loader)["outputs"].values() if "cosmos_predict25" in output)
    assert " ".join(said["cosmos_predict25"]).endswith(f"changes {LAYERS} layers.")
    by_ours, by_cores = (
        frames_of(any_comfyui, pictures(sampled(first(kind, model=MODEL, **values))))
        for kind, values in (
            ("CosmosPredict25LoraLoader", {"lora": name, "strength": 1.0}),
            ("LoraLoaderModelOnly", {"lora_name": name, "strength_model": 1.0}),
        )
    )
    assert psnr(by_ours, by_cores) > 80
    target = frames_of(any_comfyui, INVERTED)
    assert psnr(by_ours, target) > psnr(frames_of(any_comfyui, pictures()), target) + 4
    locally, natively = (frames_of(any_comfyui, images) for images in in_both_engines(name))
    assert psnr(locally, natively) > 45
    assert psnr(locally, target) > psnr(frames_of(any_comfyui, in_both_engines(None)[0]), target) + 4
