"""What the pack brings along when ComfyUI starts."""

import pytest

from cosmos_predict25.benchmarks.start import load_in_a_fresh_process


@pytest.mark.comfyui
def test_neither_diffusers_nor_transformers_is_imported_by_the_pack():
    start = load_in_a_fresh_process()
    assert start["loaded"]
    brought = {name.split(".")[0] for name in start["modules"]}
    assert not brought & {"diffusers", "transformers", "accelerate", "httpx", "av", "torch"}
    assert "diffusers" not in start["all"]
