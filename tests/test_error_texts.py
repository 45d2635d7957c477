"""A node that an error sends a person to is there, under the name that a graph shows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosmos_predict25.devtools.environment import NEWEST, OLDEST, Release, source_folder

REPO = Path(__file__).parents[1]
PHRASE = re.compile(r"[A-Z](?:\w|\.\d)*(?: (?:[A-Z](?:\w|\.\d)*|\([A-Z][^)]*\)))+")
"""Words with capitals in a row, of which the last may be in brackets."""
OF_NODES = re.compile(
    r"\b(Load|Loader|Encode|Decode|Sampler|Settings|Latent|Generate|Export|Extend|Prompt|Checkpoint)\b"
)
SOURCES = sorted([*(REPO / "nodes").rglob("*.py"), *(REPO / "pipeline").rglob("*.py")])


def texts(file: Path) -> Iterator[str]:
    """All strings in the functions of `file`, but for docstrings and schemas."""
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "define_schema":
            docstrings = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Expr)}
            for node in ast.walk(function):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                    yield node.value


def nodes_named_in(text: str) -> list[str]:
    """Return the names in `text`, perhaps with a verb before. A %Title.widget% in a file name is none."""
    phrases = PHRASE.findall(re.sub("%[^%]+%", "", text))
    return [phrase.removesuffix(".") for phrase in phrases if OF_NODES.search(phrase)]


def our_names() -> set[str]:
    sources = (file.read_text() for file in (REPO / "nodes").glob("*.py"))
    found = {name for source in sources for name in re.findall(r'display_name="(.*) \(Cosmos Predict2\.5\)"', source)}
    return found | {f"{name} (Cosmos Predict2.5)" for name in found}


def comfyui_names(release: Release) -> set[str]:
    for node in ast.parse((source_folder(release) / "nodes.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NODE_DISPLAY_NAME_MAPPINGS":
            return set(ast.literal_eval(node.value).values())
    raise AssertionError("ComfyUI has no names of nodes any more")


@pytest.mark.parametrize("release", [NEWEST, OLDEST], ids=lambda release: release.comfyui)
def test_every_node_that_an_error_names_exists(release):
    known, found = our_names() | comfyui_names(release), []
    for file in SOURCES:
        for name in (name for text in texts(file) for name in nodes_named_in(text)):
            found.append(name)
            assert name.endswith(tuple(known)), f"{file}: {name!r} is the name of no node"
    assert len(set(found)) >= 4, found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Load it with 'Load Cosmos Predict2.5 Checkpoint', or not.", ["Load Cosmos Predict2.5 Checkpoint"]),
        ("It fails. Connect Text Encode to it.", ["Connect Text Encode"]),
        ("Take Empty Latent (Cosmos Predict2.5), with 9 frames.", ["Take Empty Latent (Cosmos Predict2.5)"]),
        ("Write %Sampler Settings.seed% for the Wan 2.1 VAE. Load it.", []),
    ],
)
def test_a_name_is_found_in_an_error(text, expected):
    assert nodes_named_in(text) == expected
