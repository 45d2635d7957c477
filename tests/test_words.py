"""The texts that a person reads have none of the phrases that have crept in most often. CONTRIBUTING has the rules."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosmos_predict25.devtools import locales

REPO = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(REPO / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "demo/moving-shapes/README.md")),
        *(REPO / "docs").glob("*.md"),
        *(REPO / "web" / "docs").glob("*.md"),
    ]
)
SOURCES = sorted(file for folder in ("nodes", "pipeline") for file in (REPO / folder).rglob("*.py"))
FOREIGN = {
    "frames a second": "fps",
    "at 16 a second": "at 16 fps",
    "those that": "a noun",
    "that which": "a noun",
    "is to be": "must be, or a plain verb",
    "are to be": "must be, or a plain verb",
    "of which": "two sentences",
    "whoever": "anyone who",
    "goes on from": "continues",
}
STARTS = re.compile(r"(?:^|[.:!] |[-*|] )What(?! it)[ a-z]* [a-z]+ (?:is|are|was|does)\b")
"""A clause that stands for a noun: "What does not fit is streamed"."""


def prose(page: Path) -> str:
    """Return the text of a page in one line, without code, quotations and links."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`]*`|\"[^\"]*\"|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return " ".join(text.split())


def messages(file: Path) -> Iterator[str]:
    """Yield the strings of `file`, without docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def foreign_in(text: str) -> list[str]:
    """Return the foreign phrases of a text, each with a better way."""
    found = [f"{phrase!r}: write {better}" for phrase, better in FOREIGN.items() if phrase in text.lower()]
    return found + [f"{match[0]!r}: write a noun" for match in STARTS.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_a_page_has_no_foreign_phrase(page: Path) -> None:
    assert not foreign_in(prose(page))


def test_a_message_and_a_tooltip_have_no_foreign_phrase() -> None:
    found = {str(file): foreign_in(text) for file in SOURCES for text in messages(file) if foreign_in(text)}
    assert not found
    assert not {text: foreign_in(text) for text in locales.read("zh") if foreign_in(text)}


@pytest.mark.parametrize(
    "text",
    [
        "It makes 16 frames a second.",
        "Those that fit stay.",
        "It fits. What does not fit is streamed.",
        "It is to be paid.",
    ],
)
def test_a_foreign_phrase_is_found(text: str) -> None:
    assert foreign_in(text)
