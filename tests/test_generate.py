"""The whole way from a request to frames, on random weights."""

import gc
import re
import sys
from dataclasses import dataclass, field

import numpy
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cosmos_predict25.pipeline.errors import MissingDependencyError, UnsafeContentError
from cosmos_predict25.pipeline.local import time_left
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.generate import clamp_request, generate
from cosmos_predict25.pipeline.local.guardrail import cosmos_guardrail
from cosmos_predict25.pipeline.local.latents import denormalize, initial_noise, latent_frames, normalize
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.placement import OneAtATime
from cosmos_predict25.pipeline.local.prompt_cache import PromptCache
from cosmos_predict25.pipeline.local.time_left import TimeLeft
from cosmos_predict25.pipeline.local.unfinished import UnfinishedVideo
from cosmos_predict25.pipeline.request import GenerationRequest


class StoppedError(BaseException):
    """Like ComfyUI's interruption: not an Exception."""


@dataclass
class Recorder:
    """Keeps what is reported, and stops the work at the given question."""

    stop_at: int | None = None
    reports: list[tuple[str, int, int]] = field(default_factory=list)
    previews: list[torch.Tensor] = field(default_factory=list)
    questions: int = 0

    def progress(self, message, done, total, latents=None):
        self.reports.append((message, done, total))
        if latents is not None:
            self.previews.append(latents)

    def raise_if_stopped(self):
        self.questions += 1
        if self.questions == self.stop_at:
            raise StoppedError


@dataclass
class Checker:
    """A guardrail with the interface of cosmos_guardrail that notes when it is used and when it is gone."""

    events: list[str]
    text_is_safe: bool = True
    frames_are_safe: bool = True

    def __post_init__(self):
        self.events.append("made")

    def __del__(self):
        self.events.append("gone")

    def to(self, device):
        self.events.append(f"to {device}")

    def check_text_safety(self, prompt):
        self.events.append(f"text {prompt}")
        return self.text_is_safe

    def check_video_safety(self, frames):
        assert frames.dtype == numpy.uint8
        self.events.append(f"frames {frames.shape}")
        return numpy.zeros_like(frames) if self.frames_are_safe else None


@pytest.fixture
def model(checkpoint):
    return load_pipeline_folder(checkpoint)


SMALL = {"num_frames": 9, "num_inference_steps": 2, "width": 32, "height": 32, "seed": 3}


def request(**fields) -> GenerationRequest:
    return GenerationRequest(prompt="a cat", **{**SMALL, **fields})


def assert_same(frames: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the last bits: what a matrix product rounds to depends on where its operands lie in memory."""
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-4)


def assert_different(frames: torch.Tensor, others: torch.Tensor) -> None:
    """By more than `assert_same` lets pass."""
    assert (frames - others).abs().max() > 1e-3


def live_tensor_bytes() -> int:
    gc.collect()
    return sum(item.nbytes for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter))


def test_every_frame_count_gives_that_many_frames(model):
    longest = generate(model, request(num_frames=93, num_inference_steps=1, width=16, height=16))
    assert longest.frames.shape == (93, 16, 16, 3)
    assert longest.latents.shape == (1, 16, 24, 2, 2)
    for num_frames in range(9, 94):
        made = 4 * (latent_frames(num_frames) - 1) + 1
        assert made - 4 < num_frames <= made
    for num_frames in (10, 11, 12, 13):
        video = generate(model, request(num_frames=num_frames))
        thirteen = generate(model, request(num_frames=13))
        assert_same(video.frames, thirteen.frames[:num_frames])
        assert_same(video.latents, thirteen.latents)


def test_a_request_is_made_to_fit_the_positions_that_a_transformer_has(model):
    largest = request(num_frames=93, width=1920, height=1920)
    assert clamp_request(largest, model.transformer) == largest
    demo = load_pipeline_folder(DEMO_FOLDER)
    assert clamp_request(largest, demo.transformer) == request(num_frames=25, width=96, height=96)
    assert clamp_request(request(), demo.transformer) == request()


def test_frames_are_what_the_latents_decode_to(model):
    video = generate(model, request())
    assert video.frames.dtype == torch.float32
    assert 0 <= video.frames.min() < video.frames.max() <= 1
    assert_same(torch.cat(list(decode_chunks(model.vae, video.latents))), video.frames)


def test_latents_come_back_from_the_other_scale(model):
    latents = torch.randn(1, 16, 2, 4, 4)
    scaled = denormalize(model.vae, latents)
    mean, std = (torch.tensor(model.vae.config[name])[3] for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(scaled[:, 3], latents[:, 3] * std + mean)
    torch.testing.assert_close(normalize(model.vae, scaled), latents)


@pytest.mark.slow
def test_the_seed_alone_decides(model):
    first = generate(model, request(seed=5))
    assert first.seed == 5
    assert_same(generate(model, request(seed=5)).frames, first.frames)
    assert_different(generate(model, request(seed=6)).frames, first.frames)
    drawn = generate(model, request(seed=None))
    assert_same(generate(model, request(seed=drawn.seed)).frames, drawn.frames)


def test_noise_is_drawn_on_the_cpu_as_diffusers_draws_it():
    from diffusers.utils.torch_utils import randn_tensor

    expected = randn_tensor((1, 16, 3, 8, 4), generator=torch.Generator().manual_seed(11), device="cpu")
    assert initial_noise(11, num_frames=9, height=64, width=32).equal(expected)


def test_prompt_negative_prompt_and_guidance_matter(model):
    base = generate(model, request(guidance_scale=7)).frames
    assert_different(generate(model, request(guidance_scale=6)).frames, base)
    assert_different(generate(model, request(negative_prompt="dull")).frames, base)
    alone = generate(model, request(guidance_scale=1)).frames
    assert_same(generate(model, request(guidance_scale=1, negative_prompt="dull")).frames, alone)


def test_progress_counts_up_to_the_total_with_a_preview_for_each_step(model):
    observer = Recorder()
    generate(model, request(num_inference_steps=4), observer=observer)
    total = 1 + 4 + 3
    assert observer.reports == [
        ("Encoding the prompt", 0, total),
        ("Encoding the prompt", 1, total),
        ("Denoising", 1, total),
        *((f"Denoising, step {step} of 4", 1 + step, total) for step in range(1, 5)),
        ("Decoding", 5, total),
        *((f"Decoding, frame {frame} of 9", done, total) for done, frame in ((6, 1), (7, 5), (8, 9))),
    ]
    assert [preview.shape for preview in observer.previews] == [(1, 16, 3, 4, 4)] * 4


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.1, ""), (4, ", about 80 s left"), (12, ", about 4 min left"), (900, ", about 5.0 h left")],
)
def test_the_time_left_is_told_from_the_second_step_on_by_the_steps_after_the_first(seconds, says):
    clock = iter([1000, 1000 + seconds])
    left = TimeLeft(22, clock=lambda: next(clock))
    assert [left.before_the_steps(), left.after_a_step(), left.after_a_step()] == ["", "", says]


def test_the_cards_rate_tells_the_time_until_the_second_step_corrects_it():
    clock = iter([1000, 1010, 1040])
    left = TimeLeft(10, expected=1200, clock=lambda: next(clock))
    assert left.before_the_steps() == ", about 20 min by this card's rate"
    assert [left.after_a_step() for _ in range(3)] == [
        ", about 18 min left by this card's rate",
        ", about 80 s left",
        ", about 2 min left",
    ]


def test_a_short_time_is_not_told_by_the_rate_either():
    left = TimeLeft(4, expected=9)
    assert left.before_the_steps() == left.after_a_step() == ""


def test_no_time_is_left_after_the_last_step():
    clock = iter([0, 100, 200])
    left = TimeLeft(3, expected=300, clock=lambda: next(clock))
    assert [left.after_a_step() for _ in range(3)][2] == ""


def test_the_time_left_is_told_while_steps_take_long(model, monkeypatch):
    monkeypatch.setattr(time_left, "LEAST_SECONDS", 0)
    observer = Recorder()
    generate(model, request(num_inference_steps=4), observer=observer)
    steps = [message for message, *_ in observer.reports if "step" in message]
    assert steps[0] == "Denoising, step 1 of 4"
    assert all(re.fullmatch(r"Denoising, step \d of 4, about \d+ s left", step) for step in steps[1:3])
    assert steps[3] == "Denoising, step 4 of 4"


def test_a_known_card_is_told_its_time_before_the_first_step(model, monkeypatch):
    """The published rate is enough for it: the device computes nothing here."""
    monkeypatch.setattr("cosmos_predict25.pipeline.local.generate.seconds_by_rate", lambda *_: 1200.0)
    observer = Recorder()
    generate(model, request(num_inference_steps=2), observer=observer)
    messages = [message for message, *_ in observer.reports]
    begin = messages.index("Denoising")
    assert messages[begin + 1 : begin + 3] == [
        "Denoising, about 20 min by this card's rate",
        "Denoising, step 1 of 2, about 10 min left by this card's rate",
    ]


def test_the_last_preview_is_the_result(model):
    observer = Recorder()
    video = generate(model, request(num_inference_steps=4), observer=observer)
    torch.testing.assert_close(denormalize(model.vae, observer.previews[-1]), video.latents, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_stops_wherever_it_is_asked_and_leaves_nothing_behind(model):
    whole = Recorder()
    expected = generate(model, request(), observer=whole).frames
    before = live_tensor_bytes()
    for question in range(1, whole.questions + 1):
        with pytest.raises(StoppedError):
            generate(model, request(), observer=Recorder(stop_at=question))
    assert live_tensor_bytes() == before
    blocks = [*model.transformer.transformer_blocks, *model.text_encoder.language_model.layers]
    assert not any(block._forward_pre_hooks for block in blocks)
    assert_same(generate(model, request()).frames, expected)
    # Asked before each block of each pass: encoding 2 prompts, 2 steps with 2 passes, and each latent frame twice.
    assert whole.questions == 2 * 3 + 2 * 2 * 3 + 2 * 3


class Part(torch.nn.Linear):
    """Can go to the meta device, which stands for a GPU, and come back. Its values are lost on the way."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def to(self, device):
        return self.to_empty(device=device)


def test_one_part_at_a_time_is_on_the_device():
    parts = Part(), Part()
    placement = OneAtATime("meta")
    for part, places in ((0, ["meta", "cpu"]), (1, ["cpu", "meta"]), (1, ["cpu", "meta"]), (0, ["meta", "cpu"])):
        assert placement.use(parts[part], memory_required=1) == torch.device("meta")
        assert [each.weight.device.type for each in parts] == places
    assert placement.make_room(1) == torch.device("meta")
    assert [each.weight.device.type for each in parts] == ["cpu", "cpu"]


def put_on_fake_gpu(part: torch.nn.Module) -> None:
    """Within a FakeTensorMode: the shapes of its weights on a GPU that computes nothing."""
    for module in part.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty_like(weight, device="cuda")
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = torch.empty_like(buffer, device="cuda")


@pytest.mark.slow
def test_no_operation_mixes_devices(model):
    """On a real GPU each part computes there what it was given there; here fake tensors tell where that would fail."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in (model.text_encoder, model.transformer, model.vae):
            put_on_fake_gpu(part)
        latents = torch.empty(1, 16, 3, 8, 8, device="cuda")
        embeds = encode_prompt(model.text_encoder, model.tokenizer, "a cat", "cuda")
        sigma = torch.rand(1, device="cuda")
        velocity = predict_velocity(model.transformer, latents, sigma, embeds, condition_mask(latents))
        frames = list(decode_chunks(model.vae, denormalize(model.vae, velocity)))
    assert {tensor.device.type for tensor in (embeds, velocity, *frames)} == {"cuda"}


class Occupied(OneAtATime):
    """Remembers which part is on the device, and which were in use."""

    def __init__(self):
        super().__init__("cpu")
        self.present = None
        self.used = []

    def use(self, module, memory_required):
        assert memory_required > 0
        device = super().use(module, memory_required)
        self.present = module
        self.used.append(module)
        return device

    def make_room(self, size):
        self.present = None
        return super().make_room(size)


def test_every_part_is_on_the_device_whenever_it_computes(model):
    """Also after a preview for which another model took the device."""
    placement = Occupied()

    class PreviewsWithAModel(Recorder):
        def progress(self, message, done, total, latents=None):
            super().progress(message, done, total, latents)
            if latents is not None:
                placement.make_room(1)

    passes = []
    for part, module in (
        (model.text_encoder, model.text_encoder.language_model),
        (model.transformer, model.transformer),
        (model.vae, model.vae.decoder.mid_block),
        (model.vae, model.vae.decoder.up_blocks[0]),
    ):
        module.register_forward_pre_hook(lambda *_, part=part: passes.append(placement.present is part))
    generate(model, request(), placement=placement, observer=PreviewsWithAModel())
    assert passes == [True] * (2 + 2 * 2 + 2 * 3)


def test_a_prompt_is_encoded_once_and_the_text_encoder_is_not_needed_again(model):
    first, second, fresh, prompts = Occupied(), Occupied(), request(seed=8), PromptCache()
    generate(model, request(), placement=first, prompts=prompts)
    assert first.used[:3] == [model.text_encoder, model.text_encoder, model.transformer]
    video = generate(model, fresh, placement=second, prompts=prompts)
    assert model.text_encoder not in second.used
    assert_same(generate(model, fresh).frames, video.frames)


def test_the_prompts_that_were_used_last_are_kept():
    prompts, encoded = PromptCache(size=2), []

    def encode(text: str) -> torch.Tensor:
        encoded.append(text)
        return torch.zeros(1)

    for text in ("a cat", "a dog", "a cat", "a cow", "a cat", "a dog"):
        prompts.get_or_encode(text, encode)
    assert encoded == ["a cat", "a dog", "a cow", "a dog"]


def run_out_of_memory(vae, calls: set[int]):
    """Have the second half of the decoder fail at the calls with these numbers, from 1, as a GPU does."""
    made = 0

    def count(module, inputs):
        nonlocal made
        made += 1
        if made in calls:
            raise torch.OutOfMemoryError

    return vae.decoder.up_blocks[0].register_forward_pre_hook(count)


def test_a_tile_that_runs_out_of_memory_is_decoded_in_smaller_ones(model):
    large = request(width=272, height=32, num_inference_steps=1)
    whole = generate(model, large)
    observer = Recorder()
    hook = run_out_of_memory(model.vae, {2})
    tiled = generate(model, large, observer=observer)
    hook.remove()
    assert_same(tiled.latents, whole.latents)
    # The first frame was there before, and is not made again.
    assert_same(tiled.frames[:1], whole.frames[:1])
    difference = (tiled.frames - whole.frames).abs()
    print(f"\ntiles differ from whole frames by {difference.mean() * 255:.2f} levels on average", end="")
    assert 0 < difference.mean() < 0.02
    reports = [message for message, _, _ in observer.reports if message.startswith("Decoding")]
    assert reports == ["Decoding", *(f"Decoding, frame {frame} of 9" for frame in (1, 5, 9))]


def test_a_video_that_could_not_be_decoded_goes_on_from_its_latents(model):
    unfinished, first, second = UnfinishedVideo(), Recorder(), Recorder()
    hook = run_out_of_memory(model.vae, {2})
    with pytest.raises(torch.OutOfMemoryError):
        generate(model, request(), unfinished=unfinished, observer=first)
    hook.remove()
    video = generate(model, request(), unfinished=unfinished, observer=second)
    assert second.reports[0] == ("Decoding", 3, 6)
    assert_same(video.frames, generate(model, request()).frames)
    third = Recorder()
    generate(model, request(), unfinished=unfinished, observer=third)
    assert third.reports[0][0] == "Encoding the prompt"


def test_latents_that_were_kept_are_decoded_in_smaller_tiles_at_once(model):
    unfinished, observer = UnfinishedVideo(), Recorder()
    large = request(width=384, num_inference_steps=1)
    hook = run_out_of_memory(model.vae, set(range(2, 100)))
    with pytest.raises(torch.OutOfMemoryError):
        generate(model, large, unfinished=unfinished)
    hook.remove()
    assert unfinished.grid == (1, 4)
    generate(model, large, unfinished=unfinished, observer=observer)
    assert observer.reports[1][0] == "Decoding, tile 1 of 4, frame 1 of 9"
    assert observer.reports[-1][1] == observer.reports[-1][2]


def test_another_request_does_not_go_on_from_those_latents(model):
    unfinished = UnfinishedVideo()
    hook = run_out_of_memory(model.vae, {2})
    with pytest.raises(torch.OutOfMemoryError):
        generate(model, request(), unfinished=unfinished)
    hook.remove()
    other = generate(model, request(seed=4), unfinished=unfinished)
    assert_same(other.frames, generate(model, request(seed=4)).frames)


def test_guardrail_sees_the_prompt_before_and_the_frames_after_and_is_gone_in_between(model):
    events: list[str] = []

    class Watcher(Recorder):
        def progress(self, message, done, total, latents=None):
            if latents is not None:
                events.append("step")

    video = generate(model, request(), guardrail=lambda: Checker(events), observer=Watcher())
    before = ["made", "to cpu", "text a cat", "to cpu", "gone"]
    after = ["made", "to cpu", "frames (9, 32, 32, 3)", "to cpu", "gone"]
    assert events == [*before, "step", "step", *after]
    assert video.frames.equal(torch.zeros(9, 32, 32, 3))


def test_guardrail_refuses_a_prompt_before_anything_runs(model):
    observer = Recorder()
    with pytest.raises(UnsafeContentError, match="refused the prompt"):
        generate(model, request(), guardrail=lambda: Checker([], text_is_safe=False), observer=observer)
    assert [report[0] for report in observer.reports] == ["Checking the prompt"]


def test_guardrail_refuses_a_video(model):
    with pytest.raises(UnsafeContentError, match="refused the finished video"):
        generate(model, request(), guardrail=lambda: Checker([], frames_are_safe=False))


def test_a_missing_guardrail_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cosmos_guardrail", None)
    with pytest.raises(MissingDependencyError, match="pip install cosmos-guardrail"):
        cosmos_guardrail()
