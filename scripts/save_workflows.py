"""Makes the workflows, their thumbnails and the subgraphs anew, with ComfyUI's own frontend in a headless browser.

    .demo/env/bin/python scripts/save_workflows.py

Run it before a release, after scripts/test, which installs all that it needs. It builds each graph on the canvas of a
running ComfyUI and saves what the frontend exports.
"""

import json
import re
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, sync_playwright

from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, FPS
from cosmos_predict25.scripts import environment
from cosmos_predict25.scripts.comfyui import ComfyUI, to_api_prompt
from cosmos_predict25.tests.frontend import READY

WORKFLOWS = environment.REPO / "workflows"
SUBGRAPHS = environment.REPO / "subgraphs"
DOCS = environment.REPO / "docs"
CARD_SIDE = 256
FONT = ImageFont.load_default(44)
MARGIN = 40
CATEGORY = "Cosmos Predict2.5"
"""Of the subgraphs in the node library."""
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
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

# Headings, since a note's own text is 10 pixels small, and no code, which does not wrap or is blue on brown. ComfyUI's
# data for missing models (`models` in a node's properties) would offer no download here: the frontend downloads single
# files that end like .safetensors and are the value of a list, and this model is a folder.
DEMO_NOTE = """\
# Press Run: this works before anything is downloaded

## It uses the demo, a tiny model that comes with this pack. It is not NVIDIA's: it draws circles, squares and \
triangles that move, 96x96 pixels small, on a CPU.

## Try other colours, *small* or *large*, *moves up*, *bounces*, *striped background*.

## For real videos, open the template *Text to Video (local)* or *Text to Video (on fal)*.
"""

LORA_NOTE = """\
# A LoRA teaches a model something new

## The demo knows black as a background alone. With the LoRA that comes with it, it draws black shapes.

## Set *strength* to 0, or bypass the node with Ctrl+B, to see the demo without it.

## Your own LoRAs for Cosmos-Predict2.5 go to *models/loras*; then choose your model in the loader as well.
"""

LOCAL_NOTE = """\
# The model is not part of this pack

## 1. Accept its license on [Hugging Face](https://huggingface.co/nvidia/Cosmos-Predict2.5-2B). It takes 20 GB of disk.

## 2. In the ComfyUI folder, run *hf auth login*, then the line below. Portable Windows has \
*..\\python_embeded\\python.exe -m huggingface_hub.cli.hf* for *hf*.

## hf download nvidia/Cosmos-Predict2.5-2B --revision diffusers/base/post-trained \
--local-dir models/diffusers/Cosmos-Predict2.5-2B

## 3. Press R here, so that the loader sees it, and Run.

## Until then *auto* takes the demo, which draws nothing but small coloured shapes.
"""

FAL_NOTE = """\
# This costs money: about $0.20 a video

## With the endpoint *distilled* $0.08. The node shows today's price.

## 1. Make a key at [fal.ai/dashboard/keys](https://fal.ai/dashboard/keys); the account needs a balance.

## 2. Set the environment variable FAL_KEY to it and start ComfyUI again. A workflow never holds the key.

## Stop cancels the job. The same values again are not paid for twice: for another video, change the seed.
"""

BOTH_NOTE = f"""\
# The fal nodes are muted, so that Run costs nothing

## To use them, select *Generate on fal* and its *Export Video* and press Ctrl+M.

{FAL_NOTE}"""

CORE_NODES_NOTE = """\
# The same model in ComfyUI's own nodes

## Put here what takes a MODEL, a CLIP or CONDITIONING: LoRA, EasyCache, regional prompts.

## It runs with the demo until the model is there. *Text to Video (local)* says how to get it.

## Then set 1280 x 704 and 93 frames, 35 steps, and cfg to 8, which is NVIDIA's guidance_scale 7.
"""

WRITER_NOTE = """\
# From five words to a prompt

## The model was trained on long descriptions. Its text encoder, Cosmos-Reason1, writes one from your idea.

## For a picture to start from, select *Load Image* and press Ctrl+M.

## It needs the model: the demo cannot write. *Text to Video (local)* says how to get it.
"""

IMAGE_NOTE = """\
# Start from a picture of your own

## Choose it in *Load Image*, and describe what happens next.

## It is scaled and cropped in the middle to width x height. The first frame is the model's copy of it.

## Until you have the model (see *Text to Video (local)*), *auto* takes the demo, which knows only coloured shapes.
"""

EXTEND_NOTE = """\
# Longer than the model makes at once

## *Extend Video* goes on from the end of a video: of the one made here, or of yours from *Load Video*, with its sound.

## Several of them in a row can have another prompt each. When only the last one changes, only that runs again.

## Until you have the model (see *Text to Video (local)*), *auto* takes the demo, which knows only coloured shapes.
"""

LOADER = {
    "type": "CosmosPredict25Loader",
    "pos": [0, 0],
    "size": [440, 154],
    "values": {"checkpoint": "auto"},
}
PROMPT = {"type": "CosmosPredict25Prompt", "size": [440, 400], "values": {"prompt": EXAMPLE_PROMPT}}
SETTINGS_NODE = {
    "type": "CosmosPredict25SamplerSettings",
    "size": [440, 202],
    "values": {"seed": 42, "control_after_generate": "fixed"},
}

MUTED = 2
FULL = {"num_frames": 93, "num_inference_steps": 35, "guidance_scale": 7, "width": 1280, "height": 704}
DEMO = {"num_frames": 25, "num_inference_steps": 20, "guidance_scale": 2, "width": 96, "height": 96}
DEMO_NAME = "Demo: moving shapes (CPU)"
LORA = {"lora": "Demo: black shapes, for moving shapes"}
LORA_PROMPT = "A large black circle moves left over a white background."
DEMO_PROMPT = "A large red circle moves left over a blue background."
IMAGE_PROMPT = (
    "A child's drawing of a girl with big yellow hair and a pink dress on a green hill. She waves with both arms while "
    "white clouds drift to the right over a blue sky. The camera does not move. Flat colours, even light."
)


COLUMN, GAP = 340, 20
RIGHT = 500
"""Where the columns right of the inputs begin."""


def note(title: str, text: str, pos: list[int], height: int) -> dict[str, Any]:
    size = [2 * COLUMN + GAP, height]
    return {"type": "MarkdownNote", "title": title, "pos": pos, "size": size, "values": {"text": text}}


def generate(kind: str, pos: list[int], **more: Any) -> dict[str, Any]:
    height = {"CosmosPredict25Generate": 110, "CosmosPredict25GenerateFal": 240}[kind]
    return {"type": kind, "pos": pos, "size": [COLUMN, height], **more}


def text_encode(title: str, text: str, pos: list[int]) -> dict[str, Any]:
    return {"type": "CLIPTextEncode", "title": title, "pos": pos, "size": [440, 160], "values": {"text": text}}


def export(prefix: str, quality: str, pos: list[int], **more: Any) -> dict[str, Any]:
    values = {"format": "X264 (.mp4)", "quality": quality, "filename_prefix": f"video/{prefix}"}
    return {"type": "CosmosPredict25ExportVideo", "pos": pos, "size": [COLUMN, 220], "values": values, **more}


def inputs(settings: dict[str, Any], prompt: str, top: int) -> dict[str, Any]:
    """The prompt and the settings, one above the other."""
    values = {**SETTINGS_NODE["values"], **settings}
    return {
        "prompt": {**PROMPT, "pos": [0, top], "values": {"prompt": prompt}},
        "settings": {**SETTINGS_NODE, "pos": [0, top + 470], "values": values},
    }


def local(checkpoint: str, settings: dict[str, Any], prompt: str, text: dict[str, Any], prefix: str) -> dict[str, Any]:
    below = text["size"][1] + 90
    return {
        "nodes": {
            "loader": {**LOADER, "values": {"checkpoint": checkpoint}},
            **inputs(settings, prompt, 350),
            "note": text,
            "generate": generate("CosmosPredict25Generate", [RIGHT, below]),
            "export": export(prefix, "high", [RIGHT + COLUMN + GAP, below]),
        },
        "links": LOCAL_LINKS,
    }


LOCAL_LINKS = [
    ["loader", "model", "generate", "model"],
    ["prompt", "prompt", "generate", "prompt"],
    ["settings", "settings", "generate", "settings"],
    ["generate", "video", "export", "video"],
]
FAL_LINKS = [
    ["prompt", "prompt", "fal", "prompt"],
    ["settings", "settings", "fal", "settings"],
    ["fal", "video", "fal_export", "video"],
]
TEXT_TO_VIDEO_DEMO = local(DEMO_NAME, DEMO, DEMO_PROMPT, note("Start here", DEMO_NOTE, [RIGHT, 0], 260), "cosmos_demo")
TEXT_TO_VIDEO_LOCAL = local(
    "auto", FULL, EXAMPLE_PROMPT, note("How to get the model", LOCAL_NOTE, [RIGHT, 0], 330), "cosmos"
)
TEXT_TO_VIDEO_FAL: dict[str, Any] = {
    "nodes": {
        **inputs(FULL, EXAMPLE_PROMPT, 0),
        "note": note("How to use fal", FAL_NOTE, [RIGHT, 0], 280),
        "fal": generate("CosmosPredict25GenerateFal", [RIGHT, 370]),
        "fal_export": export("cosmos_fal", "as is", [RIGHT + COLUMN + GAP, 370]),
    },
    "links": FAL_LINKS,
}
FAR = RIGHT + 2 * COLUMN + GAP + 60
TEXT_TO_VIDEO_LOCAL_OR_FAL: dict[str, Any] = {
    "nodes": {
        **local("auto", FULL, EXAMPLE_PROMPT, note("Local", LOCAL_NOTE, [RIGHT, 0], 370), "cosmos_local")["nodes"],
        "fal_note": note("fal: how to use it, and what it costs", BOTH_NOTE, [FAR, 0], 370),
        "fal": generate("CosmosPredict25GenerateFal", [FAR, 460], mode=MUTED),
        "fal_export": export("cosmos_fal", "as is", [FAR + COLUMN + GAP, 460], mode=MUTED),
    },
    "links": [*LOCAL_LINKS, *FAL_LINKS],
}

TEXT_TO_VIDEO_LORA: dict[str, Any] = {
    "nodes": {
        **local(DEMO_NAME, DEMO, LORA_PROMPT, note("Start here", LORA_NOTE, [RIGHT, 0], 230), "cosmos_lora")["nodes"],
        "lora": {"type": "CosmosPredict25LoraLoader", "pos": [RIGHT, 320], "size": [COLUMN, 130], "values": LORA},
        "generate": generate("CosmosPredict25Generate", [RIGHT, 550]),
    },
    "links": [["loader", "model", "lora", "model"], ["lora", "model", "generate", "model"], *LOCAL_LINKS[1:]],
}

TEXT_TO_VIDEO_CORE_NODES: dict[str, Any] = {
    "nodes": {
        "loader": {"type": "CosmosPredict25CheckpointLoader", "pos": [0, 0], "size": [440, 200]},
        "prompt": text_encode("Prompt", DEMO_PROMPT, [0, 320]),
        "negative": text_encode("Negative prompt", DEFAULT_NEGATIVE_PROMPT, [0, 540]),
        "latent": {
            "type": "CosmosPredict25EmptyLatent",
            "pos": [0, 760],
            "size": [440, 106],
            "values": {name: DEMO[name] for name in ("width", "height", "num_frames")},
        },
        "note": note("Start here", CORE_NODES_NOTE, [540, 0], 250),
        "guider": {"type": "CFGGuider", "pos": [540, 310], "size": [400, 98], "values": {"cfg": 3}},
        "sigmas": {
            "type": "BasicScheduler",
            "pos": [540, 460],
            "size": [400, 106],
            "values": {"scheduler": "karras", "steps": DEMO["num_inference_steps"]},
        },
        "sampler": {"type": "CosmosPredict25Sampler", "pos": [540, 620], "size": [400, 40]},
        "noise": {
            "type": "RandomNoise",
            "pos": [540, 730],
            "size": [400, 82],
            "values": {"noise_seed": 42, "control_after_generate": "fixed"},
        },
        "sample": {"type": "SamplerCustomAdvanced", "pos": [990, 310], "size": [370, 360]},
        "decode": {"type": "VAEDecode", "pos": [990, 730], "size": [370, 46]},
        "video": {"type": "CreateVideo", "pos": [990, 830], "size": [370, 78], "values": {"fps": 16}},
        "export": export("cosmos_core_nodes", "high", [1410, 310]),
    },
    "links": [
        ["loader", "clip", "prompt", "clip"],
        ["loader", "clip", "negative", "clip"],
        ["loader", "model", "guider", "model"],
        ["loader", "model", "sigmas", "model"],
        ["prompt", "CONDITIONING", "guider", "positive"],
        ["negative", "CONDITIONING", "guider", "negative"],
        ["noise", "NOISE", "sample", "noise"],
        ["guider", "GUIDER", "sample", "guider"],
        ["sampler", "sampler", "sample", "sampler"],
        ["sigmas", "SIGMAS", "sample", "sigmas"],
        ["latent", "latent", "sample", "latent_image"],
        ["sample", "output", "decode", "samples"],
        ["loader", "vae", "decode", "vae"],
        ["decode", "IMAGE", "video", "images"],
        ["video", "VIDEO", "export", "video"],
    ],
}

WRITE_A_PROMPT: dict[str, Any] = {
    "nodes": {
        "loader": {
            "type": "CosmosPredict25CheckpointLoader",
            "pos": [0, 0],
            "size": [440, 200],
            "values": {"prompt_writer": True},
        },
        "write": {
            "type": "TextGenerate",
            "pos": [0, 330],
            "size": [440, 480],
            "values": {"prompt": "a robot arm waters a plant"},
        },
        "note": note("Start here", WRITER_NOTE, [540, 0], 270),
        "picture": {"type": "LoadImage", "pos": [540, 700], "size": [400, 314], "mode": MUTED},
        "show": {"type": "PreviewAny", "pos": [540, 330], "size": [400, 300]},
        "encode": {**text_encode("For KSampler", "", [990, 330]), "size": [370, 120]},
        "prompt": {"type": "CosmosPredict25Prompt", "pos": [990, 510], "size": [370, 300]},
    },
    "links": [
        ["loader", "clip", "write", "clip"],
        ["picture", "IMAGE", "write", "image"],
        ["write", "generated_text", "show", "source"],
        ["write", "generated_text", "encode", "text"],
        ["loader", "clip", "encode", "clip"],
        ["write", "generated_text", "prompt", "prompt"],
    ],
}

# Right of the inputs: the picture, what makes the video, what saves it; then the same for fal.
PLACES = [RIGHT + place * (COLUMN + GAP) for place in range(5)]
IMAGE_TO_VIDEO_LOCAL: dict[str, Any] = {
    "nodes": {
        **local(
            "auto", FULL, IMAGE_PROMPT, note("How to use it", IMAGE_NOTE, [RIGHT, 0], 230), "cosmos_image",
        )["nodes"],
        # ComfyUI brings that picture itself.
        "picture": {
            "type": "LoadImage", "pos": [PLACES[0], 320], "size": [COLUMN, 330], "values": {"image": "example.png"},
        },
        "generate": generate("CosmosPredict25Generate", [PLACES[1], 320]),
        "export": export("cosmos_image", "high", [PLACES[2], 320]),
    },
    "links": [*LOCAL_LINKS, ["picture", "IMAGE", "generate", "image"]],
}  # fmt: skip
EXTEND_VIDEO_LOCAL: dict[str, Any] = {
    "nodes": {
        **local(
            "auto", FULL, "A large red square moves left over a blue background.",
            note("How to use it", EXTEND_NOTE, [RIGHT, 0], 250), "cosmos_long",
        )["nodes"],
        "next": {
            **PROMPT, "title": "What happens next", "pos": [RIGHT, 790], "size": [COLUMN, 320],
            "values": {"prompt": "A large red square moves right over a blue background."},
        },
        "extend": {
            "type": "CosmosPredict25Extend", "pos": [RIGHT + COLUMN + GAP, 340], "size": [COLUMN, 180],
            "values": {"new_frames": 88},
        },
        "export": export("cosmos_long", "high", [RIGHT + 2 * (COLUMN + GAP), 340]),
    },
    "links": [
        *LOCAL_LINKS[:3],
        ["generate", "video", "extend", "video"],
        ["loader", "model", "extend", "model"],
        ["next", "prompt", "extend", "prompt"],
        ["settings", "settings", "extend", "settings"],
        ["extend", "video", "export", "video"],
    ],
}  # fmt: skip

IMAGE_TO_VIDEO_LOCAL_OR_FAL: dict[str, Any] = {
    "nodes": {
        **IMAGE_TO_VIDEO_LOCAL["nodes"],
        "fal_note": note("fal: how to use it, and what it costs", BOTH_NOTE, [PLACES[3], 0], 370),
        "fal": generate("CosmosPredict25GenerateFal", [PLACES[3], 460], mode=MUTED),
        "fal_export": export("cosmos_fal", "as is", [PLACES[4], 460], mode=MUTED),
    },
    "links": [*IMAGE_TO_VIDEO_LOCAL["links"], *FAL_LINKS, ["picture", "IMAGE", "fal", "image"]],
}

# What costs money says `on fal`: web/js lists it last.
GRAPHS = {
    "Text to Video (demo)": TEXT_TO_VIDEO_DEMO,
    "Text to Video (local)": TEXT_TO_VIDEO_LOCAL,
    "Text to Video (locally or on fal)": TEXT_TO_VIDEO_LOCAL_OR_FAL,
    "Text to Video (on fal)": TEXT_TO_VIDEO_FAL,
    "Text to Video (core nodes)": TEXT_TO_VIDEO_CORE_NODES,
    "Text to Video (LoRA)": TEXT_TO_VIDEO_LORA,
    "Image to Video (local)": IMAGE_TO_VIDEO_LOCAL,
    "Image to Video (locally or on fal)": IMAGE_TO_VIDEO_LOCAL_OR_FAL,
    "Extend Video (local)": EXTEND_VIDEO_LOCAL,
    "Write a Prompt": WRITE_A_PROMPT,
}
TEXT_APP = [["prompt", "prompt"], ["settings", "num_frames"], ["settings", "seed"]]
APPS: dict[str, tuple[list[list[str]], list[str]]] = {
    "Text to Video (demo)": (TEXT_APP, ["export"]),
    "Text to Video (local)": (TEXT_APP, ["export"]),
    "Text to Video (locally or on fal)": (TEXT_APP, ["export", "fal_export"]),
    "Text to Video (on fal)": (TEXT_APP, ["fal_export"]),
    "Text to Video (core nodes)": (
        [["prompt", "text"], ["latent", "num_frames"], ["noise", "noise_seed"]],
        ["export"],
    ),
    "Text to Video (LoRA)": ([*TEXT_APP, ["lora", "strength"]], ["export"]),
    "Image to Video (local)": ([["picture", "image"], *TEXT_APP], ["export"]),
    "Image to Video (locally or on fal)": ([["picture", "image"], *TEXT_APP], ["export", "fal_export"]),
    "Extend Video (local)": (
        [["prompt", "prompt"], ["next", "prompt"], ["extend", "new_frames"], ["settings", "seed"]],
        ["export"],
    ),
    "Write a Prompt": ([["write", "prompt"]], ["show"]),
}
"""What app mode shows of a workflow: widgets to fill in, and nodes whose output it shows."""
SUBGRAPH_SETTINGS = ["num_frames", "num_inference_steps", "guidance_scale", "seed", "width", "height"]
PROMOTED = [["prompt", "prompt"], *(["settings", name] for name in SUBGRAPH_SETTINGS), ["loader", "checkpoint"]]


def subgraph(description: str, maker: str, sockets: list[str], widgets: list[str]) -> dict[str, Any]:
    """One node of a loader, a prompt, settings and a `maker`, with its `sockets` and `widgets` outside."""
    node = {"type": maker, "pos": [RIGHT, 0], "size": [COLUMN, 200]}
    return {
        "description": description,
        "nodes": {"loader": LOADER, **inputs(FULL, "", 230), "generate": node},
        "links": LOCAL_LINKS[:3],
        "sockets": [["generate", name] for name in sockets],
        "promoted": [PROMOTED[0], *(["generate", name] for name in widgets), *PROMOTED[1:]],
        "outputs": [["generate", "video"], ["generate", "seed"]],
    }


BLUEPRINTS = {
    "Text to Video (Cosmos)": subgraph(
        "Makes a video from text with Cosmos-Predict2.5 on this machine.", "CosmosPredict25Generate", [], []
    ),
    "Image to Video (Cosmos)": subgraph(
        "Makes a video that begins with a picture, with Cosmos-Predict2.5 on this machine.",
        "CosmosPredict25Generate", ["image"], [],
    ),
    "Extend Video (Cosmos)": subgraph(
        "Goes on from the end of a video with Cosmos-Predict2.5 on this machine.",
        "CosmosPredict25Extend", ["video"], ["new_frames"],
    ),
}  # fmt: skip
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

BUILD = """({ id, nodes, links, app: [inputs, outputs] = [[], []] }) => {
    app.graph.clear()
    app.graph.id = id
    const made = {}
    for (const [name, { type, title, pos, size, values, mode }] of Object.entries(nodes)) {
        const node = LiteGraph.createNode(type, title)
        app.graph.add(node)
        node.pos = pos
        for (const [widget, value] of Object.entries(values ?? {}))
            node.widgets.find((each) => each.name === widget).value = value
        node.setSize(size)
        if (mode) node.mode = mode
        made[name] = node
    }
    for (const [from, output, to, input] of links)
        made[from].connect(made[from].findOutputSlot(output), made[to], made[to].findInputSlot(input))
    const idOf = (name) => Number(made[name].id) // as frontends of all ages read it
    const linearData = { inputs: inputs.map(([name, widget]) => [idOf(name), widget]), outputs: outputs.map(idOf) }
    if (inputs.length) app.graph.extra.linearData = linearData
    return Object.fromEntries(Object.entries(made).map(([name, { id }]) => [name, id]))
}"""

# Makes one node of all in the graph, whose widgets and sockets are those named: `ids` are the nodes' by name.
CONVERT = """({ name, description, ids, sockets, promoted, outputs }) => {
    const { subgraph, node } = app.graph.convertToSubgraph(new Set(app.graph.nodes))
    const inner = (name) => subgraph.getNodeById(ids[name])
    for (const chosen of [...subgraph.inputs]) subgraph.removeInput(chosen) // by the frontend, such as a seed
    for (const [from, input] of [...sockets, ...promoted]) {
        const slot = inner(from).inputs.find((each) => each.name === input)
        subgraph.addInput(input, slot.type).connect(slot, inner(from))
    }
    for (const [from, output] of outputs) {
        const slot = inner(from).outputs.find((each) => each.name === output)
        subgraph.addOutput(output, slot.type).connect(slot, inner(from))
    }
    Object.assign(subgraph, { name, description })
    node.title = name
    app.graph.extra.BlueprintDescription = description
    node.setSize([400, node.computeSize()[1]])
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
    page.evaluate(BUILD, {"id": stable_id(name), **GRAPHS[name], "app": APPS[name]})
    page.evaluate(FRAME, MARGIN)
    (WORKFLOWS / f"{name}.json").write_text(exported(page), encoding="utf-8")


def save_subgraph(page: Page, name: str) -> None:
    graph = BLUEPRINTS[name]
    ids = page.evaluate(BUILD, {"id": stable_id(name), "nodes": graph["nodes"], "links": graph["links"]})
    page.evaluate(CONVERT, {"name": name, "ids": ids, **graph})
    page.evaluate(FRAME, MARGIN)
    text = exported(page)
    for place, found in enumerate(dict.fromkeys(UUID.findall(text))):
        text = text.replace(found, stable_id(f"{name} {place}"))
    saved = json.loads(text)
    saved["definitions"]["subgraphs"][0]["category"] = CATEGORY
    (SUBGRAPHS / f"{name}.json").write_text(json.dumps(saved, ensure_ascii=False, indent=2), encoding="utf-8")


def stable_id(name: str) -> str:
    """The same for the same name, so that what did not change is saved without a difference."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def exported(page: Page) -> str:
    with page.expect_download() as download:
        page.evaluate("app.extensionManager.command.execute('Comfy.ExportWorkflow')")
    return download.value.path().read_text(encoding="utf-8")


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


def main() -> None:
    source = environment.comfyui_checkout() or environment.source_folder(environment.NEWEST)
    with tempfile.TemporaryDirectory() as base, ComfyUI(source, Path(base), environment.REPO) as server:
        server.request("/settings", SETTINGS)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=environment.find_chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1800, "height": 1400})
            page.goto(server.url)
            page.wait_for_function(READY)
            for name in GRAPHS:
                save(page, name)
                save_card(server, name)
                print(f"Saved {WORKFLOWS / name}.json and .jpg")
            for name in BLUEPRINTS:
                save_subgraph(page, name)
                print(f"Saved {SUBGRAPHS / name}.json")
            browser.close()
        save_registry_pictures(server)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"save_workflows.py: {error}")
