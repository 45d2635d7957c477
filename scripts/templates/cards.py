"""The pictures of the workflows, and those of the registry."""

import json

import av
from PIL import Image, ImageDraw, ImageFont

from cosmos_predict25.pipeline.request import FPS
from cosmos_predict25.scripts import environment
from cosmos_predict25.scripts.comfyui import ComfyUI, to_api_prompt
from cosmos_predict25.scripts.templates.canvas import WORKFLOWS
from cosmos_predict25.scripts.templates.prose import DEMO_PROMPT, LORA_PROMPT

DOCS = environment.REPO / "docs"
CARD_SIDE = 256
FONT = ImageFont.load_default(44)
CARDS = {
    "Text to Video (LoRA)": LORA_PROMPT,
    "Text to Video (core nodes)": "A small white circle moves down over a purple background.",
    "Text to Video (demo)": DEMO_PROMPT,
    "Image to Video (local)": [
        "a picture\nand a text",
        "Cosmos-Predict2.5\non your own card",
        "93 frames that\nbegin with it",
    ],
    "Image to Video (locally or on fal)": [
        "a picture\nand a text",
        "on your own card\nor on fal.ai",
        "93 frames that\nbegin with it",
    ],
    "Extend Video (local)": [
        "a video\nand a text",
        "Cosmos-Predict2.5\non your own card",
        "the same video,\nand what follows",
    ],
    "Write a Prompt": ["five words", "Cosmos-Reason1\non your own card", "one paragraph"],
    "Text to Video (local)": ["a text", "Cosmos-Predict2.5\non your own card", "93 frames\nof 1280 x 704"],
    "Text to Video (locally or on fal)": ["a text", "on your own card\nor on fal.ai", "93 frames\nof 1280 x 704"],
    "Text to Video (on fal)": ["a text", "fal.ai, for money\nno card needed", "93 frames\nof 1280 x 704"],
}
"""What a template's card shows: what the demo makes of a prompt, or, for a model that is not at hand where this runs,
what goes in and what comes out."""
BANNER = [
    DEMO_PROMPT,
    "A small yellow triangle rises over a black background.",
    "A green square bounces over a gray background.",
    "A large purple circle and a small white square move right over green.",
]


def demo_frames(server: ComfyUI, text: str, workflow: str = "Text to Video (demo)") -> list[Image.Image]:
    """The frames of a video that the demo makes of `text` in this ComfyUI, CARD_SIDE large."""
    graph = json.loads((WORKFLOWS / f"{workflow}.json").read_text(encoding="utf-8"))
    prompt = to_api_prompt(graph, server.object_info())
    for node in prompt.values():
        if node["class_type"] == "CosmosPredict25Prompt":
            node["inputs"]["prompt"] = text
    (file,) = [file for file in server.saved_files(server.run(prompt)) if file.suffix == ".mp4"]
    with av.open(str(file)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return [frame.resize((CARD_SIDE, CARD_SIDE), Image.Resampling.BICUBIC) for frame in frames]


def save_card(server: ComfyUI, name: str) -> None:
    """The frontend asks for a .jpg. A browser goes by what is in it, and plays an animated WebP."""
    path = WORKFLOWS / f"{name}.jpg"
    if isinstance(CARDS[name], list):
        drawn_card(CARDS[name]).save(path, quality=88)
        return
    of_demo = name if "LoRA" in name else "Text to Video (demo)"
    first, *others = demo_frames(server, CARDS[name], of_demo)
    first.save(path, "WEBP", save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=60, method=6)


def drawn_card(lines: list[str]) -> Image.Image:
    """What goes in above, what comes out below."""
    side, margin, box, gap = 512, 16, 124, 54
    card = Image.new("RGB", (side, side), "#1d1f21")
    draw = ImageDraw.Draw(card)
    for place, line in enumerate(lines):
        top = margin + place * (box + gap)
        colour = "#2f5d1e" if place == 1 else "#3a3d40"
        draw.rounded_rectangle((margin, top, side - margin, top + box), 18, fill=colour)
        draw.multiline_text((side / 2, top + box / 2), line, "white", FONT, anchor="mm", align="center", spacing=10)
        if place:
            draw.polygon([(side / 2 - 18, top - 40), (side / 2 + 18, top - 40), (side / 2, top - 14)], fill="#8a8d90")
    return card


def save_registry_pictures(server: ComfyUI) -> None:
    """The icon and the banner of the registry, from what the demo makes."""
    side = 540
    banner = Image.new("RGB", (side * 21 // 9, side))
    for place, text in enumerate(BANNER):
        frames = demo_frames(server, text)
        card = Image.new("RGB", (2 * CARD_SIDE, 2 * CARD_SIDE))
        for corner, index in enumerate(range(0, len(frames), len(frames) // 4 + 1)):
            card.paste(frames[index], (corner % 2 * CARD_SIDE, corner // 2 * CARD_SIDE))
        banner.paste(card.resize((side, side), Image.Resampling.BICUBIC), (place * side - side // 4, 0))
        if place == 0:
            frames[0].resize((400, 400), Image.Resampling.BICUBIC).save(DOCS / "icon.png")
    banner.save(DOCS / "banner.png")
