"""The pictures of the workflows, and those of the registry."""

import json

import av
from PIL import Image
from playwright.sync_api import Browser

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, to_api_prompt
from cosmos_predict25.pipeline.request import FPS
from cosmos_predict25.scripts.templates import art
from cosmos_predict25.scripts.templates.canvas import WORKFLOWS

DOCS = environment.REPO / "docs"
CARDS = {
    "Cosmos Text to Video (demo)": ["a text", "the demo\non any CPU", "25 frames\nof 96 x 96"],
    "Cosmos Text to Video (LoRA)": ["a text", "the demo\nand a LoRA", "25 frames\nof 96 x 96"],
    "Cosmos Text to Video (core nodes)": ["MODEL, CLIP\nand VAE", "ComfyUI's\nown sampler", "a video"],
    "NVIDIA Cosmos Text to Video (local)": [
        "a text",
        "Cosmos-Predict2.5\non your own card",
        "93 frames\nof 1280 x 704",
    ],
    "NVIDIA Cosmos Text to Video (locally or on fal)": [
        "a text",
        "on your own card\nor on fal.ai",
        "93 frames\nof 1280 x 704",
    ],
    "NVIDIA Cosmos Text to Video (on fal)": ["a text", "fal.ai, for money\nno card needed", "93 frames\nof 1280 x 704"],
    "NVIDIA Cosmos Image to Video (local)": [
        "a picture\nand a text",
        "Cosmos-Predict2.5\non your own card",
        "93 frames that\nbegin with it",
    ],
    "NVIDIA Cosmos Image to Video (locally or on fal)": [
        "a picture\nand a text",
        "on your own card\nor on fal.ai",
        "93 frames that\nbegin with it",
    ],
    "Cosmos Extend Video (local)": [
        "a video\nand a text",
        "Cosmos-Predict2.5\non your own card",
        "the same video,\nand what follows",
    ],
    "NVIDIA Cosmos Write a Prompt": ["five words", "Cosmos-Reason1\non your own card", "one paragraph"],
    "Cosmos Long Video by Windows": ["a text", "windows of a video\nthat overlap", "longer than\nthe model makes"],
    "Cosmos Text to Video (two GPUs)": ["a text", "a pass on each\nof two GPUs", "a video\nin less time"],
    "Cosmos Train a LoRA": ["a clip\nand a text", "ComfyUI's\nown training", "a LoRA"],
    "Cosmos Text to Video (fast)": ["a text", "EasyCache\nskips passes", "25 frames\nof 96 x 96"],
    "Cosmos Many Videos from a List": ["several texts", "one run", "a video\nof each"],
}
"""What a template's card says: what goes in, what works, and what comes out."""
OF_DEMO = (
    "Cosmos Text to Video (demo)",
    "Cosmos Text to Video (LoRA)",
    "Cosmos Text to Video (core nodes)",
    "Cosmos Text to Video (fast)",
)
"""The cards that show a video of the workflow itself. The others need a model that is not at hand where this runs."""


def demo_frames(server: ComfyUI, name: str) -> list[Image.Image]:
    """Return the frames of the video that a workflow makes in this ComfyUI."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    entry = server.run(to_api_prompt(graph, server.object_info()))
    (file,) = [file for file in server.saved_files(entry) if file.suffix == ".mp4"]
    with av.open(str(file)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def save_card(server: ComfyUI, browser: Browser, name: str) -> None:
    """The frontend asks for a .jpg. A browser goes by what is in it, and plays an animated WebP."""
    path = WORKFLOWS / f"{name}.jpg"
    size = (art.CARD_SIDE, art.CARD_SIDE)
    card = art.render(browser, art.card(CARDS[name], with_frame=name in OF_DEMO), size).convert("RGB")
    if name not in OF_DEMO:
        card.save(path, quality=88)
        return
    first, *others = [with_frame(card, frame) for frame in demo_frames(server, name)]
    first.save(path, "WEBP", save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=80, method=6)


def with_frame(card: Image.Image, frame: Image.Image) -> Image.Image:
    card = card.copy()
    card.paste(frame.resize((art.FRAME_SIDE, art.FRAME_SIDE), Image.Resampling.BICUBIC), art.FRAME_CORNER)
    return card


def save_registry_pictures(browser: Browser) -> None:
    art.render(browser, art.banner(), art.BANNER_SIZE, scale=2).convert("RGB").save(DOCS / "banner.png", optimize=True)
    art.render(browser, art.icon(), (art.ICON_SIDE, art.ICON_SIDE)).save(DOCS / "icon.png", optimize=True)
