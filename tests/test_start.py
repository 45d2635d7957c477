"""What the pack brings along when ComfyUI starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_predict25.devtools.environment import REPO


@pytest.mark.exhaustive
@pytest.mark.comfyui
def test_neither_diffusers_nor_transformers_is_imported_by_the_pack(tmp_path: Path):
    command = [sys.executable, str(REPO / "benchmarks" / "start.py"), "--load", str(tmp_path)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    start = json.loads(printed.splitlines()[-1])
    assert start["loaded"]
    brought = {name.split(".")[0] for name in start["modules"]}
    assert not brought & {"diffusers", "transformers", "accelerate", "httpx", "av", "torch"}
    assert "diffusers" not in start["all"]
