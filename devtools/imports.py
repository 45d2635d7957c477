"""Prints which folder of the repository imports which others, one line a folder.

python devtools/imports.py [CHECKOUT]
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
NAMES = ("pack", "cosmos_predict25")
"""Of the pack itself: in a relative import, and in an absolute one."""


def python_files(root: Path) -> list[Path]:
    """Return the programs and modules that git tracks below `root`; some programs have no suffix."""
    listed = ["git", "ls-files", "*.py", "scripts/demo", "scripts/test"]
    tracked = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout
    return [file for name in tracked.splitlines() if (file := root / name).exists()]


def imports(file: Path, root: Path = REPO, *, only_at_start: bool = False) -> set[str]:
    """Return the absolute names that a file imports; those of a relative import start with `pack.`.

    `only_at_start`: without the imports of its functions and of type checkers.
    """
    package = ("pack", *file.relative_to(root).parent.parts)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = set()
    for node in at_start(tree) if only_at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join((*base, *filter(None, [node.module])))
            found |= {f"{prefix}.{alias.name}" for alias in node.names}
    return found


def at_start(tree: ast.AST) -> Iterator[ast.AST]:
    """The parts of a module that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not later and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from at_start(node)


def folder_of(name: str, root: Path = REPO) -> str | None:
    """Return the folder with the module that `name` is of, such as "pipeline/fal", or None if it is not the pack's."""
    first, *parts = name.split(".")
    if first not in NAMES:
        # As scripts/demo and scripts/test, which put this folder on sys.path.
        return "devtools" if (root / "devtools" / f"{first}.py").exists() else None
    while parts and not (root / Path(*parts)).is_dir():
        parts.pop()
    return "/".join(parts) or "."


def graph(root: Path) -> dict[str, set[str]]:
    """Return the other folders that each folder of `root` imports."""
    found: dict[str, set[str]] = {}
    for file in python_files(root):
        folder = file.parent.relative_to(root).as_posix()
        known = {folder_of(name, root) for name in imports(file, root)} - {None, folder}
        found.setdefault(folder, set()).update(filter(None, known))
    return found


if __name__ == "__main__":
    for folder, others in sorted(graph(Path(*sys.argv[1:2]).resolve() if sys.argv[1:] else REPO).items()):
        print(f"{folder} -> {', '.join(sorted(others)) or 'none'}")
