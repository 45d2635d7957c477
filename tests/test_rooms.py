"""Which room may import which, and what is not imported before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_predict25.devtools.imports import folder_of, imports, python_files

REPO = Path(__file__).parents[1]
COMFYUI_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "folder_paths",
    "server",
    "nodes",
    "latent_preview",
    "execution",
}
PIPELINE_ROOMS = ["local", "fal", "export"]
DEVELOPMENT = ["tests", "benchmarks", "scripts", "demo", "devtools"]


def files(room: str) -> list[Path]:
    return sorted((REPO / room).rglob("*.py"))


def test_the_pipeline_knows_nothing_of_comfyui_and_the_nodes():
    assert files("pipeline")
    for file in files("pipeline"):
        for name in imports(file):
            assert name.split(".")[0] not in COMFYUI_MODULES, f"{file} imports {name}"
            assert not name.startswith("pack.nodes"), f"{file} imports {name}"


@pytest.mark.parametrize("room", PIPELINE_ROOMS)
def test_rooms_of_the_pipeline_do_not_know_each_other(room):
    others = [f"pack.pipeline.{other}" for other in PIPELINE_ROOMS if other != room]
    for file in files(f"pipeline/{room}"):
        for name in imports(file):
            assert not name.startswith(tuple(others)), f"{file} imports {name}"


def test_the_room_that_reads_videos_knows_no_other_room():
    others = tuple(f"pack.pipeline.{other}" for other in PIPELINE_ROOMS)
    assert files("pipeline/clip")
    for file in files("pipeline/clip"):
        for name in imports(file):
            assert not name.startswith(others), f"{file} imports {name}"


def test_no_other_room_knows_the_batch():
    for file in [*files("nodes"), *files("pipeline")]:
        for name in imports(file):
            assert not name.startswith("pack.pipeline.batch") or "batch" in file.parts, f"{file} imports {name}"


STEPS = ["encode", "condition", "denoise", "decode"]


@pytest.mark.parametrize(
    ("file", "others"),
    [
        ("sizes.py", ["latents", "tiles", "model", "load", "placement", *STEPS, "plan", "generate"]),
        ("latents.py", ["model", "load", "placement", *STEPS, "plan", "generate"]),
        ("tiles.py", ["sizes", "model", "load", "placement", *STEPS, "plan", "generate"]),
        ("model.py", ["load", "placement", *STEPS, "plan", "generate"]),
        ("placement.py", ["model", "load", *STEPS, "plan", "generate"]),
        ("encode.py", ["load", "placement", "condition", "denoise", "decode", "plan", "generate"]),
        ("condition.py", ["model", "load", "placement", "encode", "denoise", "decode", "plan", "generate"]),
        ("denoise.py", ["load", "placement", "encode", "condition", "decode", "plan", "generate"]),
        ("decode.py", ["load", "placement", "encode", "condition", "denoise", "plan", "generate"]),
        ("transformer.py", ["model", "load", "placement", *STEPS, "plan", "generate"]),
        ("plan.py", ["model", "load", "placement", "generate"]),
        ("load", ["placement", "encode", "decode", "plan", "generate"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_of_local_generation_knows_no_other_step_and_not_the_whole(file, others):
    found = REPO / "pipeline" / "local" / file
    for path in files(f"pipeline/local/{file}") or [found]:
        for name in imports(path):
            for other in others:
                assert not f"{name}.".startswith(f"pack.pipeline.local.{other}."), f"{path} imports {name}"


FLOORS_OF_FAL = [
    *("key", "redaction", "endpoints", "queue", "media", "client"),
    *("journal", "budget", "submission", "display", "lost_job", "paid_job", "past_jobs"),
    *("frames", "start", "generation", "chain", "extension", "command"),
]
"""A module, or a folder of them, imports what stands before it."""


def test_each_room_of_fal_has_its_floor():
    rooms = {file.relative_to(REPO / "pipeline" / "fal").parts[0].removesuffix(".py") for file in files("pipeline/fal")}
    assert rooms - {"__init__"} <= set(FLOORS_OF_FAL)


@pytest.mark.parametrize("room", FLOORS_OF_FAL)
def test_no_arrow_of_fal_runs_up(room):
    above = FLOORS_OF_FAL[FLOORS_OF_FAL.index(room) + 1 :]
    for file in [*files(f"pipeline/fal/{room}"), *files("pipeline/fal")]:
        if room in (file.stem, file.parent.name):
            for name in imports(file):
                for other in above:
                    assert not f"{name}.".startswith(f"pack.pipeline.fal.{other}."), f"{file} imports {name}"


def test_fals_media_imports_no_other_room_of_fal_than_its_queue():
    for file in files("pipeline/fal/media"):
        for name in imports(file):
            if name.startswith("pack.pipeline.fal."):
                assert name.startswith(("pack.pipeline.fal.queue.", "pack.pipeline.fal.media.")), (
                    f"{file} imports {name}"
                )


def test_what_adapts_comfyui_knows_no_node():
    nodes = [file.stem for file in (REPO / "nodes").glob("*.py") if file.stem != "__init__"]
    for file in [*files("nodes/host"), *files("nodes/native")]:
        for name in imports(file):
            assert name.split(".")[:2] != ["pack", "nodes"] or name.split(".")[2] not in nodes, f"{file} imports {name}"


def test_no_node_imports_a_node():
    nodes = {path.stem for path in files("nodes") if "(io.ComfyNode)" in path.read_text()}
    assert len(nodes) == 14
    for name in nodes:
        for imported in imports(REPO / "nodes" / f"{name}.py"):
            room = imported.split(".")
            assert room[:2] != ["pack", "nodes"] or room[2] not in nodes - {name}, f"{name} imports {imported}"


def test_the_root_has_these_folders_of_code_and_no_others():
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, check=True, capture_output=True, text=True).stdout
    rooms = {name.split("/")[0] for name in tracked.splitlines() if "/" in name and not name.startswith(".")}
    served = {"workflows", "subgraphs", "web", "locales"}
    assert rooms == {"nodes", "pipeline", *served, *DEVELOPMENT, "docs"}


@pytest.mark.parametrize("room", DEVELOPMENT)
def test_a_room_of_development_imports_devtools_and_what_is_installed_alone(room):
    others = [other for other in DEVELOPMENT if other not in (room, "devtools")]
    own = [file for file in python_files(REPO) if file.relative_to(REPO).parts[0] == room]
    assert own
    for file in own:
        for name in imports(file):
            folder = folder_of(name) or ""
            assert folder.split("/")[0] not in others, f"{file} imports {name}"


def test_only_what_is_to_be_installed_is_imported_by_the_nodes_and_the_pipeline():
    installed = ("pack.nodes", "pack.pipeline")
    for file in [REPO / "__init__.py", *files("nodes"), *files("pipeline")]:
        for name in imports(file):
            assert not name.startswith("pack.") or name.startswith(installed), f"{file} imports {name}"


def test_all_imports_within_the_pack_are_relative():
    for file in [REPO / "__init__.py", *files("nodes"), *files("pipeline")]:
        for name in imports(file):
            assert not name.startswith(("cosmos_predict25", "custom_nodes", "pipeline")), f"{file} imports {name}"


LIGHT = [
    "pipeline",
    "pipeline.request",
    "pipeline.disk",
    "pipeline.errors",
    "pipeline.formats",
    "pipeline.observer",
    "pipeline.video",
    "pipeline.fal",
    "pipeline.fal.endpoints",
    "pipeline.fal.key",
    "pipeline.local.load.find",
    "pipeline.local.sizes",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module):
    program = (
        "import importlib, sys\n"
        f"importlib.import_module('cosmos_predict25.{module}')\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'av', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


ON_LOAD = ["nodes/__init__.py", "nodes/host/past_jobs.py", "nodes/host/preload.py"]
"""What ComfyUI's start imports first. tests/test_start.py sees the whole, in seconds."""


def test_comfyuis_start_imports_nothing_heavy():
    files, seen, heavy = [REPO / name for name in ON_LOAD], set(), {"torch", "diffusers", "transformers", "av", "httpx"}
    while files:
        file = files.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in imports(file, only_at_start=True):
            first, *parts = name.split(".")
            assert first not in heavy, f"{file} imports {name}"
            rooms = [REPO.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)] if first == "pack" else []
            files += [
                each for room in rooms for each in (room.with_suffix(".py"), room / "__init__.py") if each.exists()
            ]
    assert REPO / "nodes" / "host" / "requirements.py" in seen
