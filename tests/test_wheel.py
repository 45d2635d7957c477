"""What `pip install .` gives to a program that has never seen the repository."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import av
import pytest
from packaging.requirements import Requirement

from cosmos_predict25.devtools.environment import REPO

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a copy of the repository was installed, without its dependencies."""
    source, target = tmp_path_factory.mktemp("source") / "pack", tmp_path_factory.mktemp("installed")
    # A build leaves files beside what it builds.
    shutil.copytree(REPO, source, ignore=shutil.ignore_patterns(".demo", ".git", "build", "*.egg-info"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target / "cosmos_predict25"


def files(root: Path, *folders: str) -> set[str]:
    """Paths below `folders` of `root`, relative to it, but for what Python compiles."""
    found = (path for folder in folders for path in (root / folder).rglob("*"))
    return {str(path.relative_to(root)) for path in found if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_has_the_code_the_demo_checkpoint_the_help_pages_the_languages_and_the_workflows(
    installed: Path,
) -> None:
    folders = ("nodes", "pipeline", "web", "workflows", "subgraphs", "demo/moving-shapes", "demo/loras")
    languages = [f"locales/{path.name}" for path in (REPO / "locales").iterdir() if path.is_dir()]
    assert files(installed, *folders, "locales") == files(REPO, *folders, *languages)
    assert {path.name for path in installed.iterdir() if path.is_file()} == {
        "__init__.py",
        "__main__.py",
        "batch.py",
        "fal.py",
        "requirements.txt",
    }


def needed(installed: Path, extra: str) -> set[str]:
    """The requirements of an install with this extra, as pip reads them."""
    (folder,) = installed.parent.glob("cosmos_predict25-*.dist-info")
    needs = map(Requirement, metadata.PathDistribution(folder).requires or ())
    return {
        f"{need.name}{need.specifier}" for need in needs if not need.marker or need.marker.evaluate({"extra": extra})
    }


def test_an_install_for_fal_alone_brings_no_torch_no_diffusers_and_no_comfyui(installed: Path) -> None:
    assert {Requirement(need).name for need in needed(installed, "")} == {"anyio", "filelock", "httpx"}
    local = {Requirement(need).name for need in needed(installed, "local") - needed(installed, "")}
    assert local == {"av", "diffusers", "pillow", "safetensors", "torch", "torchvision", "tqdm", "transformers"}


def test_an_install_for_comfyui_is_what_its_manager_installs(installed: Path) -> None:
    lines = [line for line in (REPO / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert needed(installed, "comfyui") == {f"{need.name}{need.specifier}" for need in map(Requirement, lines)}


def test_the_readmes_program_makes_a_video_from_anywhere(installed: Path, tmp_path: Path) -> None:
    program, longer, *_ = re.findall(
        r"```python\n(from cosmos_predict25.*?)```", (REPO / "docs" / "python.md").read_text(), re.DOTALL
    )
    assert len([line for line in program.splitlines() if line]) <= 6
    where = "import cosmos_predict25\nprint(cosmos_predict25.__file__)\n"
    environ = {**os.environ, "PYTHONPATH": str(installed.parent)}
    longer = f"picture, clip = video.frames[0], video.frames\n{longer}print(len(longer.frames))\n"
    command = [sys.executable, "-c", where + program + longer]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(installed / "__init__.py"), str(17 + 40)]  # 25 frames at 24 are 17 at 16
    with av.open(str(tmp_path / "ball.mp4")) as container:
        assert len(list(container.decode(video=0))) == 25


def test_one_command_has_the_batch_and_the_jobs_on_fal(installed: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(installed.parent)}
    folders = [f"--{name}={tmp_path}" for name in ("records", "videos")]
    (script,) = (installed.parent / "bin").iterdir()
    assert script.name == "cosmos-predict25"
    for start in ([str(script)], ["-m", "cosmos_predict25"]):
        for arguments, code, says in (
            (["batch", "nowhere.jsonl", "out"], 2, "nowhere.jsonl cannot be read"),
            (["fal", "jobs", *folders], 0, ""),
            (["help"], 1, "batch|fal"),
        ):
            command = [sys.executable, *start, *arguments]
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
            assert done.returncode == code
            assert says in done.stderr
