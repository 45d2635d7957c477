"""Watches over the keys of a session's stand-ins; conftest.py hands its fixture to all tests."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_standin import FalStandIn

REPO = Path(__file__).resolve().parents[1]
KEY_FILE = (".fal", "key")
"""The end of the path of a file that is there to hold a key."""
CODE = (".py", ".pyc", ".safetensors")
DIGITS = re.compile(rb"[0-9a-fA-F]{12,}")
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
UUID_START, UUID_END, SECRET_LENGTH = 24, 12, 32
BLOCK = 2**24
OVERLAP = 64


def halves_in(content: bytes) -> set[str]:
    """All that has the form of the id or the secret of a stand-in's key, also within longer runs of such digits."""
    found = set()
    for match in DIGITS.finditer(content):
        start, end = match.span()
        if id := UUID.fullmatch(content[max(0, start - UUID_START) : start + UUID_END].lower()):
            found.add(id[0])
        found |= {content[at : at + SECRET_LENGTH].lower() for at in range(start, end - SECRET_LENGTH + 1)}
    return {half.decode() for half in found}


def halves_in_file(path: Path) -> set[str]:
    found, end = set(), b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found |= halves_in(end + block)
            end = block[-OVERLAP:]
    return found


class Watch(logging.Handler):
    """Keeps what looks like a part of a key in anything that is logged or reported, as keys may be made later."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self._seen: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.see(f"{record.__dict__}\n{self.format(record)}", f"the log of {record.name}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The text of a failure, with its exceptions, and what was printed and logged."""
        self.see("\n".join([report.longreprtext, *(text for _, text in report.sections)]), f"report: {report.nodeid}")

    def see(self, text: str, where: str) -> None:
        for half in halves_in(text.encode(errors="replace")):
            self._seen.setdefault(half, where)

    def leaks(self, folders: Iterable[Path]) -> list[str]:
        """Where a half of a key was seen, or is in a file below `folders`. Nothing of the key is in the answer."""
        halves = {half.lower() for key in self.keys for half in key.split(":")}
        said = [where for half, where in self._seen.items() if half in halves]
        files = [path for folder in folders for path in files_below(folder)]
        return [*said, *(str(path) for path in files if halves_in_file(path) & halves)]


def files_below(folder: Path) -> Iterator[Path]:
    """Not through links. Neither code and weights nor a file for a key."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.suffix not in CODE and path.parts[-2:] != KEY_FILE and path.is_file() and not path.is_symlink():
                yield path


@pytest.fixture(scope="session", autouse=True)
def no_key_is_left_anywhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watch]:
    """First to be made and so the last to end: the servers of the tests have written all that they do by then."""
    watch = Watch()
    make = FalStandIn.__init__

    def make_and_remember(stand_in: FalStandIn, *args: Any, **options: Any) -> None:
        make(stand_in, *args, **options)
        watch.keys.append(stand_in.key)

    FalStandIn.__init__ = make_and_remember
    logging.getLogger().addHandler(watch)
    request.config.pluginmanager.register(watch)
    yield watch
    request.config.pluginmanager.unregister(watch)
    logging.getLogger().removeHandler(watch)
    FalStandIn.__init__ = make
    leaks = watch.leaks([tmp_path_factory.getbasetemp(), REPO / "workflows", REPO / ".demo" / "screenshots"])
    assert not leaks, f"A part of a key of a stand-in is in: {', '.join(leaks)}"
