"""What watches over the keys of a session finds each leak, and fails the session."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_predict25.devtools.fal_standin import FalStandIn
from cosmos_predict25.tests.fal_secrets import BLOCK, Watch

ID, SECRET = "0f1e2d3c-4b5a-4697-8877-665544332211", "00112233445566778899aabbccddeeff"


@pytest.fixture
def watch() -> Watch:
    """Of a session with a stand-in that had the key above."""
    watch = Watch()
    watch.keys.append(f"{ID}:{SECRET}")
    return watch


@pytest.mark.parametrize(
    "content",
    [
        f"Authorization: Key {ID}:".encode(),
        bytes(100) + SECRET.encode() + bytes(100),
        SECRET.upper().encode(),
        f"abcdef{SECRET}0123".encode(),
        bytes(BLOCK - 9) + ID.encode(),
    ],
    ids=["id", "in binary", "upper case", "in longer digits", "at the end of a block"],
)
def test_a_part_of_a_key_is_found_in_a_file(watch, tmp_path, content):
    (tmp_path / "one").write_bytes(content)
    (tmp_path / "two").write_bytes(bytes(1000))
    assert watch.leaks([tmp_path]) == [str(tmp_path / "one")]


@pytest.mark.parametrize("logged", [("%s", SECRET), ("%s", {"headers": [ID]}), (SECRET,)], ids=str)
def test_a_part_of_a_key_is_found_in_the_log(watch, logged):
    logger = logging.Logger("any")
    logger.addHandler(watch)
    logger.debug(*logged)
    assert watch.leaks([]) == ["the log of any"]


def test_a_part_of_a_key_is_found_in_a_logged_exception(watch):
    logger = logging.Logger("any")
    logger.addHandler(watch)
    logger.error("failed", exc_info=ValueError(SECRET))
    assert watch.leaks([]) == ["the log of any"]


def test_other_ids_and_less_than_half_are_no_leak(watch, tmp_path):
    (tmp_path / "file").write_text(f"00000000-1111-4222-8333-444444444444 {SECRET[:31]} {ID[:-1]}")
    (tmp_path / "home" / ".fal").mkdir(parents=True)
    (tmp_path / "home" / ".fal" / "key").write_text(f"{ID}:{SECRET}")
    assert watch.leaks([tmp_path]) == []


CONFTEST = """
from cosmos_predict25.tests.fal_secrets import no_key_is_left_anywhere
"""
TESTS = """
import logging

from cosmos_predict25.devtools.fal_standin import FalStandIn


def test_file(tmp_path):
    (tmp_path / "leak").write_text(FalStandIn(tmp_path).key)


def test_log(tmp_path):
    logging.getLogger("any").warning(FalStandIn(tmp_path).key)


def test_print(tmp_path):
    print(FalStandIn(tmp_path).key)


def test_error(tmp_path):
    raise ValueError(FalStandIn(tmp_path).key)
"""


@pytest.mark.slow
def test_a_session_in_which_a_key_leaks_fails(tmp_path):
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_leaks.py").write_text(TESTS)
    command = [str(Path(sys.executable).with_name("pytest")), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    command += ["--basetemp", str(tmp_path / "files"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    told = max(re.findall("A part of a key of a stand-in is in: (.*)", done.stdout), key=len)
    assert "1 failed, 3 passed, 1 error" in done.stdout
    assert "test_file0/leak" in told
    assert "the log of any" in told
    assert "report: test_leaks.py::test_print" in told
    assert "report: test_leaks.py::test_error" in told
    assert done.returncode == 1


def test_the_keys_of_this_session_are_known(no_key_is_left_anywhere, tmp_path):
    assert FalStandIn(tmp_path).key in no_key_is_left_anywhere.keys
