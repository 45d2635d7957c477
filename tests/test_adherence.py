"""Prompt adherence: the demo checkpoint's videos, measured on their frames.

What the other tests cannot see, these do: a text path, a guidance or a schedule that runs and gives the wrong video.
"""

import pytest
import torch

from cosmos_predict25.devtools.toy.adherence import Detection, detect_attributes
from cosmos_predict25.devtools.toy.world import SIDE, SceneObject
from cosmos_predict25.pipeline.local.generate import clamp_request, generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.request import GenerationRequest

PROMPTS = {
    "A large red circle moves left over a blue background.": ("red", "circle", "left", "blue"),
    "a yellow square falls on black": ("yellow", "square", "down", "black"),
    "On a striped white background, a green pyramid rises.": ("green", "triangle", "up", "white"),
    "gray background, big purple block, moving right quickly": ("purple", "square", "right", "gray"),
    "The background is green. A white ball falls and bounces.": ("white", "circle", "bounce", "green"),
}


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return load_pipeline_folder(DEMO_FOLDER, torch.float32)


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


@pytest.mark.slow
def test_a_color_in_the_negative_prompt_is_avoided(model):
    def colors(**fields) -> set[str]:
        return {scene_object.color for scene_object in shown(model, prompt="a circle moving left", **fields).objects}

    for seed in (1, 2):
        drawn = colors(seed=seed)
        assert drawn
        assert not drawn & colors(seed=seed, negative_prompt=" ".join(drawn))
