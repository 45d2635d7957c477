"""Makes the workflows and their thumbnails anew, with ComfyUI's own frontend in a headless browser.

    .demo/env/bin/python scripts/save_workflows.py

Run it before a release, after scripts/test, which installs all that it needs. It builds each graph on the canvas of a
running ComfyUI and saves what the frontend exports.
"""

import sys
import tempfile
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from cosmos_predict25.scripts import environment
from cosmos_predict25.scripts.comfyui import ComfyUI

WORKFLOWS = environment.REPO / "workflows"
THUMBNAIL_WIDTH = 800
MARGIN = 40
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.PromptFilename": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}

EXAMPLE_PROMPT = (
    "A static, locked-off camera frames an industrial conveyor belt steadily transporting rough rocks through a "
    "dimly lit quarry processing facility. The belt runs horizontally across the center of the frame, its thick "
    "black rubber surface textured with dust and fine gravel. Jagged gray and brown stones of varying sizes tumble "
    "forward in a slow, continuous motion, their sharp edges catching the light. Subtle vibrations ripple through "
    "the belt's surface as small pebbles bounce and shift. In the background, blurred steel beams, pipes, and muted "
    "industrial machinery create depth without distraction. Cool, diffused overhead lighting casts soft shadows and "
    "highlights the gritty textures, emphasizing dust particles in the air and the raw, rugged surfaces of the "
    "rocks."
)

LOCAL_NOTE = """\
The loader's checkpoint **auto** takes the largest checkpoint in **models/diffusers**. To get the real one, accept its \
licence on [Hugging Face](https://huggingface.co/nvidia/Cosmos-Predict2.5-2B), then run this in the ComfyUI folder:

```
hf download nvidia/Cosmos-Predict2.5-2B --revision diffusers/base/post-trained \
--local-dir models/diffusers/Cosmos-Predict2.5-2B
```

Until then **auto** takes the demo that comes with this pack: a tiny model, not NVIDIA's. It makes clips of 64x64 \
pixels on a CPU and knows nothing but coloured shapes. Ask for *a large red circle moves left over a blue background*.
"""

FAL_NOTE = """\
**This costs money:** about $0.20 a video, or $0.08 with the endpoint *distilled*. The node shows today's price.

1. Make a key at [fal.ai/dashboard/keys](https://fal.ai/dashboard/keys); the account needs a balance.
2. Set the environment variable **FAL_KEY** to it and start ComfyUI. A workflow never holds the key.

**Stop** cancels the job at fal. Running the **same values again** goes on with an unfinished job, or takes the \
finished video, which is kept in **output/cosmos_fal**: neither is paid for again. For another video, change the seed.
"""

BOTH_NOTE = f"""\
{FAL_NOTE}
**Run** makes both videos. To leave one out, select its *Generate* and *Export* nodes and press Ctrl+M.
"""

LOADER = {
    "type": "CosmosPredict25Loader",
    "pos": [0, 0],
    "size": [440, 154],
    "values": {"checkpoint": "auto"},
}
PROMPT = {"type": "CosmosPredict25Prompt", "size": [440, 450], "values": {"prompt": EXAMPLE_PROMPT}}
SETTINGS_NODE = {
    "type": "CosmosPredict25SamplerSettings",
    "size": [440, 202],
    "values": {"seed": 42, "control_after_generate": "fixed"},
}

TEXT_TO_VIDEO_LOCAL: dict[str, Any] = {
    "nodes": {
        "loader": LOADER,
        "prompt": {**PROMPT, "pos": [0, 280]},
        "settings": {**SETTINGS_NODE, "pos": [0, 800]},
        "note": {
            "type": "MarkdownNote",
            "title": "How to get the model",
            "pos": [540, 0],
            "size": [820, 130],
            "values": {"text": LOCAL_NOTE},
        },
        "generate": {"type": "CosmosPredict25Generate", "pos": [540, 240], "size": [380, 66]},
        "export": {
            "type": "CosmosPredict25ExportVideo",
            "pos": [960, 240],
            "size": [400, 200],
            "values": {"format": "X264 (.mp4)", "quality": "high", "filename_prefix": "video/cosmos"},
        },
    },
    "links": [
        ["loader", "model", "generate", "model"],
        ["prompt", "prompt", "generate", "prompt"],
        ["settings", "settings", "generate", "settings"],
        ["generate", "video", "export", "video"],
    ],
}

TEXT_TO_VIDEO_FAL: dict[str, Any] = {
    "nodes": {
        "prompt": {**PROMPT, "pos": [0, 0]},
        "settings": {**SETTINGS_NODE, "pos": [0, 520]},
        "note": {
            "type": "MarkdownNote",
            "title": "How to use fal",
            "pos": [540, 0],
            "size": [820, 150],
            "values": {"text": FAL_NOTE},
        },
        "generate": {"type": "CosmosPredict25GenerateFal", "pos": [540, 250], "size": [380, 198]},
        "export": {
            "type": "CosmosPredict25ExportVideo",
            "pos": [960, 250],
            "size": [400, 200],
            "values": {"format": "X264 (.mp4)", "quality": "as is", "filename_prefix": "video/cosmos_fal"},
        },
    },
    "links": [
        ["prompt", "prompt", "generate", "prompt"],
        ["settings", "settings", "generate", "settings"],
        ["generate", "video", "export", "video"],
    ],
}

TEXT_TO_VIDEO_LOCAL_OR_FAL: dict[str, Any] = {
    "nodes": {
        "loader": LOADER,
        "prompt": {**PROMPT, "pos": [0, 280]},
        "settings": {**SETTINGS_NODE, "pos": [0, 800]},
        "local_note": {
            "type": "MarkdownNote",
            "title": "Local: how to get the model",
            "pos": [540, 0],
            "size": [820, 130],
            "values": {"text": LOCAL_NOTE},
        },
        "local": {"type": "CosmosPredict25Generate", "pos": [540, 210], "size": [380, 66]},
        "local_export": {
            "type": "CosmosPredict25ExportVideo",
            "pos": [960, 210],
            "size": [400, 200],
            "values": {"format": "X264 (.mp4)", "quality": "high", "filename_prefix": "video/cosmos_local"},
        },
        "fal_note": {
            "type": "MarkdownNote",
            "title": "fal: how to use it, and what it costs",
            "pos": [540, 750],
            "size": [820, 170],
            "values": {"text": BOTH_NOTE},
        },
        "fal": {"type": "CosmosPredict25GenerateFal", "pos": [540, 1020], "size": [380, 198]},
        "fal_export": {
            "type": "CosmosPredict25ExportVideo",
            "pos": [960, 1020],
            "size": [400, 200],
            "values": {"format": "X264 (.mp4)", "quality": "as is", "filename_prefix": "video/cosmos_fal"},
        },
    },
    "links": [
        ["loader", "model", "local", "model"],
        ["prompt", "prompt", "local", "prompt"],
        ["settings", "settings", "local", "settings"],
        ["local", "video", "local_export", "video"],
        ["prompt", "prompt", "fal", "prompt"],
        ["settings", "settings", "fal", "settings"],
        ["fal", "video", "fal_export", "video"],
    ],
}

GRAPHS = {
    "text_to_video_local": TEXT_TO_VIDEO_LOCAL,
    "text_to_video_fal": TEXT_TO_VIDEO_FAL,
    "text_to_video_local_or_fal": TEXT_TO_VIDEO_LOCAL_OR_FAL,
}

BUILD = """({ id, nodes, links }) => {
    app.graph.clear()
    app.graph.id = id
    const made = {}
    for (const [name, { type, title, pos, size, values }] of Object.entries(nodes)) {
        const node = LiteGraph.createNode(type, title)
        app.graph.add(node)
        node.pos = pos
        for (const [widget, value] of Object.entries(values ?? {}))
            node.widgets.find((each) => each.name === widget).value = value
        node.setSize(size)
        made[name] = node
    }
    for (const [from, output, to, input] of links)
        made[from].connect(made[from].findOutputSlot(output), made[to], made[to].findInputSlot(input))
}"""

# Puts the nodes' upper left corner at the canvas's, at full size, and returns the nodes' rectangle on the page.
FRAME = """(margin) => {
    const boxes = app.graph.nodes.map((node) => node.getBounding())
    const left = Math.min(...boxes.map((box) => box[0])) - margin
    const top = Math.min(...boxes.map((box) => box[1])) - margin
    const right = Math.max(...boxes.map((box) => box[0] + box[2])) + margin
    const bottom = Math.max(...boxes.map((box) => box[1] + box[3])) + margin
    const { x, y } = app.canvas.canvas.getBoundingClientRect()
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [-left, -top]
    app.canvas.deselectAll()
    app.canvas.draw(true, true)
    return { x, y, width: right - left, height: bottom - top }
}"""


def save(page: Page, name: str) -> None:
    # The same name gives the same id, so that a workflow that did not change is saved without a difference.
    page.evaluate(BUILD, {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), **GRAPHS[name]})
    page.evaluate(FRAME, MARGIN)
    with page.expect_download() as download:
        page.evaluate("app.extensionManager.command.execute('Comfy.ExportWorkflow')")
    download.value.save_as(WORKFLOWS / f"{name}.json")
    save_thumbnail(page, WORKFLOWS / f"{name}.jpg")


def save_thumbnail(page: Page, file: Path) -> None:
    page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
    box = page.evaluate(FRAME, MARGIN)
    page.wait_for_timeout(1000)  # the canvas is drawn by animation frames, the texts on it follow
    image = Image.open(BytesIO(page.screenshot(clip=box)))
    height = round(image.height * THUMBNAIL_WIDTH / image.width)
    image.convert("RGB").resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS).save(file, quality=85)
    page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")


def main() -> None:
    source = environment.comfyui_checkout() or environment.source_folder(environment.NEWEST)
    with tempfile.TemporaryDirectory() as base, ComfyUI(source, Path(base), environment.REPO) as server:
        server.request("/settings", SETTINGS)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=environment.find_chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1800, "height": 1400})
            page.goto(server.url)
            page.wait_for_function("window.app?.vueAppReady")
            for name in GRAPHS:
                save(page, name)
                print(f"Saved {WORKFLOWS / name}.json and .jpg")
            browser.close()


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"save_workflows.py: {error}")
