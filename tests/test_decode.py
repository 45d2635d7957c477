"""Decoding in tiles against decoding whole, on a clip with texture and motion."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from cosmos_predict25.devtools.clip import moving_clip
from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.pipeline.local import tiles
from cosmos_predict25.pipeline.local.causal import fast_on_cpu
from cosmos_predict25.pipeline.local.condition import encode_frames
from cosmos_predict25.pipeline.local.decode import decode
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.tiles import ramp, whole

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


@pytest.fixture(scope="module")
def wide_vae():
    """Of random weights, as wide as PyTorch wants it for oneDNN's convolutions in a picture 256 high."""
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=32, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval().requires_grad_(False)


@pytest.mark.parametrize("grid", [(1, 1), (2, 1)], ids=["whole", "in tiles"])
def test_on_a_cpu_a_picture_goes_with_its_channels_last(wide_vae, grid):
    orders, convolution = [], wide_vae.decoder.up_blocks[-1].resnets[-1].conv2
    hook = convolution.register_forward_hook(lambda _, inputs, out: orders.append((inputs[0].stride(), out.stride())))
    weight = convolution.weight.data_ptr()
    decode(wide_vae, torch.randn(1, 16, 1, 64, 8), 1, grid, ignore)
    hook.remove()
    assert len(orders) == grid[0]
    assert all(stride[1] == 1 for pair in orders for stride in pair)
    assert convolution.weight.data_ptr() == weight


def test_the_frames_are_still_those_of_diffusers(wide_vae):
    latents = torch.randn(1, 16, 2, 32, 8, generator=torch.Generator().manual_seed(1))
    frames = decode(wide_vae, latents, FRAMES, (1, 1), ignore)
    with torch.inference_mode():
        stock = (wide_vae.decode(latents).sample[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
    difference = (frames - stock).abs().max().item()
    print(f"\nlargest difference {difference:.1e} of {stock.std():.2f}", end="")
    assert difference <= 1e-5


def test_the_latents_of_a_start_are_still_those_of_diffusers(wide_vae):
    clip = moving_clip(FRAMES, 256, 64)
    with torch.inference_mode():
        expected = normalize(wide_vae, wide_vae.encode(clip.permute(3, 0, 1, 2)[None] * 2 - 1).latent_dist.mode())
    orders, convolution = [], wide_vae.encoder.down_blocks[0].conv2
    hook = convolution.register_forward_hook(lambda _, inputs, out: orders.append(out.stride()[1]))
    latents = encode_frames(wide_vae, clip)
    hook.remove()
    assert set(orders) == {1}
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


def state_of(module) -> list:
    """Which object is each layer's attribute or parameter."""
    return [{name: id(value) for name, value in {**vars(layer), **layer._parameters}.items()}
            for layer in module.modules()]  # fmt: skip


def test_elsewhere_and_afterwards_all_is_as_it_was(wide_vae):
    """Other devices and types were not measured."""
    before = state_of(wide_vae)
    with fast_on_cpu(wide_vae, torch.device("meta")):
        assert state_of(wide_vae) == before
    with fast_on_cpu(wide_vae, torch.device("cpu")):
        assert state_of(wide_vae) != before
    assert state_of(wide_vae) == before
    half = AutoencoderKLWan(base_dim=8).bfloat16()
    orders = [parameter.stride() for parameter in half.parameters()]
    with fast_on_cpu(half, torch.device("cpu")):
        assert [parameter.stride() for parameter in half.parameters()] == orders
        assert not any("forward" in vars(layer) for layer in half.modules())


def test_a_decoding_that_is_stopped_leaves_all_as_it_was(wide_vae):
    before = state_of(wide_vae)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(wide_vae, torch.randn(1, 16, 1, 8, 8), 1, (1, 1), stop)
    assert state_of(wide_vae) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid", [GRIDS[0], pytest.param(GRIDS[1], marks=pytest.mark.slow)], ids=lambda grid: f"{grid[0]}x{grid[1]}"
)
def test_tiles_are_the_whole_picture(vae, latents, expected, grid):
    frames = decode(vae, latents, FRAMES, grid, ignore)
    similarity = psnr(frames, expected)
    print(f"\n{similarity:.1f} dB, at most {255 * (frames - expected).abs().max():.1f} levels", end="")
    assert similarity >= 45


def test_a_cut_without_blending_would_be_seen(vae, latents, expected, monkeypatch):
    """The measure can fail: without the overlap's ramps a pixel there is counted twice."""
    monkeypatch.setattr(tiles, "ramp", lambda: ramp()[:8])
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


OUT_OF_MEMORY = {
    "CUDA's allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CUDA's driver": getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory"),
    "Apple": RuntimeError("MPS backend out of memory (MPS allocated: 17.95 GB, max allowed: 18.13 GB)."),
    "DirectML": RuntimeError("Could not allocate tensor with 8 bytes. There is not enough GPU video memory available!"),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_finer_and_finer_tiles_until_memory_suffices(vae, latents, expected, name):
    """As on a device that holds no tile wider than 20 latents."""

    def run_out(module, inputs):
        if inputs[0].shape[-1] > 20:
            raise OUT_OF_MEMORY[name]

    hook = vae.decoder.up_blocks[0].register_forward_pre_hook(run_out)
    try:
        frames = decode(vae, latents, FRAMES, (1, 1), ignore)
    finally:
        hook.remove()
    assert psnr(frames, expected) >= 40


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_comfyui_or_the_pipeline_knows_that_memory_did_not_suffice(core, name):
    from cosmos_predict25.nodes.host.memory import HostedModel

    hosted = object.__new__(HostedModel)
    assert hosted.ran_out(OUT_OF_MEMORY[name])
    assert not hosted.ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_comfyui_is_asked_first_as_it_clears_the_error(core, monkeypatch):
    from comfy import model_management

    from cosmos_predict25.nodes.host.memory import HostedModel

    asked = []
    monkeypatch.setattr(model_management, "is_oom", lambda error: asked.append(error) or True)
    error = RuntimeError("a word that only ComfyUI knows")
    assert object.__new__(HostedModel).ran_out(error)
    assert asked == [error]
    monkeypatch.delattr(model_management, "is_oom")
    assert not object.__new__(HostedModel).ran_out(error)


def test_another_error_is_no_lack_of_memory(vae, latents):
    calls = []

    def fail(module, inputs):
        calls.append(inputs)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    hook = vae.decoder.up_blocks[0].register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="mat1"):
            decode(vae, latents, FRAMES, (1, 1), ignore)
    finally:
        hook.remove()
    assert len(calls) == 1


def test_where_no_tile_is_small_enough_the_error_passes_through(vae, latents):
    def run_out(module, inputs):
        raise torch.OutOfMemoryError

    hook = vae.decoder.up_blocks[0].register_forward_pre_hook(run_out)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            decode(vae, latents, FRAMES, (1, 1), ignore)
    finally:
        hook.remove()
