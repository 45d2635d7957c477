"""The toy world, the measure of what a clip shows, and what a resumed training goes on from."""

import random
import runpy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import Linear

from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.devtools.toy import distill, flow, own_videos
from cosmos_predict25.devtools.toy.adherence import compare_with_scene, detect_attributes, outline
from cosmos_predict25.devtools.toy.flow import TWINS, new_transformer, velocity_loss
from cosmos_predict25.devtools.toy.low_rank import merge_lora, save_lora
from cosmos_predict25.devtools.toy.nearest import mended_clip, nearest_clip
from cosmos_predict25.devtools.toy.own_videos import Newest, OwnVideos, correction_loss, make_own_videos
from cosmos_predict25.devtools.toy.prompts import HELD_OUT_TEMPLATES, PARTIAL_TEMPLATES, TEMPLATES, describe
from cosmos_predict25.devtools.toy.state import Resumable
from cosmos_predict25.devtools.toy.vae import training_scene
from cosmos_predict25.devtools.toy.world import (
    COLORS,
    LORA_COLOR,
    NUM_FRAMES,
    SHAPES,
    TIME,
    Scene,
    SceneObject,
    after_a_turn,
    draw,
    draw_along,
    lora_scene,
    random_layout,
    random_scene,
    render,
    tracks,
)
from cosmos_predict25.pipeline.local.denoise import condition_mask, timesteps_of
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER


@pytest.mark.slow
@pytest.mark.parametrize("two", [0.0, 1.0], ids=["one object", "two objects"])
def test_the_measure_sees_what_was_drawn(two):
    for index in range(60):
        rng = random.Random(index)
        scene = random_scene(rng, held_out=True, two=two)
        right = compare_with_scene(scene, render(scene, rng).float() / 255)
        assert all(right.values()), (scene, right)


def test_the_measure_sees_what_is_wrong():
    drawn = Scene((SceneObject("red", "circle"),), "left", "blue")
    frames = render(drawn, random.Random(0)).float() / 255
    for scene, wrong in (
        (Scene((SceneObject("green", "circle"),), "left", "blue"), "color"),
        (Scene((SceneObject("red", "square"),), "left", "blue"), "shape"),
        (Scene((SceneObject("red", "circle"),), "right", "blue"), "motion"),
        (Scene((SceneObject("red", "circle"),), "left", "black"), "background"),
    ):
        assert [name for name, right in compare_with_scene(scene, frames).items() if not right] == [wrong]
    assert not compare_with_scene(drawn, frames[:1].expand_as(frames))["motion"]


def test_held_out_scenes_and_sentences_are_not_trained_on():
    assert not any(training_scene("whole", index)[0].held_out() for index in range(500))
    assert not set(HELD_OUT_TEMPLATES) & {*TEMPLATES, *PARTIAL_TEMPLATES}
    scene = Scene((SceneObject("red", "circle"),), "left", "blue")
    texts = [{describe(scene, random.Random(i), held_out=held_out).text for i in range(500)} for held_out in (0, 1)]
    assert not texts[0] & texts[1]


@pytest.mark.parametrize("motion", ["left", "down"])
def test_a_clip_with_a_turn_comes_back_for_five_frames(motion):
    scene = Scene((SceneObject("red", "circle"),), motion, "blue", speed="fast")
    rng = random.Random(0)
    frames = render(scene, rng, after_a_turn(rng)).float() / 255
    assert detect_attributes(frames[4:]).motions == (motion,)
    assert detect_attributes(frames[:5].flip(0)).motions == (motion,)


@pytest.mark.parametrize("given", [0, 1, 2])
def test_the_network_is_given_the_first_frames_as_the_pipeline_gives_them(given):
    transformer = new_transformer(8).eval()
    seen: dict[str, torch.Tensor] = {}
    transformer.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    latents, sigma = torch.randn(TWINS, 16, 7, 8, 8).repeat(2, 1, 1, 1, 1), torch.full((TWINS * 2,), 0.5)
    features, log_counts = torch.randn(TWINS * 2, 4, 8), torch.zeros(TWINS * 2, 4)
    errors = velocity_loss(transformer, latents, sigma, features, log_counts, given)
    assert seen["hidden_states"][:, :, :given].equal(latents[:, :, :given])
    assert not seen["hidden_states"][:, :, given:].isclose(latents[:, :, given:]).all()
    assert seen["condition_mask"][:1].equal(condition_mask(latents, given))
    wanted = timesteps_of(sigma[:1], 7, given)
    assert seen["timestep"].flatten()[: len(wanted)].equal(wanted)
    # Twins have the same noise, and an untrained network says the same of all: nothing.
    assert seen["hidden_states"][TWINS:].equal(seen["hidden_states"][:TWINS])
    assert errors[:TWINS].min() > 0
    assert errors[-TWINS:].max() == 0


@pytest.fixture(scope="module")
def own() -> list[OwnVideos]:
    """A few videos of the demo, with none, one and two latent frames given."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(own_videos, "CHUNK", 8)
        monkeypatch.setattr(own_videos, "NUM_STEPS", 8)
        return make_own_videos(DEMO_FOLDER, 4 * 8)


@pytest.mark.slow
def test_own_videos_are_near_the_clips_that_they_meant(own: list[OwnVideos]) -> None:
    for given, videos in enumerate(own):
        assert 4 <= len(videos.clean) <= (16 if given == 0 else 8)
        assert videos.states[:, 0].std() == pytest.approx(1, abs=0.02)
        assert videos.sigmas[0, 0] > 0.99
        assert own_videos.LEAST_SIGMA < videos.sigmas[0, -1] < 0.5
        # The last state is the clip with little noise, nearer to its own clip than to another video's.
        last, sigma = videos.states[:, -1], videos.sigmas[0, -1]
        error = (last / (1 - sigma) - videos.clean)[:, :, given:].square().mean()
        assert error < (last / (1 - sigma) - videos.clean.roll(1, 0))[:, :, given:].square().mean() / 2


def test_new_videos_take_the_place_of_the_oldest_and_are_there_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each video is its number here, as the making of real ones takes a minute."""

    def numbers(folder: Path, count: int, already: int) -> list[OwnVideos]:
        assert folder == tmp_path
        made = torch.arange(already, already + count)
        return [OwnVideos(*[made[given::3]] * 5) for given in range(3)]

    monkeypatch.setattr(own_videos, "make_own_videos", numbers)
    newest = Newest(tmp_path / "own.pt")
    assert newest.made == 0
    newest.make(tmp_path, 12)
    newest.make(tmp_path, 6)
    for kept in (newest, Newest(tmp_path / "own.pt")):
        assert kept.made == 18
        assert [videos.clean.tolist() for videos in kept.videos] == [
            [6, 9, 12, 15],
            [7, 10, 13, 16],
            [8, 11, 14, 17],
        ]


@pytest.mark.slow
def test_a_velocity_that_leads_to_the_clip_has_no_loss(own: list[OwnVideos], monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle in the network's place, which knows the clips; and one that is a little off."""
    for module in (own_videos, flow):
        monkeypatch.setattr(module, "TWINS", 2)
    videos, off = own[0], 0.0
    seen: list[torch.Tensor] = []

    def oracle(_: object, noisy: torch.Tensor, sigma: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(sigma)
        found = torch.stack([(videos.states - state).square().mean((2, 3, 4, 5)).amin(1).argmin() for state in noisy])
        return (noisy - videos.clean[found]) / sigma.view(-1, 1, 1, 1, 1) + off

    monkeypatch.setattr(flow, "predict_velocity", oracle)
    blank = videos.features[:1], videos.log_counts[:1]
    for count in (4, len(videos.clean) + 3):  # a batch may be larger than what there is of a kind
        monkeypatch.setattr(own_videos, "BATCH", count)
        losses = correction_loss(None, videos, blank, 0)  # pyright: ignore[reportArgumentType]
        assert len(losses) == count
        assert losses.max() < 1e-8
    monkeypatch.setattr(own_videos, "BATCH", 4)
    seen.clear()
    off = 1.0
    torch.manual_seed(0)
    losses = torch.cat([correction_loss(None, videos, blank, 0)[:2] for _ in range(10)])  # pyright: ignore[reportArgumentType]
    sigma = torch.cat([each[:2] for each in seen])
    assert sigma.min() < own_videos.LITTLE < sigma.max()
    assert losses.allclose((sigma / own_videos.LITTLE).square().clamp(max=1), rtol=1e-4)


@pytest.mark.slow
def test_a_few_steps_of_distillation_bring_four_passes_nearer_to_the_clip_that_was_meant(
    own: list[OwnVideos], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(distill, "BATCH", 4)  # all of them, as steps on a part of so few may take from the others
    monkeypatch.setattr(distill, "in_bfloat16", nullcontext)  # in which not every CPU is quick
    taught = [videos[:4] for videos in own]
    parts = distill.train_student(taught, 8)
    save_lora(tmp_path / "lora.safetensors", parts, distill.RANK)
    transformer = distill.read_transformer()
    before = [wrong(transformer, videos, given) for given, videos in enumerate(taught)]
    merge_lora(transformer, tmp_path / "lora.safetensors")
    after = [wrong(transformer, videos, given) for given, videos in enumerate(taught)]
    assert all(less < more for less, more in zip(after, before, strict=True))


@torch.inference_mode()
def wrong(transformer: nn.Module, videos: OwnVideos, given: int) -> float:
    *_, last = distill.four_passes(transformer, videos, given)
    return (last - videos.clean)[:, :, given:].square().mean().item()


def test_the_nearest_clip_of_a_drawn_one_is_itself() -> None:
    for index in range(12):
        rng = random.Random(index)
        scene = random_scene(rng, held_out=False, two=0.5)
        layout = random_layout(scene, rng)
        frames = draw(scene, layout).float() / 255
        asked = replace(scene, texture="plain", speed=None, size=None)  # what a prompt may leave out
        found = nearest_clip(asked, frames)
        assert found is not None
        assert found[0] == scene
        for place, found_place in zip(layout.places, found[1].places, strict=True):
            assert found_place == pytest.approx(place, abs=0.6)
        assert (draw(*found) / 255 - frames).abs().mean() < 0.005


@pytest.mark.parametrize("motion", ["right", "bounce"])
def test_a_mended_clip_has_no_lumps_and_its_things_where_and_as_large_as_they_were(motion: str) -> None:
    scene = Scene((SceneObject("red", "circle"), SceneObject("green", "square")), motion, "white")
    layout = random_layout(scene, random.Random(0))
    bend = 12 * (TIME - 0.5).square()
    ways = [(x + bend, y - bend) for x, y in tracks(scene, layout, TIME)]
    meant = draw_along(scene, layout.shift, ways, [15.0, 17.5])
    frames = meant.clone()
    for number, (x, y) in enumerate(zip(*ways[0], strict=True)):
        top, left = int(y) - 17, int(x) - 2 + number % 5  # a lump that wanders along the circle's rim
        frames[number, top : top + 4, left : left + 4] = torch.tensor(COLORS["red"], dtype=torch.uint8)
    assert outline(scene, frames / 255) < outline(scene, meant / 255) - 0.01
    mended = mended_clip(scene, frames / 255)
    assert mended is not None
    assert outline(scene, mended / 255) == pytest.approx(outline(scene, meant / 255), abs=0.003)
    found = nearest_clip(scene, frames / 255)
    assert found is not None
    near, off = ((clip.float() - meant.float()).abs().mean() for clip in (mended, draw(*found)))
    assert near < off / 3
    assert mended_clip(replace(scene, motion="up"), frames / 255) is None


def test_a_clip_of_another_motion_is_near_to_none() -> None:
    scene = Scene((SceneObject("red", "circle"),), "left", "blue")
    frames = render(scene, random.Random(0)).float() / 255
    assert nearest_clip(scene, frames)
    assert nearest_clip(replace(scene, motion="up"), frames) is None
    assert nearest_clip(scene, frames[:1].expand(NUM_FRAMES, -1, -1, -1)) is None
    assert nearest_clip(replace(scene, objects=(SceneObject("green", "circle"),)), frames) is None


def test_the_first_of_two_things_is_left_or_above():
    for index in range(20):
        rng = random.Random(index)
        scene = random_scene(rng, held_out=False, two=1.0)
        (x, y), (other_x, other_y) = tracks(scene, random_layout(scene, rng), TIME)
        assert (y < other_y).all() if scene.motion in ("left", "right") else (x < other_x).all()


def test_a_resumed_stage_ends_as_an_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole.pt")
    assert train(tmp_path / "resumed.pt", interrupt=5) != whole
    assert train(tmp_path / "resumed.pt") == whole


def train(file, interrupt: int | None = None) -> list[float]:
    torch.manual_seed(0)
    module = Linear(4, 1)
    optimizer = torch.optim.AdamW(module.parameters(), 0.1)
    for step in Resumable(file, 8, 2, module=module, optimizer=optimizer):
        if step == interrupt:
            break
        torch.manual_seed(step)
        module(torch.randn(4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return module.weight.flatten().tolist()


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("train.py", ["trained", "--own", "128"], "--own needs --after"),
        ("train.py", ["trained", "--after", "demo", "--own", "127"], "--own is 127, and the least is 128: give 128"),
        ("distill.py", ["lora", "--videos", "127"], "--videos is 127, and the least is 128: give 128"),
    ],
)
def test_a_training_that_cannot_have_its_own_videos_is_refused(
    program: str,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [program, *arguments])
    with pytest.raises(SystemExit):
        runpy.run_path(str(REPO / "demo" / "training" / program), run_name="__main__")
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_loras_scenes_have_its_colour_on_another():
    scenes = [lora_scene(random.Random(index), held_out=held_out) for index in range(50) for held_out in (True, False)]
    assert all(scene.objects[0].color == LORA_COLOR != scene.background for scene in scenes)
    assert {scene.objects[0].shape for scene in scenes} == set(SHAPES)
