"""Does the demo checkpoint make what the prompt asks for? Held-out prompts, measured on the frames.

    .demo/env/bin/python benchmarks/adherence.py                             # guidance 7, 35 steps
    .demo/env/bin/python benchmarks/adherence.py --guidance 1 7 --steps 10 20 35
    .demo/env/bin/python benchmarks/adherence.py --dtype bfloat16 --exact    # PSNR, SSIM against float32 and 35 steps
    .demo/env/bin/python benchmarks/adherence.py --schedule standard "few steps" --steps 12 15 20 --exact
    .demo/env/bin/python benchmarks/adherence.py --negative red              # how often red appears with and without it
    .demo/env/bin/python benchmarks/adherence.py --start 1 5                 # from a picture, from a clip of 5 frames
    .demo/env/bin/python benchmarks/adherence.py --parts 3                   # three parts more, there and back
    .demo/env/bin/python benchmarks/adherence.py --lora --count 50           # the LoRA: black shapes, and the others
    .demo/env/bin/python benchmarks/adherence.py --distilled --guidance 2    # the distilled LoRA beside 35 steps

A prompt's combination of colour, shape, motion and background, and its sentence form, were not in the training set.
"""

import argparse
import itertools
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from cosmos_predict25.devtools.metrics import psnr, ssim
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.devtools.toy.adherence import ATTRIBUTES, compare_with_scene, detect_attributes, outline, steps_of
from cosmos_predict25.devtools.toy.low_rank import merge_lora
from cosmos_predict25.devtools.toy.prompts import describe
from cosmos_predict25.devtools.toy.world import (
    LORA_COLOR,
    NUM_FRAMES,
    SHAPE_COLORS,
    SIDE,
    Scene,
    lora_scene,
    random_scene,
    render,
)
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_DISTILLED_LORA_FILE, DEMO_FOLDER, DEMO_LORA_FILE
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, DISTILLED, FEW_STEPS, STANDARD, GenerationRequest
from cosmos_predict25.pipeline.start import CLIP_FRAMES, Start

Exact = Callable[[str, int], torch.Tensor]
"""The frames to compare with, of a prompt and a seed."""


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


def make(model: LocalModel, prompt: str, seed: int, options: dict, start: torch.Tensor | None = None) -> torch.Tensor:
    """Frames (NUM_FRAMES, SIDE, SIDE, 3), float32 in 0..1. `start`: the frames to begin with."""
    size = {"width": SIDE, "height": SIDE, "num_frames": NUM_FRAMES}
    request = GenerationRequest(prompt=prompt, seed=seed, **size, **options)
    return generate(model, request, start=None if start is None else Start(start)).frames


def adherence(
    model: LocalModel,
    pairs: list[tuple[Scene, str]],
    options: dict,
    exact: Exact | None,
    colors: tuple[str, ...] = SHAPE_COLORS,
) -> list[str]:
    """Shares with each attribute right and with all right, how exact the outlines are, CPU seconds a video and, with
    `exact`, PSNR and SSIM."""
    rows, seconds, similarity = [], 0.0, []
    for seed, (scene, prompt) in enumerate(pairs):
        begin = time.process_time()
        frames = make(model, prompt, seed, options)
        seconds += time.process_time() - begin
        rows.append([*shares(scene, frames, colors), outline(scene, frames, colors)])
        if exact:
            wanted = exact(prompt, seed)
            similarity.append([psnr(frames, wanted), ssim(frames, wanted)])
    found = [*means(rows), seconds / len(pairs), *means(similarity)]
    return [f"{figure:.3f}" for figure in found]


def shares(scene: Scene, frames: torch.Tensor, colors: tuple[str, ...] = SHAPE_COLORS) -> list[float]:
    """1 or 0 for each of `ATTRIBUTES`, and for all of them together."""
    right = compare_with_scene(scene, frames, colors)
    return [*(right[name] for name in ATTRIBUTES), all(right.values())]


def means(rows: list[list[float]]) -> list[float]:
    return torch.tensor(rows, dtype=torch.float32).nanmean(0).tolist() if rows else []


DISTILLED_OPTIONS = {"guidance_scale": 1.0, "schedule": DISTILLED, "num_inference_steps": 4}
PROMPTS = {
    "all": lambda scene, prompt: prompt,
    "the colour": lambda scene, prompt: scene.objects[0].color,
    "no motion": lambda scene, prompt: "a {0.color} {0.shape} on a {1} background".format(
        scene.objects[0], scene.background
    ),
}
"""What the prompts say of a scene, made from it and from the sentence that says all."""


def continued(model: LocalModel, pairs: list[tuple[Scene, str]], given: int, say: str, options: dict) -> list[str]:
    """Videos that go on from the fifth frame of a clip as drawn, of which they are given the last `given` frames.

    The shares of `shares`; PSNR against the clip's own continuation, of the given frames, of the next four and of the
    rest; and the step of the object's centre out of the last given frame over its mean step.
    """
    rows, seams = [], []
    for seed, (scene, prompt) in enumerate(pairs):
        clip = drawn(scene, seed, torch.arange(NUM_FRAMES + CLIP_FRAMES))[CLIP_FRAMES - given :][:NUM_FRAMES]
        frames = make(model, PROMPTS[say](scene, prompt), seed, options, clip[:given])
        parts = slice(0, given), slice(given, given + 4), slice(given + 4, None)
        rows.append([*shares(scene, frames), *(psnr(frames[part], clip[part]) for part in parts)])
        moved = steps_of(scene, frames)
        if moved is not None:
            seams.append([moved[given - 1].item(), moved.mean().item()])
    *right, known, following, rest = means(rows)
    seam, step = means(seams)
    return [*(f"{share:.3f}" for share in right), *(f"{x:.1f}" for x in (known, following, rest)), f"{seam / step:.2f}"]


def drawn(scene: Scene, seed: int, moments: torch.Tensor) -> torch.Tensor:
    """The scene as it is drawn at `moments`, counted in frames: (moments, SIDE, SIDE, 3) in 0..1."""
    return render(scene, random.Random(f"start {seed}"), moments / (NUM_FRAMES - 1)).float() / 255


BACK = {"left": "right", "right": "left", "up": "down", "down": "up"}


def there_and_back(
    model: LocalModel, pairs: list[tuple[Scene, str]], parts: int, overlap: int, options: dict
) -> list[list[str]]:
    """A clip as drawn and `parts` parts more, each with a prompt that asks for the way back: a row for each part.

    The shares of `shares` in the part, PSNR against the clip that is drawn there and back, and the step at the seam
    over the mean step. Scenes that bounce have no way back.
    """
    rows, seams = [[] for _ in range(parts)], [[] for _ in range(parts)]
    new = NUM_FRAMES - overlap
    for seed, (scene, _) in enumerate(pairs):
        if scene.motion not in BACK:
            continue
        frames = drawn(scene, seed, torch.arange(NUM_FRAMES))
        for part in range(parts):
            motion = scene.motion if part % 2 else BACK[scene.motion]
            asked = replace(scene, motion=motion)
            prompt = describe(asked, random.Random(f"part {part} {seed}"), held_out=True).text
            made = make(model, prompt, seed + part, options, frames[-overlap:])[overlap:]
            way = torch.arange(1, new + 1)
            wanted = drawn(scene, seed, NUM_FRAMES - 1 + (way - new if part % 2 else -way))
            seen = torch.cat([frames[-1:], made])
            rows[part].append([*shares(asked, seen), psnr(made, wanted)])
            moved = steps_of(asked, seen)
            if moved is not None:
                seams[part].append([moved[0].item(), moved.mean().item()])
            frames = torch.cat([frames, made])
    table = []
    for part in range(parts):
        *right, similarity = means(rows[part])
        seam, step = means(seams[part])
        table.append([*(f"{share:.3f}" for share in right), f"{similarity:.1f}", f"{seam / step:.2f}"])
    return table


def lora_effect(model: LocalModel, count: int, options: dict) -> None:
    """What the videos show of prompts for the LoRA's colour and for others, without the LoRA and with it."""
    prompts = {f"{LORA_COLOR} shapes": held_out_prompts(count, in_lora_color=True), "others": held_out_prompts(count)}
    rows = []
    for lora in ("without", "with"):
        if lora == "with":
            merge_lora(model.transformer, DEMO_LORA_FILE)
        for asked, pairs in prompts.items():
            figures = adherence(model, pairs, options, None, (*SHAPE_COLORS, LORA_COLOR))
            rows.append([lora, asked, *figures[:-1]])
    publish(["LoRA", "asked for", *ATTRIBUTES, "all", "outline"], rows)


FROM = {"text": 0, "a picture": 1, "a clip": CLIP_FRAMES}
"""Beginnings of a video, and their frames."""


def distilled_effect(model: LocalModel, student: LocalModel, pairs: list[tuple[Scene, str]], options: dict) -> None:
    """The distilled LoRA's videos of 4 passes beside those of 35 steps, from the same noise and the same beginning.

    PSNR compares the two, and with a given beginning also each with the clip's own continuation.
    """
    ways = {"35 steps": (model, options), "4 passes": (student, DISTILLED_OPTIONS)}
    rows = []
    for beginning, given in FROM.items():
        measured = {way: [] for way in ways}
        for seed, (scene, prompt) in enumerate(pairs):
            clip = drawn(scene, seed, torch.arange(NUM_FRAMES + CLIP_FRAMES))[CLIP_FRAMES - given :][:NUM_FRAMES]
            wanted = None
            for way, (of, chosen) in ways.items():
                begin = time.process_time()
                frames = make(of, prompt, seed, chosen, clip[:given] if given else None)
                seconds, wanted = time.process_time() - begin, frames if wanted is None else wanted
                own = psnr(frames[given:], clip[given:]) if given else math.nan
                figures = [outline(scene, frames), seconds, own, psnr(frames, wanted)]
                measured[way].append([*shares(scene, frames), *figures])
        rows += [
            [beginning, way, *(f"{x:.3f}".replace("nan", "") for x in means(found))] for way, found in measured.items()
        ]
    columns = [*ATTRIBUTES, "all", "outline", "CPU s/video", "PSNR to the clip", "to 35 steps"]
    publish(["from", "way", *columns], rows)


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
    parser.add_argument("--schedule", nargs="+", choices=(STANDARD, FEW_STEPS), default=[STANDARD])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--exact", action="store_true", help="compare each video with the float32 one of 35 steps")
    parser.add_argument("--negative", metavar="COLOR", help="measure what this word does in the negative prompt")
    parser.add_argument("--start", type=int, nargs="+", choices=(1, 5), help="frames of a clip to go on from")
    parser.add_argument(
        "--say", nargs="+", choices=PROMPTS, default=list(PROMPTS), help="what the prompt says, with --start"
    )
    parser.add_argument(
        "--parts", type=int, help="parts to make after a clip, there and back, with overlaps of --start"
    )
    parser.add_argument("--lora", action="store_true", help="measure the demo's LoRA")
    parser.add_argument("--distilled", action="store_true", help="measure the demo's distilled LoRA")
    parser.add_argument("--threads", type=int, help="of torch, which has as many as a user's if this is not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_pipeline_folder(options.checkpoint, getattr(torch, options.dtype))
    if options.negative:
        return negative_effect(model, options.negative, options.count, {"guidance_scale": options.guidance[0]})
    if options.lora:
        chosen = {"guidance_scale": options.guidance[0], "num_inference_steps": options.steps[0]}
        return lora_effect(model, options.count, chosen)
    if options.distilled:
        student = load_pipeline_folder(options.checkpoint, torch.float32)
        merge_lora(student.transformer, DEMO_DISTILLED_LORA_FILE)
        pairs = held_out_prompts(options.count, options.two)
        return distilled_effect(model, student, pairs, {"guidance_scale": options.guidance[0]})
    in_float32 = load_pipeline_folder(options.checkpoint, torch.float32) if options.exact else None
    pairs = held_out_prompts(options.count, options.two)
    columns, rows = [], []
    for guidance in options.guidance:
        exact = in_float32 and cache(partial(make, in_float32, options={"guidance_scale": guidance}))
        for schedule, steps in itertools.product(options.schedule, options.steps):
            chosen = {"guidance_scale": guidance, "schedule": schedule, "num_inference_steps": steps}
            columns, found = measure(model, pairs, options, chosen, exact)
            rows += [[f"{guidance:g}", schedule, str(steps), *row] for row in found]
    publish(["guidance", "schedule", "steps", *columns], rows)
    return None


def measure(
    model: LocalModel,
    pairs: list[tuple[Scene, str]],
    options: argparse.Namespace,
    chosen: dict,
    exact: Exact | None,
) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of the table that `options` ask for."""
    if options.parts:
        rows = [
            [str(overlap), str(part), *row]
            for overlap in options.start or (CLIP_FRAMES, 1)
            for part, row in enumerate(there_and_back(model, pairs, options.parts, overlap, chosen), 1)
        ]
        return ["overlap", "part", *ATTRIBUTES, "all", "PSNR", "seam"], rows
    if options.start:
        rows = [
            [str(given), say, *continued(model, pairs, given, say, chosen)]
            for given in options.start
            for say in options.say
        ]
        return ["given", "prompt", *ATTRIBUTES, "all", "PSNR given", "next 4", "rest", "seam"], rows
    columns = [*ATTRIBUTES, "all", "outline", "CPU s/video", *(["PSNR", "SSIM"] if exact else [])]
    return columns, [adherence(model, pairs, chosen, exact)]


if __name__ == "__main__":
    main()
