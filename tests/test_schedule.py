"""The schedules: their sigmas, NVIDIA's form of the distilled one, and what each makes of a request."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from cosmos_predict25.pipeline.local.condition import encode_frames
from cosmos_predict25.pipeline.local.denoise import condition_mask, denoise, no_conditioning_latents, predict_velocity
from cosmos_predict25.pipeline.local.extend import extend
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.schedule import (
    Renoising,
    UniPC,
    distilled_sigmas,
    few_steps_sigmas,
    make_solver,
    standard_sigmas,
)
from cosmos_predict25.pipeline.local.variant import DFD, DISTILLED, KARRAS_CONFIG, OTHERS, POST_TRAINED, VARIANTS
from cosmos_predict25.pipeline.request import SCHEDULES, GenerationRequest
from cosmos_predict25.pipeline.start import Start

NOISE = torch.randn(1, 16, 3, 8, 6, generator=torch.Generator().manual_seed(1))
EMBEDS = torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(2))
ANGLES = [math.pi / 2, math.atan(15), math.atan(5), math.atan(5 / 3)]


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_pipeline_folder(checkpoint)


def trigflow(transformer, angles: list[float]) -> list[Tensor]:
    """NVIDIA's way: x = cos(t) x0 + sin(t) noise, in float64 around the network. The guess of x0 in each step.

    Source: `generate_samples_from_batch` and `RectifiedFlow_TrigFlowScaling` of cosmos-predict2.5.
    """
    noise = NOISE.double()
    x, guesses = noise, []
    for angle, following in zip(angles, [*angles[1:], 0.0], strict=True):
        scale = 1 / (math.cos(angle) + math.sin(angle))
        timestep = torch.tensor([math.sin(angle) * scale], dtype=torch.float32)
        velocity = predict_velocity(transformer, (x * scale).float(), timestep, EMBEDS, condition_mask(NOISE))
        guesses.append(scale * x - math.sin(angle) * scale * velocity.double())
        x = math.cos(following) * guesses[-1] + math.sin(following) * noise
    return guesses


def run(transformer, steps: int) -> list:
    solver = make_solver("distilled", KARRAS_CONFIG, standard_sigmas(KARRAS_CONFIG, steps), NOISE)
    return list(denoise(transformer, NOISE, solver, EMBEDS, None, 1.0, no_conditioning_latents(NOISE)))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_distilled_is_nvidias_trigflow(model, steps):
    expected = trigflow(model.transformer, ANGLES[:steps])
    made = run(model.transformer, steps)
    differences = [(a.denoised - b).abs().max().item() for a, b in zip(made, expected, strict=True)]
    print(f"\nlargest difference {max(differences):.1e} of {expected[-1].abs().max():.1f}", end="")
    assert max(differences) <= 1e-6 * expected[-1].abs().max()
    assert made[-1].latents.equal(made[-1].denoised)


def test_the_same_noise_is_put_back_after_each_step(model):
    for step, sigma in zip(run(model.transformer, 4), distilled_sigmas(4)[1:], strict=True):
        expected = (1 - sigma) * step.denoised + sigma * NOISE
        torch.testing.assert_close(step.latents, expected, rtol=0, atol=1e-6)


def test_known_frames_come_back_through_the_noise():
    """Their velocity is noise - known, whatever the network says."""
    solver, latents = Renoising(distilled_sigmas(4), NOISE), NOISE
    known = torch.zeros_like(NOISE)
    for index in range(4):
        latents, denoised = solver.step(index, NOISE - known, latents)
        torch.testing.assert_close(denoised, known, rtol=0, atol=1e-6)


def test_nvidias_35_steps_of_the_post_trained_2b_are_36_here():
    """Its scheduler makes a Karras sigma more, and then a 0."""
    made = standard_sigmas(KARRAS_CONFIG, 36).double()
    karras = [(200 ** (1 / 7) + i / 35 * (0.01 ** (1 / 7) - 200 ** (1 / 7))) ** 7 for i in range(36)]
    expected = torch.tensor([*(sigma / (1 + sigma) for sigma in karras), 0.0], dtype=torch.float64)
    print(f"\nlargest difference to NVIDIA's sigmas {(made - expected).abs().max():.1e}", end="")
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-7)
    assert [round(made[index].item(), 5) for index in (0, 35, 36)] == [0.99502, 0.0099, 0]


def test_nvidias_35_steps_of_the_14b_and_of_the_pre_trained_2b_are_35_here():
    made = standard_sigmas(OTHERS.scheduler_config, 35).double()
    even = [0.999 * (35 - i) / 35 for i in range(36)]
    expected = torch.tensor([5 * sigma / (1 + 4 * sigma) for sigma in even], dtype=torch.float64)
    print(f"\nlargest difference to NVIDIA's sigmas {(made - expected).abs().max():.1e}", end="")
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-7)
    assert [round(made[index].item(), 5) for index in (0, 34, 35)] == [0.9998, 0.12809, 0]
    assert ((made > 0) & (made < 0.2)).sum() == 1
    diffusers = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=5.0, prediction_type="flow_prediction")
    diffusers.set_timesteps(35)
    assert 1e-3 < (diffusers.sigmas - made).abs().max() < 5e-3


def test_the_ode_of_the_distilled_schedule_goes_where_its_closed_form_does():
    """Of a velocity a x + b, a step is exact in x: x' = x + (s' - s)(a x + b), an affine map."""
    a, b = -0.7, 0.3
    solver = make_solver("distilled (ODE)", KARRAS_CONFIG, standard_sigmas(KARRAS_CONFIG, 4), NOISE)
    latents, scale, shift = NOISE, 1.0, 0.0
    for index, (sigma, following) in enumerate(pairwise([1, 15 / 16, 5 / 6, 5 / 8, 0])):
        before = latents.double()
        latents, denoised = solver.step(index, a * latents + b, latents)
        scale, shift = (
            scale * (1 + (following - sigma) * a),
            shift * (1 + (following - sigma) * a) + (following - sigma) * b,
        )
        torch.testing.assert_close(latents.double(), scale * NOISE.double() + shift, rtol=0, atol=1e-6)
        torch.testing.assert_close(denoised.double(), before - sigma * (a * before + b), rtol=0, atol=1e-6)


def test_the_ode_of_a_straight_flow_ends_at_its_target_and_puts_no_noise_back():
    target = torch.ones_like(NOISE)
    solver, latents = make_solver("distilled (ODE)", KARRAS_CONFIG, standard_sigmas(KARRAS_CONFIG, 4), NOISE), NOISE
    for index, following in enumerate([15 / 16, 5 / 6, 5 / 8, 0]):
        latents, denoised = solver.step(index, NOISE - target, latents)
        torch.testing.assert_close(latents, torch.lerp(target, NOISE, following), rtol=0, atol=1e-6)
        torch.testing.assert_close(denoised, target, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fps", [24, 16, 30, None])
def test_positions_are_those_of_nvidias_modulation_by_frame_rate(model, fps, monkeypatch):
    """Source: `VideoRopePosition3DEmb.generate_embeddings` of cosmos-predict2.5, base_fps 24."""
    monkeypatch.setattr(model.transformer, "fps", fps)
    table = model.transformer.at(NOISE, torch.tensor([0.5])).table
    channels = model.transformer.config["attention_head_dim"]
    in_time, ratio = channels - 2 * (channels // 6 * 2), model.transformer.config["rope_scale"][0]
    theta = 10000.0 * ratio ** (in_time / (in_time - 2))
    frequencies = 1.0 / (theta ** (torch.arange(0, in_time, 2)[: in_time // 2].float() / in_time))
    times = torch.arange(3).float()
    angles = torch.outer(times if fps is None else times / torch.tensor([float(fps)]) * 24, frequencies)
    rows = table.unflatten(0, (3, -1))[:, 0, :, : in_time // 2]
    assert rows[:, 0].equal(angles.cos())
    assert rows[:, 1].equal(angles.sin())


def test_the_dfd_checkpoint_goes_on_from_one_frame_at_24_fps(model):
    request = GenerationRequest(prompt="a cat", seed=3, num_frames=9, width=48, height=32, schedule="distilled (ODE)")
    clip, dfd = torch.rand(5, 32, 48, 3), replace(model, variant=DFD)
    made = generate(dfd, request, start=Start(clip))
    assert made.fps == 24
    assert made.frames.equal(generate(dfd, request, start=Start(clip[-1:])).frames)
    known = encode_frames(model.vae, clip[-1:])
    torch.testing.assert_close(normalize(model.vae, made.latents)[:, :, :1], known, rtol=0, atol=1e-4)
    longer = extend(dfd, request, Start(clip, 24), 10)
    assert (longer.fps, len(longer.frames)) == (24, 15)
    assert longer.frames[:5].equal(clip)
    assert len(extend(dfd, request, Start(clip, 48), 10).frames) == 13


def test_the_dfd_checkpoint_says_what_it_was_not_trained_for():
    clip = Start(torch.rand(5, 32, 48, 3))
    assert DFD.warnings("distilled (ODE)", clip.last_frame()) == []
    assert all("picture" in text or "frame" in text for text in DFD.warnings("distilled (ODE)", None))
    assert len(DFD.warnings("standard", None)) == 2
    assert len(DFD.warnings("distilled (ODE)", clip)) == 1


def test_distilled_starts_from_a_picture_and_from_a_clip(model):
    request = GenerationRequest(prompt="a cat", seed=3, num_frames=9, width=48, height=32, schedule="distilled")
    for given in (1, 5):
        start = Start(torch.rand(given, 32, 48, 3))
        known = encode_frames(model.vae, start.conditioning_frames(48, 32))
        made = normalize(model.vae, generate(model, request, start=start).latents)
        torch.testing.assert_close(made[:, :, : known.shape[2]], known, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "expected"), [(POST_TRAINED, 0.0001), (OTHERS, None), (DISTILLED, 0.0001), (DFD, 0)]
)
def test_a_known_frame_has_the_timestep_that_its_variant_was_trained_with(model, variant, expected, monkeypatch):
    seen, at = [], model.transformer.at

    def watched(latents, timestep):
        seen.append(timestep)
        return at(latents, timestep)

    monkeypatch.setattr(model.transformer, "at", watched)
    request = GenerationRequest(prompt="a cat", seed=3, num_frames=13, num_inference_steps=3, width=48, height=32)
    start, known = Start(torch.rand(5, 32, 48, 3)), 1 if variant is DFD else 2
    generate(replace(model, variant=variant), request, start=start)
    sigmas = standard_sigmas(model.scheduler_config, 3).tolist()
    assert len(seen) == 3
    for timestep, sigma in zip(seen, sigmas, strict=False):
        wanted = [sigma] if expected is None else [expected] * known + [sigma] * (4 - known)
        assert timestep.tolist() == pytest.approx(wanted)


def test_the_variant_decides_the_video_through_the_checkpoints_own_sigmas(checkpoint):
    request = GenerationRequest(prompt="a cat", seed=3, num_frames=9, num_inference_steps=5, width=48, height=32)
    made = {name: generate(load_pipeline_folder(checkpoint, variant=variant), request).frames
            for name, variant in VARIANTS.items()}  # fmt: skip
    assert made["2B post-trained"].equal(made["2B distilled"])
    torch.testing.assert_close(made["2B post-trained"], made["2B DFD"], rtol=0, atol=1e-3)
    assert (made["2B post-trained"] - made["14B or 2B pre-trained"]).abs().max() > 1e-2


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_that_spoils_the_checkpoint_is_warned_of(variant, schedule):
    warning = variant.warning(schedule)
    wanted = {"2B distilled": ["distilled"], "2B DFD": ["distilled (ODE)"]}.get(variant.name, ["standard", "few steps"])
    assert bool(warning) == (schedule not in wanted)
    assert not warning or all(repr(name) in warning for name in (schedule, wanted[0]))
    if variant.schedule and warning:
        assert all(fact in warning for fact in ("1 to 4 steps", "guidance_scale 1"))


def test_distilled_goes_through_nvidias_sigmas():
    expected = [math.sin(angle) / (math.sin(angle) + math.cos(angle)) for angle in ANGLES]
    torch.testing.assert_close(distilled_sigmas(4), torch.tensor([*expected, 0.0]))
    assert distilled_sigmas(2).tolist() == [1, 0.9375, 0]


@pytest.mark.parametrize("steps", [12, 15, 20])
def test_few_steps_are_karras_from_the_models_sigma_to_a_tenth_with_rho_10(steps):
    made = make_solver("few steps", KARRAS_CONFIG, standard_sigmas(KARRAS_CONFIG, steps), NOISE).sigmas
    sigmas = [(200**0.1 + i / (steps - 1) * (0.1**0.1 - 200**0.1)) ** 10 for i in range(steps)]
    torch.testing.assert_close(made, torch.tensor([*(s / (1 + s) for s in sigmas), 0.0]), rtol=0, atol=1e-6)


def test_few_steps_go_down_from_a_little_noise_too():
    sigmas = few_steps_sigmas(0.06, 4)
    assert sigmas[0].item() == pytest.approx(0.06)
    assert (sigmas.diff() < 0).all()


def test_with_one_step_all_schedules_begin_at_the_same_noise():
    standard = standard_sigmas(KARRAS_CONFIG, 1)
    torch.testing.assert_close(few_steps_sigmas(standard[0].item(), 1), standard, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", ["standard", "few steps"])
def test_every_step_of_unipc_is_taken_once(schedule):
    """Also where two timesteps are rounded to the same whole number: of noise alone it makes what it is told it is."""
    solver = make_solver(schedule, KARRAS_CONFIG, standard_sigmas(KARRAS_CONFIG, 50), NOISE)
    assert isinstance(solver, UniPC)
    target, latents = torch.ones_like(NOISE), NOISE
    for index, sigma in enumerate(solver.sigmas[:-1]):
        latents, denoised = solver.step(index, (latents - target) / sigma, latents)
        torch.testing.assert_close(denoised, target, rtol=0, atol=1e-4)
    torch.testing.assert_close(latents, target, rtol=0, atol=1e-4)


def passes_and_frames(model, **fields) -> tuple[int, Tensor]:
    passes = []
    counter = model.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    request = GenerationRequest(prompt="a cat", seed=3, num_frames=9, width=32, height=32, **fields)
    frames = generate(model, request).frames
    counter.remove()
    return len(passes), frames


def test_the_request_decides(model):
    standard = passes_and_frames(model, num_inference_steps=12)
    few = passes_and_frames(model, num_inference_steps=12, schedule="few steps")
    distilled = passes_and_frames(model, num_inference_steps=4, schedule="distilled", guidance_scale=1)
    assert [each[0] for each in (standard, few, distilled)] == [24, 24, 4]
    assert (standard[1] - few[1]).abs().max() > 1e-3
    alone = passes_and_frames(model, num_inference_steps=4, guidance_scale=1)
    assert (distilled[1] - alone[1]).abs().max() > 1e-3
