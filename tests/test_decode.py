"""Decoding in tiles against decoding whole, on a clip with texture and motion."""

import pytest
import torch

from cosmos_predict25.benchmarks.clip import moving_clip
from cosmos_predict25.benchmarks.metrics import psnr
from cosmos_predict25.pipeline.local.decode import decode, whole
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER

FRAMES, HEIGHT, WIDTH = 5, 128, 256
GRIDS = [(1, 2), (2, 3)]


def ignore(tile: int, tiles: int, done: int) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def vae():
    """Trained, so that its frames look like what was encoded."""
    return load_pipeline_folder(DEMO_FOLDER, torch.float32).vae


@pytest.fixture(scope="module")
def latents(vae):
    clip = moving_clip(FRAMES, HEIGHT, WIDTH).permute(3, 0, 1, 2)[None] * 2 - 1
    with torch.inference_mode():
        return vae.encode(clip).latent_dist.mode()


@pytest.fixture(scope="module")
def expected(vae, latents):
    return decode(vae, latents, FRAMES, (1, 1), ignore)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_tiles_are_the_whole_picture(vae, latents, expected, grid):
    frames = decode(vae, latents, FRAMES, grid, ignore)
    similarity = psnr(frames, expected)
    print(f"\n{similarity:.1f} dB, at most {255 * (frames - expected).abs().max():.1f} levels", end="")
    assert similarity >= 45


def test_a_cut_without_blending_would_be_seen(vae, latents, expected, monkeypatch):
    """The measure can fail: without the overlap's ramps a pixel there is counted twice."""
    monkeypatch.setattr("cosmos_predict25.pipeline.local.decode.OVERLAP", 1)
    assert psnr(decode(vae, latents, FRAMES, (2, 2), ignore), expected) < 45


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]}x{grid[1]}")
def test_the_weights_of_all_tiles_add_up_to_1(latents, grid):
    total = torch.zeros(HEIGHT, WIDTH, 1)
    for tile in whole(latents).split(grid):
        for part in tile.split((2, 2)):
            rows, columns = part.pixels()
            total[rows, columns] += part.weights
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


def test_frames_are_reported_tile_by_tile(vae, latents):
    reports = []
    decode(vae, latents, 4, (1, 2), lambda *numbers: reports.append(numbers))
    assert reports == [(tile, 2, done) for tile in (1, 2) for done in (1, 4)]


def test_finer_and_finer_tiles_until_memory_suffices(vae, latents, expected):
    """As on a GPU that holds no tile wider than 20 latents."""

    def run_out(module, inputs):
        if inputs[0].shape[-1] > 20:
            raise torch.OutOfMemoryError

    hook = vae.decoder.up_blocks[0].register_forward_pre_hook(run_out)
    try:
        frames = decode(vae, latents, FRAMES, (1, 1), ignore)
    finally:
        hook.remove()
    assert psnr(frames, expected) >= 40


def test_where_no_tile_is_small_enough_the_error_passes_through(vae, latents):
    def run_out(module, inputs):
        raise torch.OutOfMemoryError

    hook = vae.decoder.up_blocks[0].register_forward_pre_hook(run_out)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            decode(vae, latents, FRAMES, (1, 1), ignore)
    finally:
        hook.remove()
