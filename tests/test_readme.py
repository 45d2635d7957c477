"""The README's programs for fal do what it says, with the client's own pace."""

import asyncio
import re
import sys
import textwrap
from pathlib import Path

import pytest

from cosmos_predict25.tests.fal_standin import FalStandIn

REPO = Path(__file__).parents[1]


def programs() -> tuple[str, str]:
    """The one that makes a video, and the one that shows the client's operations."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    generate, client = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "fal." in block)
    return generate, client


def test_the_programs_for_fal_run(
    fal: FalStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fal.queue_seconds = fal.run_seconds = 2
    generate, client = programs()
    exec(compile(generate, "README.md", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(r"videos/cosmos_42_\w{12}\.mp4 93 16\n", capsys.readouterr().out)

    steps = f"async def steps():\n{textwrap.indent(client, '    ')}"
    names = {"fal": sys.modules["cosmos_predict25.pipeline.fal"], "Path": Path}
    exec(compile(steps, "README.md", "exec"), names)
    asyncio.run(names["steps"]())  # pyright: ignore
    printed = capsys.readouterr().out
    assert "Queued(position=" in printed
    assert "InProgress(logs=(" in printed
    assert "Completed(" in printed
    assert (tmp_path / "rock.mp4").stat().st_size > 0
    assert [job.input["seed"] for job in fal.jobs.values()] == [42, 7]
