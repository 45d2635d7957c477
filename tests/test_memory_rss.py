"""The CPU's memory: run after run, and while weights are streamed from disk."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER


def measure(*arguments: Path | str) -> dict[str, int]:
    worker = Path(__file__).with_name("rss_worker.py")
    command = [sys.executable, str(worker), *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads(output.splitlines()[-1])
    print(f"\n{ {name: f'{size / 2**20:.0f} MiB' for name, size in figures.items()} }", end="")
    return figures


@pytest.mark.slow
def test_five_runs_of_two_checkpoints_in_turn_leave_memory_where_the_first_left_it(checkpoint):
    figures = measure("runs", DEMO_FOLDER, checkpoint)
    assert figures["last"] <= 1.03 * figures["first"]


@pytest.mark.exhaustive
def test_a_streamed_text_encoder_of_the_real_width_is_not_copied(tmp_path):
    """Its pages of the file count once, and only the rows of the embeddings that are looked up."""
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    figures = measure("encode", folder)
    shutil.rmtree(folder)
    assert figures["weights"] > 0.45e9
    assert figures["above"] <= 0.8e9
