"""The README shows and names what is there, and the programs for fal in docs/fal.md do what it says."""

import asyncio
import os
import re
import runpy
import textwrap
from pathlib import Path

import av
import pytest
from PIL import Image

from cosmos_predict25.devtools.fal_standin import FalStandIn

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")


def test_the_first_screen_is_a_picture_and_two_commands_that_exist() -> None:
    first_screen, _ = README.split("## Does it run on my card")
    assert re.findall(r"^## (.*)$", README, re.MULTILINE)[3] == "Install"
    commands = re.findall(r"^```\n(.*)\n```$", first_screen, re.MULTILINE)
    assert commands == ["scripts/demo", "scripts/test"]
    assert all(os.access(REPO / command, os.X_OK) for command in commands)
    (picture,) = re.findall(r"^!\[.+\]\((.*)\)$", first_screen, re.MULTILINE)
    with Image.open(REPO / picture) as image:
        assert image.width <= 1200


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = set(re.findall(r"\]\((?!https?:)(.*?)\)", README))
    assert links
    assert not [link for link in links if not (REPO / link).is_file()]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def programs() -> tuple[str, str, str]:
    """Return that which makes a video, that which extends a clip, and the client's operations."""
    text = (REPO / "docs" / "fal.md").read_text(encoding="utf-8")
    generate, extend, client = (
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "fal." in block
    )
    return generate, extend, client


@pytest.mark.slow
def test_the_programs_for_fal_run(
    fal: FalStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fal.queue_seconds = fal.run_seconds = 5
    generate, _, client = programs()
    (tmp_path / "generate.py").write_text(generate, encoding="utf-8")
    runpy.run_path("generate.py", run_name="__main__")
    assert re.fullmatch(r"videos/cosmos_42_\w{12}\.mp4 93 16\n", capsys.readouterr().out)

    steps = f"async def steps():\n{textwrap.indent(client, '    ')}"
    imports = "from pathlib import Path\nfrom cosmos_predict25.pipeline import fal\n"
    (tmp_path / "steps.py").write_text(f"{imports}{steps}", encoding="utf-8")
    asyncio.run(runpy.run_path("steps.py")["steps"]())
    printed = capsys.readouterr().out
    assert "Queued(position=" in printed
    assert "InProgress(logs=(" in printed
    assert "Completed(" in printed
    assert (tmp_path / "rock.mp4").stat().st_size > 0
    assert [job.input["seed"] for job in fal.jobs.values()] == [42, 7]


@pytest.mark.slow
def test_the_program_that_extends_a_clip_runs(fal: FalStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fal.queue_seconds = fal.run_seconds = 5
    _, extend, _ = programs()
    head = """
from pathlib import Path
import torch
from cosmos_predict25.pipeline import GenerationRequest
request, clip = GenerationRequest(prompt="A rock rolls.", seed=42), torch.full((12, 64, 96, 3), 0.25)
async def steps():
"""
    (tmp_path / "extend.py").write_text(f"{head}{textwrap.indent(extend, '    ')}", encoding="utf-8")
    asyncio.run(runpy.run_path("extend.py")["steps"]())
    assert [job.input["seed"] for job in fal.jobs.values()] == [42, 43]
    with av.open(str(tmp_path / "longer.mp4")) as container:
        assert len(list(container.decode(video=0))) == 8 + 120  # 12 frames at 24 are 8 at 16
