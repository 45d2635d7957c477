"""Does the demo checkpoint make what the prompt asks for? Held-out prompts, measured on the frames.

    .demo/env/bin/python benchmarks/adherence.py                             # guidance 7, 35 steps
    .demo/env/bin/python benchmarks/adherence.py --guidance 1 7 --steps 10 20 35
    .demo/env/bin/python benchmarks/adherence.py --dtype bfloat16 --exact    # PSNR, SSIM against float32 and 35 steps
    .demo/env/bin/python benchmarks/adherence.py --negative red              # how often red appears with and without it
    .demo/env/bin/python benchmarks/adherence.py --lora --count 50           # the LoRA: black shapes, and the others

A prompt's combination of colour, shape, motion and background, and its sentence form, were not in the training set.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from torch import nn

from cosmos_predict25.benchmarks.metrics import psnr, ssim
from cosmos_predict25.benchmarks.report import publish
from cosmos_predict25.demo.adherence import ATTRIBUTES, compare_with_scene, detect_attributes
from cosmos_predict25.demo.prompts import describe
from cosmos_predict25.demo.training.lora import lora_scene
from cosmos_predict25.demo.world import LORA_COLOR, NUM_FRAMES, SHAPE_COLORS, SIDE, Scene, random_scene
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER, DEMO_LORA_FILE
from cosmos_predict25.pipeline.local.load.lora import DOWN, UP, read_lora
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, GenerationRequest


def held_out_prompts(count: int, two: float = 0.0, *, in_lora_color: bool = False) -> list[tuple[Scene, str]]:
    """Scenes and sentences about them that training has not seen. `two`: the share with two objects.

    `in_lora_color`: instead, one object of the colour that the demo's LoRA adds.
    """
    pairs = []
    for index in range(count):
        rng = random.Random(f"held out {index}")
        scene = lora_scene(rng, held_out=True) if in_lora_color else random_scene(rng, held_out=True, two=two)
        pairs.append((scene, describe(scene, rng, held_out=True).text))
    return pairs


def make(model: LocalModel, prompt: str, seed: int, options: dict) -> torch.Tensor:
    """Frames (NUM_FRAMES, SIDE, SIDE, 3), float32 in 0..1."""
    size = {"width": SIDE, "height": SIDE, "num_frames": NUM_FRAMES}
    return generate(model, GenerationRequest(prompt=prompt, seed=seed, **size, **options)).frames


def adherence(
    model: LocalModel,
    pairs: list[tuple[Scene, str]],
    options: dict,
    exact: LocalModel | None,
    colors: tuple[str, ...] = SHAPE_COLORS,
) -> list[float]:
    """Shares with each attribute right and with all right, seconds a video and, with `exact`, PSNR and SSIM."""
    rows, seconds, similarity = [], 0.0, []
    for seed, (scene, prompt) in enumerate(pairs):
        start = time.perf_counter()
        frames = make(model, prompt, seed, options)
        seconds += time.perf_counter() - start
        right = compare_with_scene(scene, frames, colors)
        rows.append([*(right[name] for name in ATTRIBUTES), all(right.values())])
        if exact:
            wanted = make(exact, prompt, seed, {**options, "num_inference_steps": 35})
            similarity.append([psnr(frames, wanted), ssim(frames, wanted)])
    shares = torch.tensor(rows, dtype=torch.float32).mean(0).tolist()
    return [*shares, seconds / len(pairs), *(torch.tensor(similarity).mean(0).tolist() if exact else [])]


def lora_effect(model: LocalModel, count: int, options: dict) -> None:
    """What the videos show of prompts for the LoRA's colour and for others, without the LoRA and with it."""
    prompts = {f"{LORA_COLOR} shapes": held_out_prompts(count, in_lora_color=True), "others": held_out_prompts(count)}
    rows = []
    for lora in ("without", "with"):
        if lora == "with":
            merge_lora(model.transformer, DEMO_LORA_FILE)
        for asked, pairs in prompts.items():
            figures = adherence(model, pairs, options, None, (*SHAPE_COLORS, LORA_COLOR))
            rows.append([lora, asked, *(f"{figure:.2f}" for figure in figures[:-1])])
    publish(["LoRA", "asked for", *ATTRIBUTES, "all"], rows)


def merge_lora(transformer: nn.Module, file: Path) -> None:
    """Add a LoRA of scale 1 to the weights."""
    weights = dict(transformer.named_parameters())
    shapes = {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in weights.items()}
    tensors = read_lora(file, shapes).tensors
    for name, up in tensors.items():
        if name.endswith(UP):
            layer = name.removesuffix(f".{UP}")
            weight = weights[f"{layer}.weight"]
            weight.data = weight + up.float() @ tensors[f"{layer}.{DOWN}"].float()


def negative_effect(model: LocalModel, word: str, count: int, options: dict) -> None:
    """How often a colour appears when the prompt leaves it open, with the default negative prompt and with the word."""
    rows = []
    for negative in (DEFAULT_NEGATIVE_PROMPT, word):
        shown = 0
        for seed in range(count):
            prompt = random.Random(seed).choice(("a circle moving left", "a square moving right", "a triangle falling"))
            detection = detect_attributes(make(model, prompt, seed, {**options, "negative_prompt": negative}))
            shown += any(scene_object.color == word for scene_object in detection.objects)
        rows.append([word if negative == word else "the default", f"{shown} of {count}"])
    publish(["negative prompt", f"videos with {word}"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEMO_FOLDER)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--two", type=float, default=0.0, help="share of the prompts with two objects")
    parser.add_argument("--guidance", type=float, nargs="+", default=[7.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[35])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--exact", action="store_true", help="compare each video with the float32 one of 35 steps")
    parser.add_argument("--negative", metavar="COLOR", help="measure what this word does in the negative prompt")
    parser.add_argument("--lora", action="store_true", help="measure the demo's LoRA")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_pipeline_folder(options.checkpoint, getattr(torch, options.dtype))
    if options.negative:
        return negative_effect(model, options.negative, options.count, {"guidance_scale": options.guidance[0]})
    if options.lora:
        chosen = {"guidance_scale": options.guidance[0], "num_inference_steps": options.steps[0]}
        return lora_effect(model, options.count, chosen)
    exact = load_pipeline_folder(options.checkpoint, torch.float32) if options.exact else None
    pairs = held_out_prompts(options.count, options.two)
    columns = [*ATTRIBUTES, "all", "s/video", *(["PSNR", "SSIM"] if exact else [])]
    rows = []
    for guidance in options.guidance:
        for steps in options.steps:
            chosen = {"guidance_scale": guidance, "num_inference_steps": steps}
            figures = adherence(model, pairs, chosen, exact)
            rows.append([f"{guidance:g}", str(steps), *(f"{figure:.3f}" for figure in figures)])
    publish(["guidance", "steps", *columns], rows)
    return None


if __name__ == "__main__":
    main()
