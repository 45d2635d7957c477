"""Draw the picture of the demo's card: frames of videos that the demo checkpoint makes, each row under its prompt.

python demo/picture.py FILE.png
"""

import sys

import torch
from PIL import Image, ImageDraw, ImageFont

from cosmos_predict25.devtools.toy.world import NUM_FRAMES, SIDE
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.request import GenerationRequest

PROMPTS = (
    "A large red circle moves left over a blue background.",
    "a green square falls and bounces on gray",
    "Over a striped black background, a yellow triangle rises.",
    "white background, purple ball, moving right quickly",
    "a tiny white box drops to the bottom over emerald",
    "A red square and a yellow ball move up over a checkered blue background.",
)
COLUMNS = 2
SHOWN = (0, 6, 12, 18, 24)
MARGIN, TEXT_HEIGHT = 6, 18


def row(prompt: str, frames: torch.Tensor) -> Image.Image:
    """One strip of frames, (T, SIDE, SIDE, 3) in 0..1, with the prompt above it."""
    strip = Image.new("RGB", (len(SHOWN) * (SIDE + MARGIN) - MARGIN, TEXT_HEIGHT + SIDE + MARGIN), "white")
    ImageDraw.Draw(strip).text((0, 2), prompt, "black", ImageFont.load_default(13))
    for place, number in enumerate(SHOWN):
        frame = Image.fromarray((frames[number] * 255).round().byte().numpy())
        strip.paste(frame, (place * (SIDE + MARGIN), TEXT_HEIGHT))
    return strip


def main() -> None:
    model = load_pipeline_folder(DEMO_FOLDER, torch.float32)
    strips = []
    for prompt in PROMPTS:
        request = GenerationRequest(
            prompt=prompt, guidance_scale=2, seed=4, width=SIDE, height=SIDE, num_frames=NUM_FRAMES
        )
        strips.append(row(prompt, generate(model, request).frames))
    width, height = strips[0].size
    picture = Image.new(
        "RGB", (COLUMNS * (width + 4 * MARGIN) - 4 * MARGIN, -(-len(strips) // COLUMNS) * height), "white"
    )
    for number, strip in enumerate(strips):
        picture.paste(strip, (number % COLUMNS * (width + 4 * MARGIN), number // COLUMNS * height))
    picture.save(sys.argv[1])


if __name__ == "__main__":
    main()
