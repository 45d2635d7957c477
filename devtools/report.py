"""A benchmark's table: printed, and kept in docs/benchmarks.md where that has a section for the command."""

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
END = "<!-- end -->"
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
"""Processes that ran or waited to, on average over the last minute before the program began."""


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
    has none, as one with trial values, is only printed, and so are figures with limits on threads that no user sets.
    """
    text = "\n\n".join(filter(None, [conditions() if with_conditions else "", markdown_table(header, rows), note]))
    print(text, flush=True)
    start = f"<!-- {shlex.join(['benchmarks/' + Path(sys.argv[0]).name, *sys.argv[1:]])} -->\n"
    before, found, after = page.read_text(encoding="utf-8").partition(start)
    if found and not thread_limits():
        _, end, rest = after.partition(END)
        page.write_text(f"{before}{start}{text}\n{end}{rest}", encoding="utf-8")


def conditions() -> str:
    gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores, load {LOAD:.1f} at the start"
    machine += f", {torch.get_num_threads()} threads of torch ({thread_limits() or 'no limit in the environment'})"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "av"))
    return f"{machine}; {versions}; {date.today()}."


def thread_limits() -> str:
    """Return the environment variables that limit threads, with their values."""
    return ", ".join(f"{name}={os.environ[name]}" for name in THREAD_LIMITS if name in os.environ)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
