"""The pack between ComfyUI's own nodes: graphs, and what must be true of the frames that each one makes."""

from dataclasses import dataclass
from typing import Any

import pytest

from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.graph import (
    CLIP,
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
    to_prompt,
)
from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.toy.adherence import detect_attributes
from cosmos_predict25.pipeline.local.load.find import DEMO_LORA
from cosmos_predict25.tests.test_comfyui import node_id


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
    frames: int = 9


@dataclass(frozen=True)
class Refused:
    """Before the first step, in words with `says` among them."""

    says: str


Truth = Same | Shows | Refused
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


def windows(length: int, **values: Any) -> Output:
    """The MODEL that makes each step in windows of `length` frames."""
    options = {"context_overlap": 8, "context_schedule": "standard_static", "context_stride": 1, "closed_loop": False}
    more = {"fuse_method": "pyramid", "freenoise": False, "retain_first_frame": False, "split_conds_to_windows": False}
    return first("WanContextWindowsManual", model=MODEL, context_length=length, **{**options, **more, **values})


def custom(guider: Output, steps: int = 8) -> Output:
    """The frames of Sampler Custom Advanced with the UniPC Sampler."""
    return pictures(
        first(
            "SamplerCustomAdvanced", noise=first("RandomNoise", noise_seed=7), guider=guider, latent_image=empty(),
            sampler=first("CosmosPredict25Sampler"),
            sigmas=first("BasicScheduler", model=MODEL, scheduler="karras", steps=steps, denoise=1.0),
        )
    )  # fmt: skip


def prompted(positive: Output) -> Output:
    return pictures(sampled(positive=positive))


def with_lora(strength: float) -> Output:
    return first("CosmosPredict25LoraLoader", model=MODEL, lora=DEMO_LORA, strength=strength)


def merged(ratio: float) -> Output:
    """Of the model with the LoRA, and without."""
    return pictures(sampled(first("ModelMergeSimple", model1=with_lora(1.0), model2=MODEL, ratio=ratio)))


def mended_by_hand(latent: Output) -> Output:
    """Two stages with the known frame put back in between, as one had to before."""
    noisy = stage(latent, 0, 4, return_with_leftover_noise="enable")
    known = first("LatentCut", samples=latent, dim="t", index=0, amount=1)
    kept = first("ReplaceVideoLatentFrames", destination=noisy, source=known, index=0)
    return pictures(stage(kept, 4, 10000, add_noise="disable"))


SAME = Same(pictures(), 80)
NO_SCHEDULE = "Remove the node: the Checkpoint Loader (Cosmos Predict2.5)"
NO_PICTURE = "To start from a picture or a clip, use Start Latent (Cosmos Predict2.5)"
TOO_LONG = "at most 96x96 and 25 frames at once, got 96x96 and {} frames. For a longer one, put Wan Context Windows"

SHORT: dict[str, tuple[Output, Truth]] = {
    "KSampler": (pictures(), Shows("red", "blue")),
    "two stages with leftover noise, from a Start Latent": (
        two_stages(start()), Same(pictures(stage(start(), 0, 10000)), 80),
    ),
    "WanImageToVideo": (with_picture_of_wan(), Refused(NO_PICTURE)),
    "ModelSamplingSD3": (
        patched("ModelSamplingSD3", **SHIFTED),
        Refused("gives timesteps up to 1000, but this model takes 0 to 1"),
    ),
    "49 frames": (pictures(sampled(latent=empty(49))), Refused(TOO_LONG.format(49))),
    "49 frames in windows of 21": (pictures(sampled(windows(21), latent=empty(49))), Shows("red", "blue", 49)),
    "PerpNeg": (
        patched("PerpNeg", empty_conditioning=text(""), neg_scale=1.0), Shows("red", "blue"),
    ),
    "CLIPTextEncodeFlux": (
        prompted(first("CLIPTextEncodeFlux", clip=CLIP, clip_l="a", t5xxl="b", guidance=3.5)),
        Refused("wants tokens for the text encoder 't5xxl', of another model"),
    ),
}  # fmt: skip
"""In the short run too: one row for each thing that once went wrong."""

REST: dict[str, tuple[Output, Truth]] = {
    "two stages with leftover noise": (two_stages(empty()), Same(pictures(stage(empty(), 0, 10000)), 80)),
    "two stages, mended by hand": (mended_by_hand(start()), Same(pictures(stage(start(), 0, 10000)), 80)),
    "InpaintModelConditioning": (with_inpaint_conditioning(), Refused(NO_PICTURE)),
    "49 frames in windows of 25": (pictures(sampled(windows(25), latent=empty(49))), Refused(TOO_LONG.format(29))),
    "CLIPTextEncodeSD3": (
        prompted(first("CLIPTextEncodeSD3", clip=CLIP, clip_l="a", clip_g="a", t5xxl="b", empty_padding="none")),
        Refused("of another model: this CLIP has one encoder. Use CLIP Text Encode (Prompt)."),
    ),
    **{
        f"ModelSamplingContinuousEDM, {kind}": (
            patched("ModelSamplingContinuousEDM", sampling=kind, sigma_max=120.0, sigma_min=0.002),
            Refused(NO_SCHEDULE),
        )
        for kind in ("v_prediction", "edm", "eps")
    },
    "ModelSamplingDiscrete": (patched("ModelSamplingDiscrete", sampling="eps", zsnr=False), Refused(NO_SCHEDULE)),
    "ModelSamplingStableCascade": (patched("ModelSamplingStableCascade", shift=2.0), Refused(NO_SCHEDULE)),
    "ModelSamplingAuraFlow": (patched("ModelSamplingAuraFlow", shift=1.73), Shows("red", "blue")),
    "ModelSamplingContinuousV": (
        patched("ModelSamplingContinuousV", sampling="v_prediction", sigma_max=500.0, sigma_min=0.03),
        Shows("red", "blue"),
    ),
    "ModelSamplingContinuousEDM, cosmos_rflow": (
        patched("ModelSamplingContinuousEDM", sampling="cosmos_rflow", sigma_max=200.0, sigma_min=0.01),
        Same(pictures(), 40),
    ),
    **{
        f"sampler {name}": (pictures(sampled(sampler_name=name)), Shows("red", "blue"))
        for name in ("dpmpp_2m", "uni_pc", "deis", "heun", "res_multistep", "gradient_estimation")
    },
    **{
        f"scheduler {name}": (pictures(sampled(scheduler=name)), Shows("red", "blue"))
        for name in ("simple", "sgm_uniform", "beta", "normal", "exponential")
    },
    "RescaleCFG": (patched("RescaleCFG", multiplier=0.7), Shows("red", "blue")),
    "CFGZeroStar": (patched("CFGZeroStar"), Shows("red", "blue")),
    "TCFG": (patched("TCFG"), Shows("red", "blue")),
    "CFGNorm": (patched("CFGNorm", strength=1.0), Shows("red", "blue")),
    "Mahiro": (patched("Mahiro"), Shows("red", "blue")),
    "EasyCache": (
        patched("EasyCache", reuse_threshold=0.1, start_percent=0.15, end_percent=0.95, verbose=False),
        Shows("red", "blue"),
    ),
    "ModelComputeDtype bf16": (patched("ModelComputeDtype", dtype="bf16"), Same(pictures(), 25)),
    "DifferentialDiffusion": (patched("DifferentialDiffusion"), SAME),
    "PerturbedAttentionGuidance": (patched("PerturbedAttentionGuidance", scale=3.0), SAME),
    "SelfAttentionGuidance": (patched("SelfAttentionGuidance", scale=0.5, blur_sigma=2.0), SAME),
    "FreeU_V2": (patched("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2), SAME),
    "NAGuidance": (patched("NAGuidance", nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5), SAME),
    "ScaleROPE": (
        patched("ScaleROPE", scale_x=1.5, shift_x=0.0, scale_y=1.5, shift_y=0.0, scale_t=1.0, shift_t=0.0), SAME,
    ),
    "ModelMergeSimple": (merged(0.5), Same(pictures(sampled(with_lora(0.5))), 60)),
    "windows that hold all": (pictures(sampled(windows(21))), SAME),
    "CFGGuider and UniPC Sampler": (
        custom(first("CFGGuider", model=MODEL, positive=text(), negative=text(NEGATIVE), cfg=3.0)),
        Shows("red", "blue"),
    ),
    "BasicGuider": (custom(first("BasicGuider", model=MODEL, conditioning=text()), 20), Shows("red", "blue")),
    "DualCFGGuider": (
        custom(first("DualCFGGuider", model=MODEL, cond1=text(), cond2=text(), negative=text(NEGATIVE),
                     cfg_conds=3.0, cfg_cond2_negative=3.0, style="regular")),
        Shows("red", "blue"),
    ),
    "PerpNegGuider": (
        custom(first("PerpNegGuider", model=MODEL, positive=text(), negative=text(NEGATIVE),
                     empty_conditioning=text(""), cfg=3.0, neg_scale=1.0)),
        Shows("red", "blue"),
    ),
    "ConditioningCombine": (
        prompted(first("ConditioningCombine", conditioning_1=text(), conditioning_2=text())), Same(pictures(), 60),
    ),
    "ConditioningConcat": (
        prompted(first("ConditioningConcat", conditioning_to=text(), conditioning_from=text())), Shows("red", "blue"),
    ),
    "ConditioningAverage": (
        prompted(first("ConditioningAverage", conditioning_to=text(), conditioning_from=text("a"),
                       conditioning_to_strength=1.0)),
        SAME,
    ),
    "ConditioningZeroOut": (
        pictures(sampled(negative=first("ConditioningZeroOut", conditioning=text(NEGATIVE)))), Shows("red", "blue"),
    ),
    "ConditioningSetTimestepRange": (
        prompted(first("ConditioningSetTimestepRange", conditioning=text(), start=0.0, end=1.0)), SAME,
    ),
    "FluxGuidance": (prompted(first("FluxGuidance", conditioning=text(), guidance=3.5)), SAME),
    "CLIPSetLastLayer": (
        prompted(text(clip=first("CLIPSetLastLayer", clip=CLIP, stop_at_clip_layer=-2))), SAME,
    ),
    "CLIPMergeSimple": (
        prompted(text(clip=first("CLIPMergeSimple", clip1=CLIP, clip2=CLIP, ratio=0.5))), Same(pictures(), 60),
    ),
    "EmptyHunyuanLatentVideo": (
        pictures(sampled(latent=first("EmptyHunyuanLatentVideo", width=96, height=96, length=9, batch_size=1))), SAME,
    ),
    "CosmosPredict2ImageToVideoLatent": (
        pictures(sampled(latent=first("CosmosPredict2ImageToVideoLatent", vae=VAE, width=96, height=96, length=9,
                                      batch_size=1))),
        SAME,
    ),
    "VAEDecodeTiled": (
        first("VAEDecodeTiled", samples=sampled(), vae=VAE, tile_size=64, overlap=32, temporal_size=64,
              temporal_overlap=8),
        Same(pictures(), 35),
    ),
    "VAEEncode and VAEDecode": (pictures(first("VAEEncode", pixels=pictures(), vae=VAE)), Same(pictures(), 30)),
    "RepeatLatentBatch": (
        first("ImageFromBatch", batch_index=0, length=9,
              image=pictures(sampled(latent=first("RepeatLatentBatch", samples=empty(), amount=2)))),
        Same(pictures(), 60),
    ),
    "LatentCut and LatentConcat": (
        pictures(first(
            "LatentConcat", dim="t",
            samples1=first("LatentCut", samples=sampled(), dim="t", index=0, amount=1),
            samples2=first("LatentCut", samples=sampled(), dim="t", index=1, amount=2),
        )),
        SAME,
    ),
    "SetLatentNoiseMask": (
        pictures(sampled(latent=first("SetLatentNoiseMask", samples=first("VAEEncode", pixels=pictures(), vae=VAE),
                                      mask=first("SolidMask", value=0.0, width=96, height=96)))),
        Same(pictures(), 30),
    ),
    "video to video": (
        pictures(sampled(positive=YELLOW, latent=first("VAEEncode", pixels=pictures(), vae=VAE), denoise=0.9,
                         steps=20)),
        Shows("yellow", "black"),
    ),
}  # fmt: skip
OLDEST = (*(name for name in SHORT if name != "49 frames in windows of 21"), "ModelSamplingDiscrete", "RescaleCFG")
"""Rows that the oldest ComfyUI runs as well."""


def check(server: ComfyUI, images: Output, truth: Truth) -> None:
    if isinstance(truth, Refused):
        _, says = refusal(server, images)
        assert truth.says in says
        return
    frames = frames_of(server, images)
    if isinstance(truth, Same):
        assert truth.least <= psnr(frames, frames_of(server, truth.other)) <= truth.most
        return
    seen = detect_attributes(frames)
    assert len(frames) == truth.frames
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


SEEDS = {123456789012345: "The seed 123456789012345 is 101572473 here: modulo 2147483648.", 2**31 - 1: ""}


@pytest.mark.parametrize("seed", SEEDS)
def test_any_seed_of_another_node_is_taken_and_told(comfyui, seed):
    """PrimitiveInt has no limit of its own; KSampler's seeds go up to 2^64."""
    values = {"num_frames": 9, "num_inference_steps": 20, "guidance_scale": 2.0, "width": 96, "height": 96}
    settings = node("CosmosPredict25SamplerSettings", seed=first("PrimitiveInt", value=seed), **values)
    prompt = to_prompt(node("PreviewAny", source=settings[0]))
    entry = comfyui.run(prompt)
    assert " ".join(entry["outputs"][node_id(prompt, settings.kind)]["cosmos_predict25"]) == SEEDS[seed]


LONG = " ".join(f"word{number}" for number in range(600))


def test_a_cut_prompt_is_told_on_the_node_that_encodes(comfyui):
    """On ComfyUI's own CLIP Text Encode, with an event for web/js; a short prompt takes the words away again."""
    for words, lines in ((LONG, ["The prompt was truncated to 512 tokens, at the word 'word99'."]), ("a circle", [])):
        prompt = to_prompt(node("PreviewAny", source=text(words)))
        messages = list(comfyui.follow(prompt))
        (event,) = [message.data for message in messages if message.type == "cosmos_predict25"]
        assert event["node"] == node_id(prompt, "CLIPTextEncode")
        assert event["prompt_id"] == messages[-1].data["prompt_id"]
        assert event["output"]["cosmos_predict25"] == lines
