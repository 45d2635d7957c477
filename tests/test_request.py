"""Every limit of the request, and what the messages say."""

import dataclasses
import math
import re

import pytest

from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, GenerationRequest, Prompt, Range, SamplerSettings


def test_the_defaults_are_the_hosted_apis():
    request = GenerationRequest(prompt="a cat")
    assert dataclasses.asdict(request) == {
        "prompt": "a cat",
        "negative_prompt": DEFAULT_NEGATIVE_PROMPT,
        "num_frames": 93,
        "num_inference_steps": 35,
        "guidance_scale": 7.0,
        "seed": None,
        "width": 1280,
        "height": 704,
        "schedule": "standard",
        "sync_mode": False,
        "video_output_type": "X264 (.mp4)",
        "video_quality": "high",
    }


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("num_frames", range(9, 94)),
        ("num_inference_steps", range(1, 51)),
        ("guidance_scale", [1, 1.0, 6.5, 20]),
        ("seed", [None, 0, 1, 2147483647]),
        ("width", range(16, 1921, 16)),
        ("height", [16, 704, 1920]),
        ("schedule", ["standard", "few steps"]),
        ("prompt", ["a", " a ", "\u0436", "x" * 100_000]),
        ("negative_prompt", ["", " "]),
        ("video_output_type", ["X264 (.mp4)", "VP9 (.webm)", "PRORES4444 (.mov)", "GIF (.gif)"]),
        ("video_quality", ["low", "medium", "high", "maximum"]),
        ("sync_mode", [True, False]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_value_within_the_limits_is_allowed(field, values):
    for value in values:
        assert getattr(GenerationRequest(**{"prompt": "a cat", field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("num_frames", 8, "8, but must be from 9 to 93"),
        ("num_frames", 94, "94, but must be from 9 to 93"),
        ("num_frames", 9.0, "must be a whole number from 9 to 93, got 9.0"),
        ("num_frames", "93", "got '93'"),
        ("num_frames", True, "got True"),
        ("num_frames", None, "got None"),
        ("seed", 10**400, "0, but must be from 0 to 2147483647"),
        ("num_inference_steps", 0, "0, but must be from 1 to 50"),
        ("num_inference_steps", 51, "51, but must be from 1 to 50"),
        ("guidance_scale", 0.99, "0.99, but must be from 1.0 to 20.0"),
        ("guidance_scale", 20.1, "20.1, but must be from 1.0 to 20.0"),
        ("guidance_scale", math.nan, "must be a number from 1.0 to 20.0, got nan"),
        ("guidance_scale", math.inf, "got inf"),
        ("seed", -1, "-1, but must be from 0 to 2147483647"),
        ("seed", 2147483648, "2147483648, but must be from 0 to 2147483647"),
        ("seed", 1.5, "got 1.5"),
        ("width", 100, "100, but must be a multiple of 16: try 96 or 112"),
        ("width", 0, "0, but must be from 16 to 1920"),
        ("height", 1936, "1936, but must be from 16 to 1920"),
        ("height", 705, "705, but must be a multiple of 16: try 704 or 720"),
        ("schedule", "fast", "'fast', but must be one of standard, few steps, distilled"),
        ("prompt", "", "is blank"),
        ("prompt", " \n\t", "is blank"),
        ("prompt", None, "must be text, got NoneType"),
        ("negative_prompt", 3, "must be text, got int"),
        ("video_output_type", "mp4", "'mp4', but must be one of X264 (.mp4), VP9 (.webm)"),
        ("video_quality", "best", "'best', but must be one of low, medium, high, maximum"),
        ("sync_mode", "yes", "must be true or false, got 'yes'"),
    ],
    ids=lambda value: ascii(value).strip("'")[:40],
)
def test_a_value_out_of_its_limits_is_refused_with_the_field_the_value_and_the_limit(field, value, says):
    with pytest.raises(InvalidRequestError) as error:
        GenerationRequest(**{"prompt": "a cat", field: value})
    assert str(error.value).startswith(field)
    assert says in str(error.value)


@pytest.mark.parametrize("schedule", ["distilled", "distilled (ODE)"])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_distilled_schedules_go_without_guidance_in_at_most_4_steps(steps, schedule):
    distilled = {"schedule": schedule, "guidance_scale": 1, "num_inference_steps": steps}
    assert SamplerSettings(**distilled).schedule == schedule
    name = re.escape(repr(schedule))
    with pytest.raises(InvalidRequestError, match=rf"guidance_scale is 1\.5, but the schedule {name} has no"):
        SamplerSettings(**{**distilled, "guidance_scale": 1.5})
    with pytest.raises(InvalidRequestError, match=f"num_inference_steps is 5, but the schedule {name} has 1 to 4"):
        GenerationRequest(prompt="a cat", **{**distilled, "num_inference_steps": 5})


def test_choosing_the_schedule_distilled_is_enough_for_four_steps_without_guidance():
    settings = SamplerSettings(schedule="distilled")
    assert (settings.num_inference_steps, settings.guidance_scale) == (4, 1)
    assert SamplerSettings(schedule="distilled", num_inference_steps=2).num_inference_steps == 2
    assert SamplerSettings(schedule="few steps").num_inference_steps == 35
    assert dataclasses.replace(settings, seed=3) == SamplerSettings(schedule="distilled", seed=3)


@pytest.mark.parametrize(
    ("schedule", "steps", "guidance", "says"),
    [
        ("standard", 35, 7, []),
        ("standard", 12, 20, []),
        ("standard", 11, 1, ["11 steps are few", "'few steps' loses less"]),
        ("standard", 10, 7, ["10 steps are few", "'few steps' loses less", "guidance_scale 7 is too strong for 10"]),
        ("standard", 10, 6.9, ["10 steps are few", "'few steps' loses less"]),
        ("few steps", 12, 7, []),
        ("few steps", 10, 7, ["10 steps are few"]),
        ("distilled", 4, 1, []),
    ],
)
def test_what_a_video_will_suffer_from_is_told(schedule, steps, guidance, says):
    told = " ".join(SamplerSettings(schedule=schedule, num_inference_steps=steps, guidance_scale=guidance).warnings())
    assert bool(told) == bool(says)
    assert all(text in told for text in says)
    assert ("too strong" in told) == any("too strong" in text for text in says)
    assert ("loses less than" in told) == ("'few steps' loses less" in says)


def test_combine_takes_every_field_of_both_halves():
    prompt = Prompt(prompt="a cat", negative_prompt="a dog")
    settings = SamplerSettings(num_frames=9, num_inference_steps=2, guidance_scale=3, seed=4, width=32, height=48,
                               schedule="few steps")  # fmt: skip
    request = GenerationRequest.combine(prompt, settings, video_quality="low")
    assert request == GenerationRequest(
        prompt="a cat", negative_prompt="a dog", num_frames=9, num_inference_steps=2, guidance_scale=3, seed=4,
        width=32, height=48, schedule="few steps", video_quality="low",
    )  # fmt: skip


def test_another_type_of_request_has_limits_of_its_own():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Extension(SamplerSettings):
        overlap: int = dataclasses.field(metadata={"limits": Range(1, 5)}, default=1)
        num_frames: int = dataclasses.field(metadata={"limits": Range(1, 77)}, default=5)

    assert (Extension().overlap, Extension(num_frames=5).num_frames) == (1, 5)
    with pytest.raises(InvalidRequestError, match="overlap is 6, but must be from 1 to 5"):
        Extension(overlap=6)
    with pytest.raises(InvalidRequestError, match="num_frames is 93, but must be from 1 to 77"):
        Extension(num_frames=93)
    with pytest.raises(InvalidRequestError, match="width is 100"):
        Extension(width=100)


def test_halves_are_checked_alone():
    with pytest.raises(InvalidRequestError, match="width"):
        SamplerSettings(width=100)
    with pytest.raises(InvalidRequestError, match="blank"):
        Prompt(prompt="")


def test_a_given_seed_is_kept_and_a_missing_one_drawn():
    assert GenerationRequest(prompt="a cat", seed=0).seed_or_random() == 0
    request = GenerationRequest(prompt="a cat")
    drawn = {request.seed_or_random() for _ in range(8)}
    assert len(drawn) > 1
    assert all(0 <= seed <= 2147483647 for seed in drawn)


def test_a_request_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerationRequest(prompt="a cat").seed = 3
