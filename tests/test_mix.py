"""The pack between ComfyUI's own nodes: graphs, and what must be true of the frames that each one makes."""

from dataclasses import dataclass
from typing import Any

import pytest

from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.graph import (
    MODEL,
    NEGATIVE,
    VAE,
    Output,
    empty,
    first,
    frames_of,
    node,
    pictures,
    refusal,
    sampled,
    text,
)
from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.toy.adherence import detect_attributes


@dataclass(frozen=True)
class Same:
    """Like the frames of another graph, by `least` to `most` decibels. 100: no value differs."""

    other: Output
    least: float
    most: float = 100


@dataclass(frozen=True)
class Shows:
    color: str
    background: str


@dataclass(frozen=True)
class Refused:
    """Before the first step, in words with `says` among them."""

    says: str


YELLOW = text("A large yellow square moves right over a black background.")
PICTURE = first("ImageFromBatch", image=pictures(), batch_index=0, length=1)
SHIFTED = {"shift": 3.0}


def patched(kind: str, **inputs: Any) -> Output:
    """The frames of a KSampler whose MODEL went through a node."""
    return pictures(sampled(model=first(kind, model=MODEL, **inputs)))


def start(latent: Output | None = None) -> Output:
    return first("CosmosPredict25StartLatent", model=MODEL, vae=VAE, latent=latent or empty(), image=PICTURE)


def stage(latent: Output, begin: int, end: int, **values: Any) -> Output:
    """Some of 8 steps by KSampler (Advanced)."""
    rest = {"add_noise": "enable", "return_with_leftover_noise": "disable", **values}
    return first(
        "KSamplerAdvanced", model=MODEL, noise_seed=7, steps=8, cfg=3.0, sampler_name="euler", scheduler="karras",
        positive=text(), negative=text(NEGATIVE), latent_image=latent, start_at_step=begin, end_at_step=end, **rest,
    )  # fmt: skip


def two_stages(latent: Output) -> Output:
    noisy = stage(latent, 0, 4, return_with_leftover_noise="enable")
    return pictures(stage(noisy, 4, 10000, add_noise="disable"))


def with_picture_of_wan() -> Output:
    made = node(
        "WanImageToVideo", positive=text(), negative=text(NEGATIVE), vae=VAE, width=96, height=96, length=9,
        batch_size=1, start_image=PICTURE,
    )  # fmt: skip
    return pictures(sampled(positive=made[0], negative=made[1], latent=made[2]))


def with_inpaint_conditioning() -> Output:
    mask = first("SolidMask", value=1.0, width=96, height=96)
    made = node(
        "InpaintModelConditioning", positive=text(), negative=text(NEGATIVE), vae=VAE, pixels=pictures(), mask=mask,
        noise_mask=True,
    )  # fmt: skip
    return pictures(sampled(positive=made[0], negative=made[1], latent=made[2]))


NO_SCHEDULE = "Remove it: the Checkpoint Loader (Cosmos Predict2.5) gives the model its own schedule."
NO_PICTURE = "To start from a picture or a clip, use Start Latent (Cosmos Predict2.5)"

SHORT: dict[str, tuple[Output, Same | Shows | Refused]] = {
    "KSampler": (pictures(), Shows("red", "blue")),
    "two stages with leftover noise, from a Start Latent": (
        two_stages(start()), Same(pictures(stage(start(), 0, 10000)), 80),
    ),
    "WanImageToVideo": (with_picture_of_wan(), Refused(NO_PICTURE)),
    "ModelSamplingSD3": (
        patched("ModelSamplingSD3", **SHIFTED),
        Refused("gives timesteps up to 1000, but this model takes 0 to 1: the video would be spoilt."),
    ),
}  # fmt: skip
"""In the short run too: one row for each thing that once went wrong, and for the nodes that most graphs have."""

REST: dict[str, tuple[Output, Same | Shows | Refused]] = {
    "two stages with leftover noise": (two_stages(empty()), Same(pictures(stage(empty(), 0, 10000)), 80)),
    "InpaintModelConditioning": (with_inpaint_conditioning(), Refused(NO_PICTURE)),
    "ModelSamplingDiscrete": (patched("ModelSamplingDiscrete", sampling="eps", zsnr=False), Refused(NO_SCHEDULE)),
    "ModelSamplingStableCascade": (patched("ModelSamplingStableCascade", shift=2.0), Refused(NO_SCHEDULE)),
    "ModelSamplingAuraFlow": (patched("ModelSamplingAuraFlow", shift=1.73), Shows("red", "blue")),
}
OLDEST = ("KSampler", "two stages with leftover noise, from a Start Latent", "WanImageToVideo", "ModelSamplingSD3")
"""Rows that the oldest ComfyUI runs as well."""


def check(server: ComfyUI, images: Output, truth: Same | Shows | Refused) -> None:
    if isinstance(truth, Refused):
        _, says = refusal(server, images)
        assert truth.says in says
        return
    frames = frames_of(server, images)
    if isinstance(truth, Same):
        assert truth.least <= psnr(frames, frames_of(server, truth.other)) <= truth.most
        return
    seen = detect_attributes(frames)
    assert ([thing.color for thing in seen.objects], seen.background) == ([truth.color], truth.background)


@pytest.mark.parametrize("row", SHORT)
def test_a_graph_of_core_nodes_makes_what_it_should(comfyui, row):
    check(comfyui, *SHORT[row])


@pytest.mark.exhaustive
@pytest.mark.parametrize("row", REST)
def test_many_more_graphs_do_too(comfyui, row):
    check(comfyui, *REST[row])


@pytest.mark.exhaustive
@pytest.mark.parametrize("row", OLDEST)
def test_so_do_some_in_the_oldest_comfyui(comfyui_oldest, row):
    check(comfyui_oldest, *{**SHORT, **REST}[row])
