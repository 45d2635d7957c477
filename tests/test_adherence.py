"""Prompt adherence: the demo checkpoint's videos, measured on their frames.

What the other tests cannot see, these do: a text path, a guidance or a schedule that runs and gives the wrong video.
"""

import random

import pytest
import torch

from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.toy.adherence import (
    Detection,
    centers,
    color_masks,
    compare_with_scene,
    detect_attributes,
)
from cosmos_predict25.devtools.toy.low_rank import merge_lora
from cosmos_predict25.devtools.toy.world import SIDE, Scene, SceneObject, render
from cosmos_predict25.pipeline.local.generate import clamp_request, generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_DISTILLED_LORA_FILE, DEMO_FOLDER
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.request import DISTILLED, GenerationRequest
from cosmos_predict25.pipeline.start import CLIP_FRAMES, Start

PROMPTS = {
    "A large red circle moves left over a blue background.": ("red", "circle", "left", "blue"),
    "a yellow square falls on black": ("yellow", "square", "down", "black"),
    "On a striped white background, a green pyramid rises.": ("green", "triangle", "up", "white"),
    "gray background, big purple block, moving right quickly": ("purple", "square", "right", "gray"),
    "The background is green. A white ball falls and bounces.": ("white", "circle", "bounce", "green"),
}


TWO_OBJECTS = GenerationRequest(
    prompt="a yellow circle and a white triangle move right over blue",
    seed=1,
    guidance_scale=2.0,
    num_inference_steps=12,
)


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return load_pipeline_folder(DEMO_FOLDER, torch.float32)


@pytest.fixture(scope="module")
def student() -> LocalModel:
    model = load_pipeline_folder(DEMO_FOLDER, torch.float32)
    merge_lora(model.transformer, DEMO_DISTILLED_LORA_FILE)
    return model


def shown(model: LocalModel, **fields) -> Detection:
    """What a video of the largest size that the checkpoint makes shows."""
    request = clamp_request(GenerationRequest(**{"seed": 1, "num_inference_steps": 12, **fields}), model.transformer)
    assert (request.width, request.height, request.num_frames) == (SIDE, SIDE, 25)
    return detect_attributes(generate(model, request).frames)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "prompt", [pytest.param(prompt, marks=pytest.mark.slow if place else ()) for place, prompt in enumerate(PROMPTS)]
)
def test_the_video_shows_what_the_prompt_asks_for(model, prompt):
    color, shape, motion, background = PROMPTS[prompt]
    assert shown(model, prompt=prompt) == Detection((SceneObject(color, shape),), (motion,), background)


FOUR_PASSES = {"schedule": DISTILLED, "num_inference_steps": 4, "guidance_scale": 1.0}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_four_passes_with_the_distilled_lora_show_what_the_prompt_asks_for(student, prompt):
    color, shape, motion, background = PROMPTS[prompt]
    wanted = Detection((SceneObject(color, shape),), (motion,), background)
    assert shown(student, prompt=prompt, **FOUR_PASSES) == wanted


@pytest.mark.parametrize("given", [1, CLIP_FRAMES])
def test_four_passes_go_on_from_a_picture_and_from_a_clip(student, given):
    scene = Scene((SceneObject("yellow", "circle"),), "right", "black")
    clip = render(scene, random.Random(0)).float() / 255
    request = GenerationRequest(prompt="A yellow circle moves right over a black background.", seed=1, **FOUR_PASSES)
    frames = generate(student, clamp_request(request, student.transformer), start=Start(clip[:given])).frames
    assert all(compare_with_scene(scene, frames).values())
    assert psnr(frames, clip) > 20


def test_two_objects_have_their_own_colors_and_the_first_is_left_or_above(model):
    frames = generate(model, clamp_request(TWO_OBJECTS, model.transformer)).frames
    scene = Scene((SceneObject("yellow", "circle"), SceneObject("white", "triangle")), "right", "blue")
    assert all(compare_with_scene(scene, frames).values())
    first, second = (centers(color_masks(frames)[1][thing.color])[2].mean() for thing in scene.objects)
    assert first < second


def test_the_demos_files_are_small():
    weights = [file.stat().st_size for file in DEMO_FOLDER.rglob("*.safetensors")]
    assert len(weights) == 3
    assert sum(weights) < 15e6
    assert DEMO_DISTILLED_LORA_FILE.stat().st_size < 1e6


@pytest.mark.slow
def test_a_color_in_the_negative_prompt_is_avoided(model):
    def colors(**fields) -> set[str]:
        return {scene_object.color for scene_object in shown(model, prompt="a circle moving left", **fields).objects}

    for seed in (1, 2):
        drawn = colors(seed=seed)
        assert drawn
        assert not drawn & colors(seed=seed, negative_prompt=" ".join(drawn))
