"""Run by tests/test_native.py in a process of its own, which imports the ComfyUI that TESTED_COMFYUI names.

    python native_worker.py [NAME ...]

Prints as JSON how far ComfyUI's own MODEL, CLIP, VAE and samplers are from Generate Locally, with the demo. Of the
samplers and nodes that take 35 steps, only those with these names are measured, or all.
"""

import json
import math
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from cosmos_predict25.devtools import comfy_on_cpu  # noqa: F401

# isort: split
import comfy.sample
import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_cfg import CFGZeroStar
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, RescaleCFG
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

from cosmos_predict25.devtools.toy.world import SIDE, random_scene, render
from cosmos_predict25.nodes.native.clip import load_clip
from cosmos_predict25.nodes.native.model import load_transformer
from cosmos_predict25.nodes.native.sampler import sampler
from cosmos_predict25.nodes.native.vae import load_vae
from cosmos_predict25.nodes.start_latent import CosmosPredict25StartLatent
from cosmos_predict25.pipeline.errors import CosmosError
from cosmos_predict25.pipeline.local.condition import encode_frames
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.load.parts import folder_parts
from cosmos_predict25.pipeline.local.schedule import standard_sigmas
from cosmos_predict25.pipeline.local.variant import DFD, KARRAS_CONFIG, OTHERS
from cosmos_predict25.pipeline.request import SCHEDULES, GenerationRequest
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.tests.native_files import files_report
from cosmos_predict25.tests.native_writer import writer_report

PARTS = folder_parts(DEMO_FOLDER)
MODEL, PROJECTION = load_transformer(PARTS)
CLIP, VAE = load_clip(PARTS, PROJECTION), load_vae(PARTS)
OURS = load_pipeline_folder(DEMO_FOLDER)
REQUEST = {"prompt": "A small green square moves up over a gray background.", "seed": 1, "num_frames": 9}
REQUEST |= {"width": SIDE, "height": SIDE}
EMPTY = torch.zeros(1, 16, 3, SIDE // 8, SIDE // 8)
LONG = " ".join(f"word{number}" for number in range(600))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(max((a - b).square().mean().item(), 1e-20))


def chosen(*names: str) -> list[str]:
    return [name for name in names if name in sys.argv[1:] or not sys.argv[1:]]


def condition(text: str) -> list:
    return CLIP.encode_from_tokens_scheduled(CLIP.tokenize(text))


def expected(steps: int, guidance: float, schedule: str = "standard") -> torch.Tensor:
    options = {"num_inference_steps": steps, "guidance_scale": guidance, "schedule": schedule}
    return generate(OURS, GenerationRequest(**REQUEST, **options)).frames


def karras(steps: int) -> torch.Tensor:
    return comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "karras", steps)


def noise() -> torch.Tensor:
    return comfy.sample.prepare_noise(EMPTY, REQUEST["seed"])


def frames(name: str, steps: int, guidance: float, model: ModelPatcher = MODEL) -> torch.Tensor:
    """What Sampler Custom with our SAMPLER, or KSampler with one of its own, and VAE Decode make of REQUEST.

    `name`: a schedule of our SAMPLER's, or KSampler's name of a sampler.
    """
    request = GenerationRequest(**REQUEST)
    inputs = (condition(request.prompt), condition(request.negative_prompt), EMPTY)
    cfg = guidance + 1 if guidance > 1 else 1
    if name in SCHEDULES:
        own = sampler(name)
        samples = comfy.sample.sample_custom(model, noise(), cfg, own, karras(steps), *inputs, disable_pbar=True)
    else:
        samples = comfy.sample.sample(model, noise(), steps, cfg, name, "karras", *inputs, disable_pbar=True)
    return VAE.decode(samples)[0]


def start_of_video(given: int) -> dict[str, float]:
    """From the first frames of the demo's world with Sampler Custom, against Generate Locally.

    `known`: the largest difference of the latents of the first frames from the VAE's own. `rest`: PSNR of all others.
    """
    clip = render(random_scene(random.Random(1), held_out=True), random.Random(1))[:given]
    start, request = Start(clip), GenerationRequest(**REQUEST, num_inference_steps=10)
    output: Any = CosmosPredict25StartLatent.execute(MODEL, VAE, {"samples": EMPTY}, image=clip.float() / 255)
    latent = output.args[0]
    samples = comfy.sample.sample_custom(
        MODEL, noise(), 8, sampler("standard"), karras(10), condition(request.prompt),
        condition(request.negative_prompt), latent["samples"], noise_mask=latent["noise_mask"], disable_pbar=True,
    )  # fmt: skip
    known = encode_frames(OURS.vae, start.conditioning_frames(SIDE, SIDE))
    made = normalize(OURS.vae, samples)
    wanted = generate(OURS, request, start=start).frames
    return {
        "known": (made[:, :, : known.shape[2]] - known).abs().max().item(),
        "rest": psnr(VAE.decode(samples)[0][given:], wanted[given:]),
    }


def other_variant() -> dict[str, float]:
    """As a 14B or a pre-trained 2B model: sigmas, and the PSNR of the videos to Generate Locally's."""
    model, _ = load_transformer(replace(PARTS, variant=OTHERS))
    ours = replace(OURS, variant=OTHERS, scheduler_config=OTHERS.scheduler_config)
    clip = render(random_scene(random.Random(1), held_out=True), random.Random(1))[:5]
    start: Any = CosmosPredict25StartLatent.execute(model, VAE, {"samples": EMPTY}, image=clip.float() / 255)
    latents = {"text": ({"samples": EMPTY}, None), "clip": (start.args[0], Start(clip))}
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 10)
    request = GenerationRequest(**REQUEST, num_inference_steps=10)
    conditions = condition(request.prompt), condition(request.negative_prompt)
    flow = standard_sigmas(OTHERS.scheduler_config, 10)
    found = {"sigmas": (sigmas / (1 + sigmas) - flow).abs().max().item()}
    for name, (latent, begin) in latents.items():
        samples = comfy.sample.sample_custom(
            model, noise(), 8, sampler("standard"), sigmas, *conditions, latent["samples"],
            noise_mask=latent.get("noise_mask"), disable_pbar=True,
        )  # fmt: skip
        given = 5 if begin else 0
        wanted = generate(ours, request, start=begin).frames[given:]
        found[name] = psnr(VAE.decode(samples)[0][given:], wanted)
        found[f"{name}, post-trained"] = psnr(generate(OURS, request, start=begin).frames[given:], wanted)
    return found


def dfd() -> dict[str, float]:
    """As DFD's four-step image-to-video model, of half its frame rate: the PSNR of the video to Generate Locally's."""
    variants = {fps: replace(DFD, rope_fps=fps) for fps in (24, 12)}
    model, _ = load_transformer(replace(PARTS, variant=variants[12]))
    clip = render(random_scene(random.Random(1), held_out=True), random.Random(1))[:5]
    latent: Any = CosmosPredict25StartLatent.execute(model, VAE, {"samples": EMPTY}, image=clip.float() / 255).args[0]
    request = GenerationRequest(**REQUEST, schedule="distilled (ODE)")
    samples = comfy.sample.sample_custom(
        model, noise(), 1, sampler(request.schedule), karras(4), condition(request.prompt), condition(""),
        latent["samples"], noise_mask=latent["noise_mask"], disable_pbar=True,
    )  # fmt: skip
    wanted = {fps: generate(replace(OURS, variant=variants[fps]), request, start=Start(clip)) for fps in variants}
    frames = VAE.decode(samples)[0]
    return {str(fps): psnr(frames[1:], video.frames[1:]) for fps, video in wanted.items()}


def embeddings() -> dict[str, float]:
    texts = {"short": REQUEST["prompt"], "empty": "", "long": LONG}
    return {
        name: (condition(text)[0][0] - encode_prompt(OURS.text_encoder, OURS.tokenizer, text)).abs().max().item()
        for name, text in texts.items()
    }


def vae_levels() -> float:
    """Of 255, at most."""
    latents = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return 255 * (VAE.decode(latents)[0] - torch.cat(list(decode_chunks(OURS.vae, latents)))).abs().max().item()


def samplers(plain: torch.Tensor) -> dict[str, float]:
    """`plain`: the video of our own SAMPLER in 35 steps with guidance 7."""
    found = {
        f"own, 10 steps, guidance {guidance}": psnr(frames("standard", 10, guidance), expected(10, guidance))
        for guidance in (1, 7)
    }
    for name, steps, guidance in (("few steps", 12, 7), ("distilled", 4, 1), ("distilled", 2, 1)):
        wanted_here = expected(steps, guidance, name)
        found[f"{name}, {steps} steps"] = psnr(frames(name, steps, guidance), wanted_here)
    for name in chosen("uni_pc_bh2", "deis", "dpmpp_2m", "euler"):
        found[name] = psnr(frames(name, 35, 7), plain)
    return found


def patched() -> dict[str, ModelPatcher]:
    """The model behind other nodes of ComfyUI's."""
    compiled = MODEL.clone()
    # The node's own backends take a minute or need a GPU; this one traces the network just the same.
    set_torch_compile_wrapper(model=compiled, backend="eager")
    return {
        "LazyCache": LazyCacheNode.execute(MODEL, 0.2, 0.15, 0.95, False)[0],
        "TorchCompileModel": compiled,
        "ModelSamplingContinuousEDM": ModelSamplingContinuousEDM().patch(MODEL, "cosmos_rflow", 200.0, 0.01)[0],
        "CFGZeroStar": CFGZeroStar.execute(MODEL)[0],
        "RescaleCFG": RescaleCFG().patch(MODEL, 0.7)[0],
        "SkipLayerGuidanceDiT": SkipLayerGuidanceDiT.execute(MODEL, 3.0, 0.01, 0.15, "1", "1")[0],
    }


def other_nodes(plain: torch.Tensor) -> dict[str, float]:
    """Node -> decibels between the videos with it and without it."""
    models = patched()
    return {name: psnr(frames("standard", 35, 7, models[name]), plain) for name in chosen(*models)}


def cached() -> dict[str, dict[str, float]]:
    """With EasyCache as in the template, 35 steps: passes of 35, and decibels to the video with all of them."""
    found, passes = {}, []
    model = EasyCacheNode.execute(MODEL, 0.05, 0.15, 0.95, False)[0]
    counter = MODEL.model.diffusion_model.blocks[0].register_forward_pre_hook(lambda *_: passes.append(1))
    for name in chosen("standard", "dpmpp_2m"):
        whole = frames(name, 35, 2)
        passes.clear()
        found[name] = {"decibels": psnr(frames(name, 35, 2, model), whole), "passes": len(passes)}
        passes.clear()
        found[name]["decibels once more"] = psnr(frames(name, 35, 2, model), whole)
    counter.remove()
    return found


def sigma_difference() -> float:
    sigmas = karras(35)
    return (sigmas / (1 + sigmas) - standard_sigmas(KARRAS_CONFIG, 35)).abs().max().item()


def refusal(
    latent: torch.Tensor, cfg: float, schedule: str, sigmas: torch.Tensor, prompt: list[Any] | None = None
) -> str:
    own = sampler(schedule)
    inputs = (own, sigmas, prompt or condition("a"), condition("b"), latent)
    return said(lambda: comfy.sample.sample_custom(MODEL, latent, cfg, *inputs))


def start_refusal(*shape: int, vae: Any = None) -> str:
    latent = {"samples": torch.zeros(shape)}
    return said(lambda: CosmosPredict25StartLatent.execute(MODEL, vae or VAE, latent, image=torch.zeros(5, 64, 64, 3)))


def nan_refusal() -> str:
    """With one value of a weight that is none, and a sampler of ComfyUI's own."""
    weight = MODEL.model.diffusion_model.blocks[1].mlp.layer2.weight
    value = weight[0, 0].item()
    weight[0, 0] = math.nan
    refused = said(lambda: frames("euler", 4, 1))
    weight[0, 0] = value
    return refused


def said(refused: Callable[[], Any]) -> str:
    try:
        refused()
    except CosmosError as error:
        return str(error)
    return ""


def refusals() -> dict[str, str]:
    return {
        "NaN": nan_refusal(),
        "too large": refusal(torch.zeros(1, 16, 8, 12, 14), 1, "standard", karras(1)),
        "distilled, 5 steps": refusal(EMPTY, 1, "distilled", karras(5)),
        "distilled, cfg 2": refusal(EMPTY, 2, "distilled", karras(4)),
        "distilled, half of the noise": refusal(EMPTY, 1, "distilled", karras(8)[-5:]),
        "another model's prompt": refusal(EMPTY, 1, "standard", karras(1), [[torch.zeros(1, 77, 768), {}]]),
        "an image's latent": start_refusal(1, 4, 8, 8),
        "another VAE's latent": start_refusal(1, 48, 3, 8, 8),
        "nothing to make": start_refusal(1, 16, 2, 8, 8),
        "another VAE": start_refusal(1, 16, 3, 8, 8, vae=SimpleNamespace(encode=lambda _: torch.zeros(5, 4, 8, 8))),
    }


def loaded_once_more() -> dict[str, bool]:
    """Whether what a node gets that cannot do with dynamic loading has the same weights, in a network of its own."""
    found = {}
    with mock.patch.object(ModelPatcher, "is_dynamic", return_value=True):  # as on a GPU
        for name, patcher in (("MODEL", MODEL), ("CLIP", CLIP.patcher)):
            copy = patcher.clone(disable_dynamic=True)
            weights, copied = patcher.model.state_dict(), copy.model.state_dict()
            same = weights.keys() == copied.keys() and all(weights[key].equal(copied[key]) for key in weights)
            found[name] = same and copy.model is not patcher.model
    return found


def main() -> None:
    with torch.inference_mode():
        plain = frames("standard", 35, 7)
        report = {
            "embeddings": embeddings(),
            "vae levels": vae_levels(),
            "sigmas": sigma_difference(),
            "samplers": samplers(plain),
            "other nodes": other_nodes(plain),
            "cached": cached(),
            "refusals": refusals(),
            "loaded once more": loaded_once_more(),
            "writer": writer_report(PROJECTION),
            "files": files_report(),
            "other variant": other_variant(),
            "dfd": dfd(),
            "starts": {str(given): start_of_video(given) for given in (1, 5)},
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
