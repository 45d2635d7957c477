"""The workflows and the subgraphs: their nodes, wires and values, and what app mode shows of them."""

from typing import Any

from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT
from cosmos_predict25.scripts.templates.prose import (
    BOTH_NOTE,
    CORE_NODES_NOTE,
    DEMO_NOTE,
    DEMO_PROMPT,
    DEMO_SQUARE_PROMPT,
    EXAMPLE_PROMPT,
    EXTEND_NOTE,
    FAL_NOTE,
    FAST_NOTE,
    IMAGE_NOTE,
    IMAGE_PROMPT,
    LOCAL_NOTE,
    LORA_NOTE,
    LORA_PROMPT,
    MANY_NOTE,
    TRAIN_NOTE,
    TWO_GPUS_NOTE,
    WINDOWS_NOTE,
    WRITER_NOTE,
)

INPUT, COLUMN, GAP = 440, 340, 120
"""Widths: of the nodes that are filled in, of those that work, and between columns, where the wires are."""
LEFT, *COLUMNS = [0, *(INPUT + GAP + place * (COLUMN + GAP) for place in range(4))]
"""Where the columns begin. What is filled in is in the left one. Wires go to the next one, or above what is there."""
BELOW_PROMPT, BELOW_SETTINGS, BELOW_PICTURE = 490, 410, 450
"""From one node's top to the next one's: they grow by what they say, and are higher in Nodes 2.0."""
NOTE_GAP = 100
GROWN = 760
"""The height of Generate Locally and Export Video after a run, with their pictures."""

LOADER = {"type": "CosmosPredict25Loader", "size": [INPUT, 154]}
PROMPT = {"type": "CosmosPredict25Prompt", "size": [INPUT, 300]}
SETTINGS_NODE = {
    "type": "CosmosPredict25SamplerSettings",
    "size": [INPUT, 202],
    "values": {"seed": 42, "control_after_generate": "fixed"},
}

MUTED = 2
FULL = {"num_frames": 93, "num_inference_steps": 35, "guidance_scale": 7, "width": 1280, "height": 704}
DEMO = {"num_frames": 25, "num_inference_steps": 20, "guidance_scale": 2, "width": 96, "height": 96}
AUTO, DEMO_NAME = "auto", "Demo: moving shapes (CPU)"
LORA = {"lora": "Demo: black shapes, for moving shapes"}
DEMO_PARTS = {"new_frames": 20}


def note(title: str, text: str, pos: list[int], height: int) -> dict[str, Any]:
    size = [2 * COLUMN + GAP, height]
    return {"type": "MarkdownNote", "title": title, "pos": pos, "size": size, "values": {"text": text}}


def generate(kind: str, pos: list[int], **more: Any) -> dict[str, Any]:
    height = {"CosmosPredict25Generate": 110, "CosmosPredict25GenerateFal": 240}[kind]
    return {"type": kind, "pos": pos, "size": [COLUMN, height], **more}


def text_encode(title: str, text: str, pos: list[int]) -> dict[str, Any]:
    return {"type": "CLIPTextEncode", "title": title, "pos": pos, "size": [380, 160], "values": {"text": text}}


def load_image(pos: list[int], **more: Any) -> dict[str, Any]:
    return {"type": "LoadImage", "pos": pos, "size": [INPUT, 330], **more}


def export(prefix: str, quality: str, pos: list[int], **more: Any) -> dict[str, Any]:
    values = {"format": "X264 (.mp4)", "quality": quality, "filename_prefix": f"video/{prefix}"}
    return {"type": "CosmosPredict25ExportVideo", "pos": pos, "size": [COLUMN, 220], "values": values, **more}


def inputs(settings: dict[str, Any], prompt: str) -> dict[str, Any]:
    """The prompt and the settings, one above the other."""
    values = {**SETTINGS_NODE["values"], **settings}
    return {
        "prompt": {**PROMPT, "pos": [LEFT, 0], "values": {"prompt": prompt}},
        "settings": {**SETTINGS_NODE, "pos": [LEFT, BELOW_PROMPT], "values": values},
    }


def loader(checkpoint: str, top: int) -> dict[str, Any]:
    """The last one of its column, as it grows most."""
    return {**LOADER, "pos": [LEFT, top], "values": {"checkpoint": checkpoint}}


def local(checkpoint: str, settings: dict[str, Any], prompt: str, text: dict[str, Any], prefix: str) -> dict[str, Any]:
    below = text["size"][1] + NOTE_GAP
    return {
        "nodes": {
            **inputs(settings, prompt),
            "loader": loader(checkpoint, BELOW_PROMPT + BELOW_SETTINGS),
            "note": text,
            "generate": generate("CosmosPredict25Generate", [COLUMNS[0], below]),
            "export": export(prefix, "high", [COLUMNS[1], below]),
        },
        "links": LOCAL_LINKS,
    }


def fal_beside(graph: dict[str, Any]) -> dict[str, Any]:
    """Return the nodes for fal, muted, below those of `graph` that work locally, and their note."""
    below = graph["nodes"]["generate"]["pos"][1] + GROWN
    return {
        "fal_note": note("fal: how to use it, and what it costs", BOTH_NOTE, [COLUMNS[2], 0], 560),
        "fal": generate("CosmosPredict25GenerateFal", [COLUMNS[0], below], mode=MUTED),
        "fal_export": export("cosmos_fal", "as is", [COLUMNS[1], below], mode=MUTED),
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
NOTE_AT = [COLUMNS[0], 0]
TEXT_TO_VIDEO_DEMO = local(DEMO_NAME, DEMO, DEMO_PROMPT, note("Start here", DEMO_NOTE, NOTE_AT, 260), "cosmos_demo")
MODEL_NOTE = note("How to get the model", LOCAL_NOTE, NOTE_AT, 600)
TEXT_TO_VIDEO_LOCAL = local(AUTO, FULL, EXAMPLE_PROMPT, MODEL_NOTE, "cosmos")
TEXT_TO_VIDEO_FAL: dict[str, Any] = {
    "nodes": {
        **inputs(FULL, EXAMPLE_PROMPT),
        "note": note("How to use fal", FAL_NOTE, NOTE_AT, 460),
        "fal": generate("CosmosPredict25GenerateFal", [COLUMNS[0], 460 + NOTE_GAP]),
        "fal_export": export("cosmos_fal", "as is", [COLUMNS[1], 460 + NOTE_GAP]),
    },
    "links": FAL_LINKS,
}
TEXT_TO_VIDEO_LOCAL_OR_FAL: dict[str, Any] = {
    "nodes": {
        **local(AUTO, FULL, EXAMPLE_PROMPT, MODEL_NOTE, "cosmos_local")["nodes"],
        **fal_beside(TEXT_TO_VIDEO_LOCAL),
    },
    "links": [*LOCAL_LINKS, *FAL_LINKS],
}

# The wires of prompt and settings go above the LoRA.
TEXT_TO_VIDEO_LORA: dict[str, Any] = {
    "nodes": {
        **local(DEMO_NAME, DEMO, LORA_PROMPT, note("Start here", LORA_NOTE, [LEFT, -330], 230), "cosmos_lora")["nodes"],
        "lora": {
            "type": "CosmosPredict25LoraLoader",
            "pos": [COLUMNS[0], BELOW_PROMPT + BELOW_SETTINGS],
            "size": [COLUMN, 130],
            "values": LORA,
        },
        "generate": generate("CosmosPredict25Generate", [COLUMNS[1], 0]),
        "export": export("cosmos_lora", "high", [COLUMNS[2], 0]),
    },
    "links": [["loader", "model", "lora", "model"], ["lora", "model", "generate", "model"], *LOCAL_LINKS[1:]],
}

# In columns of their own: the loader, what it reads the prompts with, what the sampler takes, the sampler, and the end.
# The wires of the model and of the VAE go above the columns between.
TEXT_TO_VIDEO_CORE_NODES: dict[str, Any] = {
    "nodes": {
        "note": note("Start here", CORE_NODES_NOTE, [0, -360], 260),
        "loader": {
            "type": "CosmosPredict25CheckpointLoader",
            "pos": [0, 0],
            "size": [380, 200],
            "values": {"checkpoint": DEMO_NAME},
        },
        "prompt": text_encode("Prompt", DEMO_PROMPT, [500, 360]),
        "negative": text_encode("Negative prompt", DEFAULT_NEGATIVE_PROMPT, [500, 660]),
        "guider": {"type": "CFGGuider", "pos": [1000, 140], "size": [300, 98], "values": {"cfg": 3}},
        "sigmas": {
            "type": "BasicScheduler",
            "pos": [1000, 320],
            "size": [300, 106],
            "values": {"scheduler": "karras", "steps": DEMO["num_inference_steps"]},
        },
        "sampler": {"type": "CosmosPredict25Sampler", "pos": [1000, 520], "size": [300, 60]},
        "noise": {
            "type": "RandomNoise",
            "pos": [1000, 800],
            "size": [300, 82],
            "values": {"noise_seed": 42, "control_after_generate": "fixed"},
        },
        "latent": {
            "type": "CosmosPredict25EmptyLatent",
            "pos": [1000, 980],
            "size": [300, 106],
            "values": {name: DEMO[name] for name in ("width", "height", "num_frames")},
        },
        "sample": {"type": "SamplerCustomAdvanced", "pos": [1420, 140], "size": [340, 360]},
        "decode": {"type": "VAEDecode", "pos": [1880, 0], "size": [200, 46]},
        "export": export("cosmos_core_nodes", "high", [2200, 0]),
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
        ["decode", "IMAGE", "export", "images"],
    ],
}


def core_links_through(name: str) -> list[list[str]]:
    """Return the wires of the core nodes' graph, with the model through the node `name`."""
    links = TEXT_TO_VIDEO_CORE_NODES["links"]
    through = [[name, "MODEL", *link[2:]] if link[:2] == ["loader", "model"] else link for link in links]
    return [["loader", "model", name, "model"], *through]


WINDOWS = {
    "context_length": 21,
    "context_overlap": 12,
    "context_schedule": "standard_static",
    "freenoise": False,
}
"""Of what the demo makes at once, as each window has one latent frame of the one before it."""
LONG_VIDEO_BY_WINDOWS: dict[str, Any] = {
    "nodes": {
        **TEXT_TO_VIDEO_CORE_NODES["nodes"],
        "note": note("Start here", WINDOWS_NOTE, [0, -420], 320),
        "windows": {
            "type": "WanContextWindowsManual",
            "pos": [500, 140],
            "size": [380, 260],
            "values": WINDOWS,
        },
        "prompt": text_encode("Prompt", DEMO_PROMPT, [500, 680]),
        "negative": text_encode("Negative prompt", DEFAULT_NEGATIVE_PROMPT, [500, 980]),
        "latent": {
            **TEXT_TO_VIDEO_CORE_NODES["nodes"]["latent"],
            "values": {"width": DEMO["width"], "height": DEMO["height"], "num_frames": 73},
        },
        "export": export("cosmos_windows", "high", [2200, 0]),
    },
    "links": core_links_through("windows"),
}

TEXT_TO_VIDEO_TWO_GPUS: dict[str, Any] = {
    "nodes": {
        **TEXT_TO_VIDEO_CORE_NODES["nodes"],
        "note": note("Start here", TWO_GPUS_NOTE, [0, -420], 320),
        "split": {"type": "MultiGPU_WorkUnits", "pos": [500, 140], "size": [380, 60], "values": {"max_gpus": 2}},
        "export": export("cosmos_two_gpus", "high", [2200, 0]),
    },
    "links": core_links_through("split"),
}

FAST: dict[str, Any] = {
    "nodes": {
        **TEXT_TO_VIDEO_CORE_NODES["nodes"],
        "note": note("Start here", FAST_NOTE, [0, -420], 320),
        "cache": {
            "type": "EasyCache",
            "pos": [500, 140],
            "size": [380, 160],
            "values": {"reuse_threshold": 0.05},
        },
        "prompt": text_encode("Prompt", DEMO_PROMPT, [500, 580]),
        "negative": text_encode("Negative prompt", DEFAULT_NEGATIVE_PROMPT, [500, 880]),
        "sigmas": {
            **TEXT_TO_VIDEO_CORE_NODES["nodes"]["sigmas"],
            "values": {"scheduler": "karras", "steps": FULL["num_inference_steps"]},
        },
        "export": export("cosmos_fast", "high", [2200, 0]),
    },
    "links": core_links_through("cache"),
}

TRAINING = {
    "batch_size": 1, "grad_accumulation_steps": 1, "steps": 100, "learning_rate": 0.003, "rank": 16,
    "optimizer": "AdamW", "loss_function": "MSE", "seed": 1, "control_after_generate": "fixed",
    "training_dtype": "bf16", "lora_dtype": "bf16", "algorithm": "LoRA", "gradient_checkpointing": True,
}  # fmt: skip


ORANGE = 0xFF8000
TRAIN_A_LORA: dict[str, Any] = {
    "nodes": {
        "note": note("Start here", TRAIN_NOTE, [0, -480], 380),
        "loader": {
            "type": "CosmosPredict25CheckpointLoader",
            "pos": [0, 0],
            "size": [380, 200],
            "values": {"checkpoint": DEMO_NAME},
        },
        "clip": {
            "type": "EmptyImage",
            "title": "The clip to learn from",
            "pos": [0, 760],
            "size": [380, 140],
            "values": {"width": DEMO["width"], "height": DEMO["height"], "batch_size": 25, "color": ORANGE},
        },
        "prompt": text_encode("What the clip shows", "An orange background.", [500, 140]),
        "encode": {"type": "VAEEncode", "pos": [500, 520], "size": [380, 46]},
        "train": {"type": "TrainLoraNode", "pos": [1000, 0], "size": [340, 480], "values": TRAINING},
        "save": {
            "type": "SaveLoRA",
            "pos": [1460, 0],
            "size": [340, 106],
            "values": {"prefix": "loras/cosmos_trained"},
        },
        "loss": {"type": "LossGraphNode", "pos": [1460, 320], "size": [340, 300]},
    },
    "links": [
        ["loader", "model", "train", "model"],
        ["loader", "clip", "prompt", "clip"],
        ["loader", "vae", "encode", "vae"],
        ["clip", "IMAGE", "encode", "pixels"],
        ["encode", "LATENT", "train", "latents"],
        ["prompt", "CONDITIONING", "train", "positive"],
        ["train", "lora", "save", "lora"],
        ["train", "steps", "save", "steps"],
        ["train", "loss_map", "loss", "loss"],
    ],
}

WRITE_A_PROMPT: dict[str, Any] = {
    "nodes": {
        "note": note("Start here", WRITER_NOTE, [0, -340], 240),
        "loader": {
            "type": "CosmosPredict25CheckpointLoader",
            "pos": [LEFT, 0],
            "size": [INPUT, 200],
            "values": {"prompt_writer": True},
        },
        "picture": load_image([LEFT, 480], mode=MUTED),
        "write": {
            "type": "TextGenerate",
            "pos": [COLUMNS[0], 140],
            "size": [COLUMN + 60, 480],
            "values": {"prompt": "a robot arm waters a plant"},
        },
        "encode": {**text_encode("For KSampler", "", [COLUMNS[1] + 60, 0]), "size": [380, 120]},
        "prompt": {"type": "CosmosPredict25Prompt", "pos": [COLUMNS[1] + 60, 220], "size": [380, 300]},
        "show": {"type": "PreviewAny", "pos": [COLUMNS[1] + 60, 700], "size": [380, 300]},
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

IMAGE_TO_VIDEO = local(
    AUTO, FULL, IMAGE_PROMPT, note("How to use it", IMAGE_NOTE, NOTE_AT, 260), "cosmos_image"
)  # fmt: skip
PICTURE_TOP = BELOW_PROMPT + BELOW_SETTINGS
IMAGE_TO_VIDEO_LOCAL: dict[str, Any] = {
    "nodes": {
        **IMAGE_TO_VIDEO["nodes"],
        "picture": load_image([LEFT, PICTURE_TOP], values={"image": "example.png"}),  # which ComfyUI brings itself
        "loader": loader(AUTO, PICTURE_TOP + BELOW_PICTURE),
    },
    "links": [*LOCAL_LINKS, ["picture", "IMAGE", "generate", "image"]],
}
# What goes on is lower than what makes the first video, so that its wires pass below that.
NEXT_TOP = BELOW_PROMPT + BELOW_SETTINGS
EXTEND_TOP = 1040
EXTEND_VIDEO_LOCAL: dict[str, Any] = {
    "nodes": {
        **inputs(DEMO, DEMO_SQUARE_PROMPT),
        "next": {
            **PROMPT,
            "title": "What happens next",
            "pos": [LEFT, NEXT_TOP],
            "values": {"prompt": "A large red square moves right over a blue background."},
        },
        "loader": loader(DEMO_NAME, NEXT_TOP + BELOW_PROMPT),
        "note": note("How to use it", EXTEND_NOTE, [COLUMNS[1], 0], 330),
        "generate": generate("CosmosPredict25Generate", [COLUMNS[0], 0]),
        "extend": {
            "type": "CosmosPredict25Extend",
            "pos": [COLUMNS[1], EXTEND_TOP],
            "size": [COLUMN, 180],
            "values": DEMO_PARTS,
        },
        "export": export("cosmos_long", "high", [COLUMNS[2], EXTEND_TOP]),
    },
    "links": [
        *LOCAL_LINKS[:3],
        ["generate", "video", "extend", "video"],
        ["loader", "model", "extend", "model"],
        ["next", "prompt", "extend", "prompt"],
        ["settings", "settings", "extend", "settings"],
        ["extend", "video", "export", "video"],
    ],
}

# The wires of the settings and the model go below the list.
SCENES = {
    "first": DEMO_PROMPT,
    "second": DEMO_SQUARE_PROMPT,
    "third": "A small green triangle moves up over a white background.",
}
LIST_TOP = len(SCENES) * BELOW_PROMPT
MANY_VIDEOS: dict[str, Any] = {
    "nodes": {
        "note": note("Start here", MANY_NOTE, [LEFT, -380], 280),
        **{
            name: {
                **PROMPT,
                "title": f"{name.title()} prompt",
                "pos": [LEFT, place * BELOW_PROMPT],
                "values": {"prompt": text},
            }
            for place, (name, text) in enumerate(SCENES.items())
        },
        "settings": {**SETTINGS_NODE, "pos": [LEFT, LIST_TOP], "values": {**SETTINGS_NODE["values"], **DEMO}},
        "loader": loader(DEMO_NAME, LIST_TOP + BELOW_SETTINGS),
        "list": {"type": "CreateList", "pos": [COLUMNS[0], 0], "size": [COLUMN, 120]},
        "generate": generate("CosmosPredict25Generate", [COLUMNS[1], BELOW_PROMPT]),
        "export": export("cosmos_list", "high", [COLUMNS[2], BELOW_PROMPT]),
    },
    "links": [
        *([name, "prompt", "list", f"inputs.input{place}"] for place, name in enumerate(SCENES)),
        ["list", "list", "generate", "prompt"],
        *(link for link in LOCAL_LINKS if link[0] != "prompt"),
    ],
}

IMAGE_TO_VIDEO_LOCAL_OR_FAL: dict[str, Any] = {
    "nodes": {**IMAGE_TO_VIDEO_LOCAL["nodes"], **fal_beside(IMAGE_TO_VIDEO_LOCAL)},
    "links": [*IMAGE_TO_VIDEO_LOCAL["links"], *FAL_LINKS, ["picture", "IMAGE", "fal", "image"]],
}

# What costs money says `on fal`, and what needs no model `(demo)`: web/js lists the one last, the other first. The
# frontend's search looks in these names alone. Those that need NVIDIA's model or fal say NVIDIA.
GRAPHS = {
    "Cosmos Text to Video (demo)": TEXT_TO_VIDEO_DEMO,
    "NVIDIA Cosmos Text to Video (local)": TEXT_TO_VIDEO_LOCAL,
    "NVIDIA Cosmos Text to Video (locally or on fal)": TEXT_TO_VIDEO_LOCAL_OR_FAL,
    "NVIDIA Cosmos Text to Video (on fal)": TEXT_TO_VIDEO_FAL,
    "Cosmos Text to Video (core nodes)": TEXT_TO_VIDEO_CORE_NODES,
    "Cosmos Text to Video (LoRA)": TEXT_TO_VIDEO_LORA,
    "NVIDIA Cosmos Image to Video (local)": IMAGE_TO_VIDEO_LOCAL,
    "NVIDIA Cosmos Image to Video (locally or on fal)": IMAGE_TO_VIDEO_LOCAL_OR_FAL,
    "Cosmos Extend Video (local)": EXTEND_VIDEO_LOCAL,
    "NVIDIA Cosmos Write a Prompt": WRITE_A_PROMPT,
    "Cosmos Long Video by Windows": LONG_VIDEO_BY_WINDOWS,
    "Cosmos Train a LoRA": TRAIN_A_LORA,
    "Cosmos Text to Video (two GPUs)": TEXT_TO_VIDEO_TWO_GPUS,
    "Cosmos Text to Video (fast)": FAST,
    "Cosmos Many Videos from a List": MANY_VIDEOS,
}
"""A new one comes last: the place of each says how its nodes are numbered."""

FRAMES, SEED = ["settings", "num_frames", "Frames (num_frames)"], ["settings", "seed", "Seed"]
SIZE = [["settings", "width", "Width"], ["settings", "height", "Height"]]
STEPS = ["settings", "num_inference_steps", "Steps (num_inference_steps)"]
MODEL = ["loader", "checkpoint", "Model (checkpoint)"]
PRICE = ["fal", "endpoint", "$0.20 per video, distilled $0.08"]
PICTURE = ["picture", "image", "Picture"]
DEMO_APP = [["prompt", "prompt", "Prompt"], FRAMES, SEED]
FAL_APP = [["prompt", "prompt", "Prompt"], PRICE, FRAMES, STEPS, SEED]
LOCAL_APP = [["prompt", "prompt", "Prompt"], FRAMES, *SIZE, STEPS, SEED, MODEL]
CORE_NODES_APP = [
    ["prompt", "text", "Prompt"],
    ["latent", "num_frames", "Frames (num_frames)"],
    ["latent", "width", "Width"],
    ["latent", "height", "Height"],
    ["noise", "noise_seed", "Seed"],
    MODEL,
]
APPS: dict[str, tuple[list[list[str]], list[str]]] = {
    "Cosmos Text to Video (demo)": (DEMO_APP, ["export"]),
    "NVIDIA Cosmos Text to Video (local)": (LOCAL_APP, ["export"]),
    "NVIDIA Cosmos Text to Video (locally or on fal)": ([*LOCAL_APP, PRICE], ["export", "fal_export"]),
    "NVIDIA Cosmos Text to Video (on fal)": (FAL_APP, ["fal_export"]),
    "Cosmos Text to Video (core nodes)": (CORE_NODES_APP, ["export"]),
    "Cosmos Text to Video (LoRA)": ([*DEMO_APP, ["lora", "strength", "Strength of the LoRA"]], ["export"]),
    "NVIDIA Cosmos Image to Video (local)": ([PICTURE, *LOCAL_APP], ["export"]),
    "NVIDIA Cosmos Image to Video (locally or on fal)": ([PICTURE, *LOCAL_APP, PRICE], ["export", "fal_export"]),
    "Cosmos Extend Video (local)": (
        [
            ["prompt", "prompt", "Prompt of the first video"],
            ["settings", "num_frames", "Frames of the first video"],
            ["next", "prompt", "Prompt of what follows"],
            ["extend", "new_frames", "Frames to add (new_frames)"],
            *SIZE,
            SEED,
            MODEL,
        ],
        ["export"],
    ),
    "NVIDIA Cosmos Write a Prompt": ([["write", "prompt", "Idea"], MODEL], ["show"]),
    "Cosmos Long Video by Windows": (
        [
            ["prompt", "text", "Prompt"],
            ["latent", "num_frames", "Frames (num_frames)"],
            ["windows", "context_length", "Frames at once (context_length)"],
            ["windows", "context_overlap", "Frames of overlap"],
            ["noise", "noise_seed", "Seed"],
            MODEL,
        ],
        ["export"],
    ),
    "Cosmos Train a LoRA": (
        [
            ["prompt", "text", "What the clip shows"],
            ["train", "steps", "Steps of training"],
            ["train", "learning_rate", "Learning rate"],
            ["train", "rank", "Rank"],
            MODEL,
        ],
        ["loss"],
    ),
    "Cosmos Text to Video (two GPUs)": (CORE_NODES_APP, ["export"]),
    "Cosmos Text to Video (fast)": (
        [
            ["prompt", "text", "Prompt"],
            ["latent", "num_frames", "Frames (num_frames)"],
            ["sigmas", "steps", "Steps"],
            ["cache", "reuse_threshold", "Change to skip (reuse_threshold)"],
            ["noise", "noise_seed", "Seed"],
            MODEL,
        ],
        ["export"],
    ),
    "Cosmos Many Videos from a List": (
        [*([name, "prompt", f"{name.title()} prompt"] for name in SCENES), FRAMES, SEED, MODEL],
        ["export"],
    ),
}
"""What app mode shows of a workflow: widgets to fill in, with their labels, and nodes whose output it shows."""
SUBGRAPH_SETTINGS = ["num_frames", "num_inference_steps", "guidance_scale", "seed", "width", "height"]
PROMOTED = [["prompt", "prompt"], *(["settings", name] for name in SUBGRAPH_SETTINGS), ["loader", "checkpoint"]]
FAR, ABOVE = COLUMNS[0] + 60, -360
"""Where a subgraph has the node that makes the video, so that wires from outside reach it above the inputs."""
SAVE_IT = "Connect its output video to Export Video, which saves it."


def subgraph(description: str, maker: str, sockets: list[str], widgets: list[str]) -> dict[str, Any]:
    """One node of a loader, a prompt, settings and a `maker`, with its `sockets` and `widgets` outside."""
    return {
        "description": f"{description} {SAVE_IT}",
        "nodes": {
            **inputs(FULL, ""),
            "loader": loader(AUTO, BELOW_PROMPT + BELOW_SETTINGS),
            "generate": {"type": maker, "pos": [FAR, ABOVE], "size": [COLUMN, 200]},
        },
        "links": LOCAL_LINKS[:3],
        "ends": [[LEFT - 300, ABOVE + 40], [FAR + COLUMN + GAP, ABOVE]],
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
