"""The workflows and the subgraphs: their nodes, wires and values, and what app mode shows of them."""

from typing import Any

from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT
from cosmos_predict25.scripts.templates.prose import (
    BOTH_NOTE,
    CORE_NODES_NOTE,
    DEMO_NOTE,
    DEMO_PROMPT,
    EXAMPLE_PROMPT,
    EXTEND_NOTE,
    FAL_NOTE,
    IMAGE_NOTE,
    IMAGE_PROMPT,
    LOCAL_NOTE,
    LORA_NOTE,
    LORA_PROMPT,
    WRITER_NOTE,
)

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
