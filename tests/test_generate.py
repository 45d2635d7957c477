"""The whole way from a request to frames, on random weights."""

import gc
import sys
from dataclasses import dataclass, field

import numpy
import pytest
import torch

from cosmos_predict25.pipeline.errors import MissingDependencyError, UnsafeContentError
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.denoise import initial_noise, latent_frames
from cosmos_predict25.pipeline.local.generate import fit, generate
from cosmos_predict25.pipeline.local.guardrail import cosmos_guardrail
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.placement import OneAtATime
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
        assert video.frames.equal(thirteen.frames[:num_frames])
        assert video.latents.equal(thirteen.latents)


def test_a_request_is_made_to_fit_the_positions_that_a_transformer_has(model):
    largest = request(num_frames=93, width=1920, height=1920)
    assert fit(largest, model.transformer) == largest
    demo = load_pipeline_folder(DEMO_FOLDER)
    assert fit(largest, demo.transformer) == request(num_frames=25, width=64, height=64)
    assert fit(request(), demo.transformer) == request()


def test_frames_are_what_the_latents_decode_to(model):
    video = generate(model, request())
    assert video.frames.dtype == torch.float32
    assert 0 <= video.frames.min() < video.frames.max() <= 1
    assert torch.cat(list(decode_chunks(model.vae, video.latents))).equal(video.frames)


def test_the_seed_alone_decides(model):
    first = generate(model, request(seed=5))
    assert first.seed == 5
    assert generate(model, request(seed=5)).frames.equal(first.frames)
    assert not generate(model, request(seed=6)).frames.equal(first.frames)
    drawn = generate(model, request(seed=None))
    assert generate(model, request(seed=drawn.seed)).frames.equal(drawn.frames)


def test_noise_is_drawn_on_the_cpu_as_diffusers_draws_it():
    from diffusers.utils.torch_utils import randn_tensor

    expected = randn_tensor((1, 16, 3, 8, 4), generator=torch.Generator().manual_seed(11), device="cpu")
    assert initial_noise(11, num_frames=9, height=64, width=32).equal(expected)


def test_prompt_negative_prompt_and_guidance_matter(model):
    base = generate(model, request(guidance_scale=7)).frames
    assert not generate(model, request(guidance_scale=6)).frames.equal(base)
    assert not generate(model, request(negative_prompt="dull")).frames.equal(base)
    alone = generate(model, request(guidance_scale=1)).frames
    assert generate(model, request(guidance_scale=1, negative_prompt="dull")).frames.equal(alone)


def test_progress_counts_up_to_the_total_with_a_preview_for_each_step(model):
    observer = Recorder()
    generate(model, request(num_inference_steps=4), observer=observer)
    total = 1 + 4 + 3
    assert [report[1:] for report in observer.reports] == [(done, total) for done in range(total + 1)]
    assert observer.reports[0][0] == "Encoding the prompt"
    assert observer.reports[-1][0] == "Decoding, frame 9 of 9"
    assert [preview.shape for preview in observer.previews] == [(1, 16, 3, 4, 4)] * 4


def test_the_last_preview_is_the_result(model):
    from cosmos_predict25.pipeline.local.decode import denormalize

    observer = Recorder()
    video = generate(model, request(num_inference_steps=4), observer=observer)
    torch.testing.assert_close(denormalize(model.vae, observer.previews[-1]), video.latents, rtol=0, atol=1e-5)


def test_stops_wherever_it_is_asked_and_leaves_nothing_behind(model):
    whole = Recorder()
    expected = generate(model, request(), observer=whole).frames
    model.prompt_embeds.clear()
    before = live_tensor_bytes()
    for question in range(1, whole.questions + 1):
        with pytest.raises(StoppedError):
            generate(model, request(), observer=Recorder(stop_at=question))
        model.prompt_embeds.clear()
    assert live_tensor_bytes() == before
    blocks = [*model.transformer.transformer_blocks, *model.text_encoder.language_model.layers]
    assert not any(block._forward_pre_hooks for block in blocks)
    assert generate(model, request()).frames.equal(expected)
    # Asked before each block of each pass: encoding 2 prompts, 2 steps with 2 passes, and each latent frame.
    assert whole.questions == 2 * 3 + 2 * 2 * 3 + 3


def test_one_part_at_a_time_on_the_device(model):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    video = generate(model, request(), placement=OneAtATime(device))
    for module in (model.text_encoder, model.transformer, model.vae):
        module.to("cpu")
    assert video.frames.device.type == video.latents.device.type == "cpu"
    torch.testing.assert_close(video.frames, generate(model, request()).frames, rtol=0, atol=0.02)


class Uses(OneAtATime):
    """Notes which parts are used."""

    def __init__(self):
        super().__init__("cpu")
        self.parts = []

    def use(self, module, activation_bytes):
        assert activation_bytes > 0
        self.parts.append(module)
        return super().use(module, activation_bytes)


def test_a_prompt_is_encoded_once_and_the_text_encoder_is_not_needed_again(model):
    first, second, fresh = Uses(), Uses(), request(seed=8)
    generate(model, request(), placement=first)
    assert first.parts[:3] == [model.text_encoder, model.text_encoder, model.transformer]
    video = generate(model, fresh, placement=second)
    assert model.text_encoder not in second.parts
    model.prompt_embeds.clear()
    assert generate(model, fresh).frames.equal(video.frames)


def test_only_the_last_prompts_are_kept(model):
    for number in range(20):
        generate(model, GenerationRequest(prompt=f"cat {number}", **{**SMALL, "guidance_scale": 1}))
    assert list(model.prompt_embeds) == [f"cat {number}" for number in range(4, 20)]


def test_decodes_in_tiles_when_memory_is_short(model):
    large = request(width=384, height=272, num_inference_steps=1)
    whole = generate(model, large)
    decoder_calls = 0

    def run_out_once(module, inputs):
        nonlocal decoder_calls
        decoder_calls += 1
        if decoder_calls == 2:
            raise torch.cuda.OutOfMemoryError

    observer = Recorder()
    hook = model.vae.decoder.register_forward_pre_hook(run_out_once)
    tiled = generate(model, large, observer=observer)
    hook.remove()
    assert "Decoding in tiles: memory is short" in [report[0] for report in observer.reports]
    assert tiled.frames.shape == whole.frames.shape
    assert tiled.latents.equal(whole.latents)
    difference = (tiled.frames - whole.frames).abs()
    print(f"\ntiles differ from whole frames by {difference.mean() * 255:.2f} levels on average", end="")
    assert difference.mean() < 0.02
    assert not model.vae.use_tiling


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
    assert len(observer.reports) == 1


def test_guardrail_refuses_a_video(model):
    with pytest.raises(UnsafeContentError, match="refused the finished video"):
        generate(model, request(), guardrail=lambda: Checker([], frames_are_safe=False))


def test_a_missing_guardrail_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cosmos_guardrail", None)
    with pytest.raises(MissingDependencyError, match="pip install cosmos-guardrail"):
        cosmos_guardrail()
