"""Ours against diffusers' `Cosmos2_5_PredictBasePipeline` on the same components, read from the same files."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from cosmos_predict25.devtools.stock import load_stock
from cosmos_predict25.pipeline.local.condition import encode_frames
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.denoise import denoise, no_conditioning_latents
from cosmos_predict25.pipeline.local.encode import encode_prompt, layer_features, tokenize
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.latents import denormalize, initial_noise, latent_frames
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.schedule import UniPC, standard_sigmas
from cosmos_predict25.pipeline.local.variant import KARRAS_CONFIG
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, GenerationRequest
from cosmos_predict25.pipeline.start import Start

DTYPES = [torch.float32, torch.bfloat16]
LONG_PROMPT = "a red stone rolls down a hill, " * 40
SIZE = {"height": 48, "width": 64}


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(scope="module")
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def ours(checkpoint: Path, dtype, device):
    model = load_pipeline_folder(checkpoint, dtype)
    for module in (model.text_encoder, model.transformer, model.vae):
        module.to(device)
    return model


@pytest.fixture(scope="module")
def stock(checkpoint: Path, dtype, device):
    return load_stock(checkpoint, dtype).to(device)


@pytest.fixture(scope="module")
def exact(checkpoint: Path, device):
    return load_stock(checkpoint, torch.float32).to(device)


def run_stock(stock, **options) -> tuple[list[Tensor], Tensor, Tensor]:
    """The stock pipeline's latents after every step, the sigmas it used, and its frames (F, H, W, 3) in 0..1."""
    steps = []

    def remember(pipeline, index, timestep, tensors):
        steps.append(tensors["latents"].clone())
        return {}

    frames = stock(
        negative_prompt="ugly",
        generator=torch.Generator().manual_seed(7),
        output_type="np",
        callback_on_step_end=remember,
        **SIZE,
        **options,
    ).frames[0]
    return steps, stock.scheduler.sigmas.clone(), torch.from_numpy(frames)


def run_ours(
    ours,
    device,
    prompt: str,
    num_frames: int,
    num_inference_steps: int,
    guidance_scale: float,
    given: Tensor | None = None,
):
    """`given`: the frames that the video starts from."""
    solver = UniPC(ours.scheduler_config, standard_sigmas(ours.scheduler_config, num_inference_steps))
    positive = encode_prompt(ours.text_encoder, ours.tokenizer, prompt, device)
    negative = encode_prompt(ours.text_encoder, ours.tokenizer, "ugly", device) if guidance_scale > 1 else None
    noise = initial_noise(7, num_frames, device=device, **SIZE)
    known = no_conditioning_latents(noise) if given is None else encode_frames(ours.vae, given, device)
    guided = (positive, negative, guidance_scale, known)
    steps = [step.latents for step in denoise(ours.transformer, noise, solver, *guided)]
    frames = torch.cat(list(decode_chunks(ours.vae, denormalize(ours.vae, steps[-1]))))
    return steps, solver.sigmas, frames[:num_frames].cpu()


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a.float() - b.float()).abs().max().item()


def rms_differences(run, reference) -> list[float]:
    """How far two runs are apart: the latents of each step, then the frames."""
    pairs = [*zip(run[0], reference[0], strict=True), (run[2], reference[2][: len(run[2])])]
    return [(a.float() - b.float()).square().mean().sqrt().item() for a, b in pairs]


def uint8(frames: Tensor) -> Tensor:
    return (frames * 255).round()


@pytest.mark.parametrize("prompt", ["", "a cat", LONG_PROMPT], ids=["empty", "short", "over 512 tokens"])
def test_prompt_embeddings_are_those_of_diffusers(stock, ours, device, dtype, prompt):
    token_ids = tokenize(ours.tokenizer, prompt)
    assert token_ids.shape == (1, 512)
    token_embeds = torch.nn.functional.embedding(token_ids, ours.text_encoder.token_embeddings).to(device)
    features = layer_features(ours.text_encoder.language_model, token_embeds)
    with torch.no_grad():
        expected = stock._get_prompt_embeds(prompt, device=device)
        projected = stock.transformer.crossattn_proj(expected)
    assert largest_difference(features, expected) <= (1e-5 if dtype == torch.float32 else 0.05)
    embeds = encode_prompt(ours.text_encoder, ours.tokenizer, prompt, device)
    assert embeds.shape == (1, 512, 64)
    assert embeds.dtype == dtype
    assert largest_difference(embeds, projected) <= (1e-5 if dtype == torch.float32 else 0.05)


CASES = [
    # dtype, prompt, frames asked of stock, frames asked of ours, steps, guidance
    (torch.float32, "a cat", 1, 1, 5, 7.0),
    (torch.float32, "a cat", 9, 9, 12, 7.0),
    (torch.float32, "a cat", 13, 10, 5, 3.0),
    (torch.float32, "a cat", 33, 33, 5, 1.0),
    (torch.float32, "a cat", 93, 93, 1, 7.0),
    (torch.float32, "", 9, 9, 5, 7.0),
    (torch.float32, LONG_PROMPT, 9, 9, 5, 7.0),
    (torch.bfloat16, "a cat", 9, 9, 12, 7.0),
    (torch.bfloat16, "a cat", 33, 33, 5, 1.0),
    (torch.bfloat16, LONG_PROMPT, 9, 9, 5, 7.0),
]


def marked(case):
    """In bfloat16 a video takes half a minute on a CPU without instructions for it."""
    dtype, *_, frames, steps, _ = case
    in_bfloat16 = dtype == torch.bfloat16
    if frames == 93 or (in_bfloat16 and (frames, steps) != (9, 12)):
        return pytest.param(*case, marks=pytest.mark.exhaustive)
    return pytest.param(*case, marks=pytest.mark.slow if in_bfloat16 else ())


@pytest.mark.quick(4)
@pytest.mark.parametrize(
    ("dtype", "prompt", "stock_frames", "num_frames", "steps", "guidance"),
    [marked(case) for case in CASES],
    ids=[
        f"{dtype}-{len(prompt)} chars-{ours} frames-{steps} steps-g{guidance:g}"
        for dtype, prompt, _, ours, steps, guidance in CASES
    ],
    indirect=["dtype"],
)
def test_every_step_and_frame_is_that_of_diffusers(
    stock, exact, ours, device, dtype, prompt, stock_frames, num_frames, steps, guidance
):
    """diffusers repeats frames when a count is not 4k+1; there it is asked for the next 4k+1 and cut like ours.

    float32 agrees to 1e-4. In bfloat16 a one-row product is rounded another way than the stock pipeline's product of
    equal rows, so there the yardstick is float32: ours may be no farther from it than stock's bfloat16 is.
    """
    options = {
        "prompt": prompt, "num_frames": stock_frames, "num_inference_steps": steps, "guidance_scale": guidance,
    }  # fmt: skip
    theirs = run_stock(stock, **options)
    mine = run_ours(ours, device, prompt, num_frames, steps, guidance)
    assert mine[0][-1].shape[2] == latent_frames(num_frames) == (stock_frames - 1) // 4 + 1
    assert_same_run(mine, theirs, num_frames, steps, dtype, lambda: run_stock(exact, **options))


def assert_same_run(mine, theirs, num_frames: int, steps: int, dtype: torch.dtype, in_float32) -> None:
    assert len(mine[0]) == len(theirs[0]) == steps
    torch.testing.assert_close(mine[1], theirs[1], rtol=0, atol=1e-6)
    differences = [largest_difference(a, b) for a, b in zip(mine[0], theirs[0], strict=True)]
    levels = largest_difference(uint8(mine[2]), uint8(theirs[2][:num_frames]))
    assert mine[2].shape == (num_frames, SIZE["height"], SIZE["width"], 3)
    print(f"\nlatents differ by {max(differences):.2e}, frames by {levels:g} levels of 255", end="")
    if dtype == torch.float32:
        assert max(differences) <= 1e-4
        assert levels <= 1
    else:
        reference = in_float32()
        errors = [rms_differences(run, reference) for run in (mine, theirs)]
        print(f"; from float32 ours is {errors[0][-2]:.2e} and stock {errors[1][-2]:.2e} (rms)", end="")
        assert all(ours <= 1.1 * stocks for ours, stocks in zip(*errors, strict=True))


def clip(count: int) -> list[Image.Image]:
    """A pattern that moves, in the size of the video: diffusers stretches others."""
    y, x = numpy.mgrid[: SIZE["height"], : SIZE["width"]]
    return [
        Image.fromarray(numpy.stack([3 * x + 9 * i, 4 * y + 5 * i, x + y + 20 * i], axis=2).astype(numpy.uint8))
        for i in range(count)
    ]


STARTS = [
    # what stock is given, frames of it, frames to make, steps, guidance
    ("image", 1, 9, 12, 7.0),
    ("image", 1, 17, 1, 1.0),
    ("video", 9, 33, 1, 7.0),
    ("video", 7, 9, 10, 3.0),
]


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("dtype", "kind", "count", "num_frames", "steps", "guidance"),
    [marked((dtype, *start)) for dtype in DTYPES for start in STARTS],
    ids=[
        f"{dtype}-{count} frames-{frames} frames-{steps} steps-g{guidance:g}"
        for dtype in DTYPES
        for _, count, frames, steps, guidance in STARTS
    ],
    indirect=["dtype"],
)
def test_every_step_and_frame_from_a_start_is_that_of_diffusers(
    stock, exact, ours, device, dtype, kind, count, num_frames, steps, guidance
):
    """A picture, and a clip, of which the last five frames count."""
    pictures = clip(count)
    options = {
        "prompt": "a cat", "num_frames": num_frames, "num_inference_steps": steps, "guidance_scale": guidance,
        kind: pictures[0] if kind == "image" else pictures,
    }  # fmt: skip
    theirs = run_stock(stock, **options)
    start = Start(torch.from_numpy(numpy.stack(pictures)))
    given = start.conditioning_frames(**SIZE)
    mine = run_ours(ours, device, "a cat", num_frames, steps, guidance, given)
    assert_same_run(mine, theirs, num_frames, steps, dtype, lambda: run_stock(exact, **options))


@pytest.mark.exhaustive
def test_the_demo_checkpoint_makes_the_same_video():
    """Weights that were trained, at the defaults, from the prompt's text to the frames."""
    request = GenerationRequest(prompt="A red circle moves left.", width=64, height=64, num_frames=25, seed=7)
    mine = generate(load_pipeline_folder(DEMO_FOLDER, torch.float32), request).frames
    theirs = load_stock(DEMO_FOLDER, torch.float32)(
        prompt=request.prompt,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).frames[0]
    levels = largest_difference(uint8(mine), uint8(torch.from_numpy(theirs)))
    print(f"\nframes differ by {levels:g} levels of 255", end="")
    assert levels <= 1


@pytest.mark.sample(5)
@pytest.mark.parametrize("num_frames", [1, 9, 33])
def test_frames_of_the_same_latents_are_those_of_diffusers(stock, ours, device, dtype, num_frames):
    latents = initial_noise(3, num_frames, device=device, **SIZE)
    with torch.no_grad():
        video = stock.vae.decode(denormalize(ours.vae, latents).to(dtype), return_dict=False)[0]
    expected = torch.from_numpy(stock.video_processor.postprocess_video(video, output_type="np")[0])
    frames = torch.cat(list(decode_chunks(ours.vae, denormalize(ours.vae, latents)))).cpu()
    levels = largest_difference(uint8(frames), uint8(expected))
    print(f"\nframes differ by {levels:g} levels of 255", end="")
    assert levels <= 1


def test_the_schedule_is_the_models(ours):
    """Karras from 200 to 0.01 with rho 7, as flow sigmas. Source: Karras et al. 2022, equation 5."""
    made = standard_sigmas(ours.scheduler_config, 35)
    ramp = torch.linspace(0, 1, 35, dtype=torch.float64)
    sigmas = (200 ** (1 / 7) + ramp * (0.01 ** (1 / 7) - 200 ** (1 / 7))) ** 7
    torch.testing.assert_close(made[:-1].double(), sigmas / (1 + sigmas), rtol=0, atol=1e-6)
    assert made[-1] == 0


def test_the_default_negative_prompt_is_diffusers():
    from diffusers.pipelines.cosmos import pipeline_cosmos2_5_predict

    assert pipeline_cosmos2_5_predict.DEFAULT_NEGATIVE_PROMPT == DEFAULT_NEGATIVE_PROMPT


def test_single_files_and_folder_share_the_schedule(ours):
    for steps in (1, 5, 50):
        sigmas = [standard_sigmas(config, steps) for config in (KARRAS_CONFIG, ours.scheduler_config)]
        torch.testing.assert_close(*sigmas, rtol=0, atol=1e-6)
