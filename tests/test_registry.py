"""What the registry and other people's machines ask of the pack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.toy.prompts import WORDS
from cosmos_predict25.pipeline.local.load.find import DEMO_SHAPES, names_a_demo_shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
MUTED = 2
TEXTS = {".py", ".js", ".md"}


def tracked(*options: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=REPO, capture_output=True, text=True, check=True)
    return set(listed.stdout.split("\0")) - {""}


IN_OTHER_LANGUAGES = tracked(":(glob)web/docs/*/*.md")
SOURCES = sorted(name for name in tracked("*.py", "web") - IN_OTHER_LANGUAGES if Path(name).suffix in TEXTS)


@pytest.mark.parametrize("name", SOURCES)
def test_every_text_can_be_printed_on_a_windows_console(name: str) -> None:
    (REPO / name).read_text(encoding="utf-8").encode("cp1252")


def test_a_clone_on_windows_has_the_same_bytes() -> None:
    asked = ["git", "check-attr", "eol", "text", "--", "scripts/demo", "docs/icon.png"]
    said = subprocess.run(asked, cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert said.count("eol: lf") == said.count("text: auto") == 2


def test_the_archive_has_all_that_runs_and_no_more() -> None:
    """comfy-cli packs what git tracks and .comfyignore, which is written like .gitignore, does not name."""
    archive = tracked() - tracked("--cached", "--ignored", "--exclude-from=.comfyignore")
    assert {name.split("/")[0] for name in archive} == {
        *("__init__.py", "__main__.py", "batch.py", "fal.py", "nodes", "pipeline", "web", "workflows", "subgraphs"),
        *("locales", "demo", "requirements.txt", "pyproject.toml", "README.md", "LICENSE", "docs"),
    }
    assert tracked("nodes", "pipeline", "web", "workflows", "subgraphs", "locales/*/*") <= archive
    assert not archive & tracked(":(glob)locales/*")
    assert {name for name in archive if name.startswith("demo/")} == tracked("demo/moving-shapes", "demo/loras") - {
        "demo/moving-shapes/training.log"
    }


def test_only_a_template_that_says_so_costs_money() -> None:
    files = sorted((REPO / "workflows").glob("*.json"))
    assert files
    for file in files:
        nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
        pays = [node for node in nodes if node["type"].endswith("Fal") and node["mode"] != MUTED]
        assert bool(pays) == file.stem.endswith("(on fal)")


def test_the_registry_finds_what_it_shows() -> None:
    comfy = PROJECT["tool"]["comfy"]
    assert {"PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui"} <= set(comfy)
    assert "Repository" in PROJECT["project"]["urls"]
    icon, banner = (Image.open(REPO / "docs" / comfy[name].split("/docs/")[1]) for name in ("Icon", "Banner"))
    assert icon.width == icon.height <= 400
    assert banner.width * 9 == banner.height * 21
    assert not [name for name in PROJECT["project"]["classifiers"] if "CUDA" in name]


def test_the_least_frontend_is_one_that_the_browser_tests_run() -> None:
    least = f"comfyui-frontend-package>={environment.OLDEST_FRONTEND}"
    assert least in (REPO / "requirements.txt").read_text(encoding="utf-8").splitlines()


def test_the_demos_shapes_are_the_words_that_it_was_trained_with() -> None:
    assert set(DEMO_SHAPES) == {word for shape in ("circle", "square", "triangle") for word in WORDS[shape]}
    assert names_a_demo_shape("Two BALLS bounce")
    assert not names_a_demo_shape("A conveyor belt carries rocks.")
