"""The page of figures is written by the programs, and by nobody else."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.devtools.report import END, PAGE, THREAD_LIMITS, publish


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with sections for two commands, of which the second is being run."""
    monkeypatch.setattr(sys, "argv", ["/anywhere/load.py", "--rounds", "1"])
    for name in THREAD_LIMITS:
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "page.md"
    file.write_text(
        f"Text.\n<!-- benchmarks/load.py -->\nold\n{END}\n<!-- benchmarks/load.py --rounds 1 -->\nold\n{END}\nEnd."
    )
    return file


def test_a_run_replaces_the_section_of_its_command_and_nothing_else(page: Path) -> None:
    publish(["", "s"], [["ours", "1.5"]], "A note.", page)
    before, section, after = re.split(
        "(<!-- benchmarks/load.py --rounds 1 -->.*<!-- end -->)", page.read_text(), flags=re.DOTALL
    )
    assert before == f"Text.\n<!-- benchmarks/load.py -->\nold\n{END}\n"
    assert after == "\nEnd."
    assert "\n| ours | 1.5 |\n\nA note.\n" in section
    assert re.search(r"torch [\d.]+.*; \d{4}-\d\d-\d\d\.", section)
    assert "old" not in section


def test_a_run_with_trial_values_only_prints(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["load.py", "--rounds", "2"])
    text = page.read_text()
    publish(["s"], [["1.5"]], page=page)
    assert page.read_text() == text
    assert "| 1.5 |" in capsys.readouterr().out


def test_a_run_with_fewer_threads_than_users_have_only_prints_and_says_so(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    publish(["s"], [["1.5"]], page=page)
    assert page.read_text() == text
    assert "OMP_NUM_THREADS=1" in capsys.readouterr().out


def test_every_section_of_the_page_names_a_program_and_every_table_is_in_one() -> None:
    text = PAGE.read_text(encoding="utf-8")
    programs = re.findall(r"<!-- (benchmarks/\w+\.py).* -->", text)
    assert programs
    for program in programs:
        assert importlib.util.spec_from_file_location("program", REPO / program)
        assert "publish(" in (REPO / program).read_text()
    assert "\n|" not in re.sub(r"<!-- benchmarks.*?<!-- end -->", "", text, flags=re.DOTALL)
