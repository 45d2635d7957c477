"""A picture or a clip to start from: which of its frames, their crop, their latents, a video that begins with them."""

import math
import random
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.devtools.toy.world import SIDE, random_scene, render
from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.local.condition import encode_frames
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.unfinished import UnfinishedVideo
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.pipeline.start import Start, fit


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_pipeline_folder(checkpoint)


def request(**fields) -> GenerationRequest:
    small = {"num_frames": 9, "num_inference_steps": 2, "width": 48, "height": 32, "seed": 3}
    return GenerationRequest(prompt="a cat", **{**small, **fields})


def clock(frames: int) -> Tensor:
    """Each frame has its number as its level."""
    return torch.arange(frames, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 4, 4, 3) / 1000


def moving(frames: int, height: int = 32, width: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, frames, 4, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear")
    return smooth[0].permute(1, 2, 3, 0).contiguous()


@pytest.mark.parametrize(
    ("rate", "frames", "expected"),
    [
        (16, 20, [15, 16, 17, 18, 19]),
        (24, 20, [13, 15, 16, 18, 19]),
        (30, 20, [12, 13, 15, 17, 19]),
        (60, 40, [24, 28, 32, 35, 39]),
        (8, 20, [17, 18, 18, 19, 19]),
        (Fraction(24000, 1001), 20, [13, 15, 16, 18, 19]),
        (16, 5, [0, 1, 2, 3, 4]),
        (16, 4, [3]),
        (60, 5, [4]),
        (16, 1, [0]),
    ],
    ids=str,
)
def test_the_model_is_given_the_last_five_moments_a_sixteenth_apart(rate, frames, expected):
    start = Start(clock(frames), rate)
    levels = start.conditioning_frames(4, 4)[:, 0, 0, 0] * 1000
    assert levels.round().int().tolist() == expected
    # None is farther than half a frame from its moment.
    wanted = [frames - 1 - back * float(rate) / 16 for back in reversed(range(len(expected)))]
    assert max(abs(a - b) for a, b in zip(expected, wanted, strict=True)) <= 0.5
    assert start.is_short() == (frames > 1 and len(expected) == 1)


def picture_of_a_circle(width: int, height: int) -> Tensor:
    """White, as large as fits, on black."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (0.2 * min(width, height)) ** 2
    return inside.float()[..., None].repeat(1, 1, 3)


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (128, 128), (333, 101), (77, 500)], ids=str)
@pytest.mark.parametrize("target", [(160, 96), (64, 64), (64, 128)], ids=str)
def test_a_circle_stays_round_and_in_the_middle(size, target):
    fitted = fit(picture_of_a_circle(*size), *target)
    assert fitted.shape == (target[1], target[0], 3)
    rows, columns = fitted[..., 0].sum(0), fitted[..., 0].sum(1)
    scale = max(target[0] / size[0], target[1] / size[1])
    across = 2 * 0.2 * min(size) * scale
    for profile, length in ((columns, target[1]), (rows, target[0])):
        middle = (profile * (torch.arange(length) + 0.5)).sum() / profile.sum()
        assert abs(middle - length / 2) <= 0.6
        assert profile.max().item() == pytest.approx(across, abs=max(1.5, 0.06 * across))


def test_a_picture_of_the_videos_size_is_not_touched():
    picture = torch.rand(32, 48, 3)
    assert fit(picture, 48, 32).equal(picture)
    levels = torch.randint(0, 256, (32, 48, 3), dtype=torch.uint8)
    assert fit(levels, 48, 32).mul(255).round().to(torch.uint8).equal(levels)


def test_scaling_is_that_of_torch_where_the_proportions_are_the_same():
    picture = torch.rand(96, 144, 3)
    expected = torch.nn.functional.interpolate(
        picture.permute(2, 0, 1)[None], (32, 48), mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    torch.testing.assert_close(fit(picture, 48, 32), expected, rtol=0, atol=1e-5)


def test_gray_and_transparent_pictures():
    gray = torch.rand(32, 48, 1)
    assert fit(gray, 48, 32).equal(gray.expand(-1, -1, 3))
    clear = torch.cat([torch.ones(32, 48, 3), torch.linspace(0, 1, 48).expand(32, 48)[..., None]], dim=2)
    assert fit(clear, 48, 32)[5, :, 1].equal(torch.linspace(0, 1, 48))


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 100_000), (100_000, 1), (3, 2), (7680, 4320)], ids=lambda size: "x".join(map(str, size))
)
def test_a_picture_of_any_size_gives_a_frame(size):
    fitted = fit(torch.full((size[1], size[0], 3), 0.25), 1280, 704)
    torch.testing.assert_close(fitted, torch.full((704, 1280, 3), 0.25))


def test_what_is_not_a_number_is_black_and_what_is_out_of_range_is_clipped():
    pixels = torch.tensor([math.nan, 2.0, -1.0]).expand(1, 4, 4, 3)
    assert Start(pixels).conditioning_frames(8, 8)[0, 3, 3].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("frames", "rate", "says"),
    [
        (torch.zeros(32, 48, 3), 16, "is (32, 48, 3), but must be (frames, height, width, channels)"),
        (torch.zeros(1, 32, 48, 2), 16, "is (1, 32, 48, 2), but must be"),
        (torch.zeros(0, 32, 48, 3), 16, "is (0, 32, 48, 3), but must be"),
        (torch.zeros(1, 32, 48, 3, dtype=torch.int64), 16, "is torch.int64, but must be floats in 0..1 or uint8"),
        (torch.zeros(1, 32, 48, 3), 0, "frame_rate is 0, but must be a number above 0"),
        (torch.zeros(1, 32, 48, 3), math.nan, "frame_rate is nan, but must be a number above 0"),
    ],
    ids=["3-D", "2 channels", "no frames", "integers", "rate 0", "rate nan"],
)
def test_what_nothing_can_start_from_is_refused(frames, rate, says):
    with pytest.raises(InvalidRequestError) as refused:
        Start(frames, rate)
    assert says in str(refused.value)


@pytest.mark.parametrize("count", [1, 5, 9])
def test_encoding_some_frames_gives_the_first_latents_of_all(model, count):
    frames = moving(17)
    video = frames.permute(3, 0, 1, 2)[None] * 2 - 1
    with torch.no_grad():
        whole = normalize(model.vae, model.vae.encode(video).latent_dist.mode())
    latents = encode_frames(model.vae, frames[:count])
    torch.testing.assert_close(latents, whole[:, :, : (count - 1) // 4 + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", [1, 5])
def test_the_video_begins_with_its_start(given):
    """As the demo's VAE copies it, with the trace of noise that the solver leaves."""
    model, clip = load_pipeline_folder(DEMO_FOLDER), demo_clip()
    start = Start(clip[:given])
    video = generate(model, request(width=SIDE, height=SIDE, num_frames=25, guidance_scale=1), start=start)
    frames = start.conditioning_frames(SIDE, SIDE)
    known = encode_frames(model.vae, frames)
    latents = normalize(model.vae, video.latents)[:, :, : known.shape[2]]
    assert (latents - known).abs().max() <= 0.005 * (4.5 + known.abs().max())
    assert psnr(video.frames[:given], frames) >= 28
    assert psnr(video.frames[:given], frames.flip(2)) <= 20


def demo_clip() -> Tensor:
    """A clip of the demo's world, uint8."""
    return render(random_scene(random.Random(1), held_out=True), random.Random(1))


def test_a_start_is_encoded_once_and_counts_as_one_unit(model):
    reports = []

    class Recorder:
        def progress(self, message, done, total, latents=None):
            reports.append((message, done, total))

        def raise_if_stopped(self):
            pass

    generate(model, request(), start=Start(moving(5)), observer=Recorder())
    total = 2 + 2 + 3
    assert reports[1:5] == [
        ("Encoding the prompt", 1, total),
        ("Encoding the start", 1, total),
        ("Encoding the start", 2, total),
        ("Denoising", 2, total),
    ]
    assert reports[-1] == ("Decoding, frame 9 of 9", total, total)


def test_latents_that_could_not_be_decoded_belong_to_their_start(model):
    unfinished, first, other = UnfinishedVideo(), Start(moving(5)), Start(moving(5).flip(2))

    def fail(*_):
        raise torch.OutOfMemoryError

    def after_a_failure(start: Start) -> tuple[Tensor, int]:
        """The video from `start`, after that from `first` could not be decoded, and the passes that it took."""
        failing, passes = model.vae.decoder.up_blocks[0].register_forward_pre_hook(fail), []
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError):
                generate(model, request(), start=first, unfinished=unfinished)
        failing.remove()
        counting = model.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
        video = generate(model, request(), start=start, unfinished=unfinished)
        counting.remove()
        return video.frames, len(passes)

    again, passes = after_a_failure(Start(moving(5)))
    assert passes == 0
    fresh, passes = after_a_failure(other)
    assert passes == 4
    assert (again - fresh).abs().max() > 1e-3
