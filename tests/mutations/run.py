"""Breaks the product in one place at a time, and runs the test that should notice.

    .demo/env/bin/python tests/mutations/run.py [NAME ...]

Takes the rows of table.py that have one of NAME in their names, or all. Changes copies of the checkout, never the
checkout itself. Fails unless all their tests pass unchanged and every row's test fails when it is broken.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from table import TABLE, Mutation

REPO = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LEFT_OUT = (".git", ".demo", "__pycache__", ".hypothesis", ".pytest_cache", ".ruff_cache")
PASSED, FAILED = 0, 1
"""pytest's exit codes. Any other says that it did not run the tests."""
SHORT_RUN = ("-m", "not exhaustive")
"""What scripts/test runs has to notice each row, without the cases that a release adds."""
KILLED = "killed"
MINUTES = 15
"""After which a test hangs."""


@dataclass(frozen=True)
class Outcome:
    """`verdict`: killed, SURVIVED, hangs, or that the row does not fit the code. `reason`: why."""

    mutation: Mutation
    verdict: str
    reason: str = ""

    def __str__(self) -> str:
        file = f"{self.mutation.file}{f' ({self.mutation.needs})' if self.mutation.needs else ''}"
        return f"{self.verdict:<14} {file:<42} {self.mutation.name}{f': {self.reason}' if self.reason else ''}"


def main(names: Sequence[str]) -> None:
    chosen = [mutation for mutation in TABLE if not names or any(name in mutation.name for name in names)]
    if not chosen:
        sys.exit(f"No row of table.py has any of these in its name: {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder, ThreadPoolExecutor(CORES) as threads:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(CORES):
            copies.put(copy_checkout(Path(folder, str(number), "cosmos-predict25")))
        check_unchanged(copies, sorted({mutation.test for mutation in chosen}))
        alive = 0
        for outcome in threads.map(lambda mutation: tried(mutation, copies), chosen):
            print(outcome, flush=True)
            alive += outcome.verdict != KILLED
    print(f"{len(chosen) - alive} of {len(chosen)} killed.")
    sys.exit(1 if alive else 0)


def copy_checkout(target: Path) -> Path:
    shutil.copytree(REPO, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (target / ".demo").symlink_to((REPO / ".demo").resolve(), target_is_directory=True)
    return target


def check_unchanged(copies: "SimpleQueue[Path]", tests: Sequence[str]) -> None:
    """A test that fails anyway would kill every mutation."""
    print(f"{len(tests)} tests on the product as it is ...", flush=True)
    with taken(copies) as checkout:
        run = pytest(checkout, tests)
    if run.returncode != PASSED:
        sys.exit(f"{run.stdout[-4000:]}\nThese tests do not pass, so they tell nothing of a mutation.")


def tried(mutation: Mutation, copies: "SimpleQueue[Path]") -> Outcome:
    with taken(copies) as checkout:
        file = checkout / mutation.file
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if (count := before.count(mutation.old)) != 1:
            return Outcome(mutation, "update the row", f"{mutation.old!r} is there {count} times")
        after = before.replace(mutation.old, mutation.new)
        if file.suffix == ".py":
            ast.parse(after)
        file.write_text(after, encoding="utf-8")
        try:
            return outcome_of(mutation, checkout)
        finally:
            file.write_text(before, encoding="utf-8")


def outcome_of(mutation: Mutation, checkout: Path) -> Outcome:
    try:
        run = pytest(checkout, [mutation.test])
    except subprocess.TimeoutExpired:
        return Outcome(mutation, "hangs", f"{mutation.test} has not ended after {MINUTES} minutes")
    if run.returncode == FAILED:
        failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", run.stdout, re.MULTILINE)
        return Outcome(mutation, KILLED, failed[1] if failed else mutation.test)
    if run.returncode == PASSED:
        return Outcome(mutation, "SURVIVED", f"{mutation.test} passes")
    return Outcome(mutation, "update the row", f"pytest ran no {mutation.test}: {run.stdout[-300:]}{run.stderr[-300:]}")


def pytest(checkout: Path, tests: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Without compiled files: Python would take those of a file that was changed within the same second."""
    command = [str(Path(sys.executable).with_name("pytest")), "-x", "-q", "-p", "no:cacheprovider", *SHORT_RUN]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    paths = [f"tests/{test}" for test in tests]
    seconds = MINUTES * 60 * len(tests)
    return subprocess.run([*command, *paths], cwd=checkout, env=environment, capture_output=True, text=True,
                          timeout=seconds)  # fmt: skip


@contextmanager
def taken(copies: "SimpleQueue[Path]") -> Iterator[Path]:
    """One of the copies, for no one else meanwhile."""
    checkout = copies.get()
    try:
        yield checkout
    finally:
        copies.put(checkout)


if __name__ == "__main__":
    main(sys.argv[1:])
