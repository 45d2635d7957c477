"""A benchmark's table: printed, and kept in docs/benchmarks.md where that has a section for the command."""

import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
END = "<!-- end -->"


def publish(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    page: Path = PAGE,
    *,
    with_conditions: bool = True,
) -> None:
    """Print the table, and put it, with the machine, the versions and the date, into this command's section of `page`.

    A section begins with a line `<!-- benchmarks/NAME.py ARGUMENTS -->` and ends with `<!-- end -->`. A command that
    has none, as one with trial values, is only printed.
    """
    text = "\n\n".join(filter(None, [conditions() if with_conditions else "", markdown_table(header, rows), note]))
    print(text, flush=True)
    start = f"<!-- {shlex.join(['benchmarks/' + Path(sys.argv[0]).name, *sys.argv[1:]])} -->\n"
    before, found, after = page.read_text(encoding="utf-8").partition(start)
    if found:
        _, end, rest = after.partition(END)
        page.write_text(f"{before}{start}{text}\n{end}{rest}", encoding="utf-8")


def conditions() -> str:
    gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "av"))
    return f"{machine}; {versions}; {date.today()}."


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
