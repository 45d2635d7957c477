"""The plan for a video's memory: what it chooses, what it says, and whether it is right."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from cosmos_predict25.devtools.accounting import SHAPES, account, build_model, fake_gpu
from cosmos_predict25.pipeline.errors import NotEnoughMemoryError
from cosmos_predict25.pipeline.local.decode import decode_activation_bytes
from cosmos_predict25.pipeline.local.denoise import denoise_activation_bytes
from cosmos_predict25.pipeline.local.model import sizes_of
from cosmos_predict25.pipeline.local.plan import make_plan
from cosmos_predict25.pipeline.local.sizes import GIB, UNLIMITED, DeviceMemory
from cosmos_predict25.pipeline.local.tiles import OVERLAP, grids, largest_tile, spans

REPO = Path(__file__).parents[1]
VIDEO = {"num_frames": 93, "height": 704, "width": 1280}
BUDGETS = (6, 8, 10, 12, 16, 24, 32)
GOALS = {6: 5.2, 8: 6.5, 12: 10, 16: 13.5, 24: 20, 32: 28}
"""Peaks in GiB, by the memory of a card."""


def card(gib: float, **options) -> DeviceMemory:
    return DeviceMemory(**{"free": gib * GIB, "ram": 32 * GIB, "layers_in_flight": 1, **options})


@pytest.fixture(scope="module")
def models(core):
    """The real shapes without values, in bfloat16."""
    from cosmos_predict25.nodes.host.kernels import ComfyKernels

    built = {}
    with fake_gpu():
        for name, shape in SHAPES.items():
            built[name] = build_model(**shape)
            built[name].transformer.kernels = ComfyKernels()
    return built


@pytest.fixture(scope="module")
def sizes(models):
    return {name: sizes_of(model) for name, model in models.items()}


@pytest.fixture(scope="module")
def accounted(models):
    """The bytes alive in a stage of a plan. Each different stage is counted once."""
    known = {}

    def peak(name: str, plan, stage: str) -> int:
        own = {"denoise": (name, plan.chunks), "decode": plan.grid}.get(stage)
        key = (stage, own, getattr(plan, stage))
        if key not in known:
            with fake_gpu():
                known[key] = account(models[name], plan, stage, **VIDEO)
        return known[key]

    return peak


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("gib", BUDGETS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_stage_takes_what_the_plan_predicts(sizes, accounted, name, gib):
    plan = make_plan(sizes[name], **VIDEO, memory=card(gib))
    for stage in ("encode", "denoise", "decode"):
        predicted, counted = getattr(plan, stage).peak, accounted(name, plan, stage)
        print(f"\n{name} {gib} GiB {stage}: {predicted / GIB:.2f} predicted, {counted / GIB:.2f} counted", end="")
        assert abs(predicted / counted - 1) <= 0.1
        assert counted <= 0.82 * gib * GIB


@pytest.mark.exhaustive
@pytest.mark.parametrize("given", [1, 5])
def test_what_a_start_takes_is_predicted_too(models, sizes, given):
    """Encoding its frames, and a pass with a timestep for each latent frame."""
    plan = make_plan(sizes["2b"], **VIDEO, memory=card(16), num_conditioning_frames=given)
    assert plan.condition
    with fake_gpu():
        counted = {
            stage: account(models["2b"], plan, stage, **VIDEO, given=given) for stage in ("condition", "denoise")
        }
    for stage, peak in counted.items():
        predicted = getattr(plan, stage).peak
        print(f"\n{given} frames, {stage}: {predicted / GIB:.2f} predicted, {peak / GIB:.2f} GiB counted", end="")
        assert abs(predicted / peak - 1) <= 0.1
    values = (counted["denoise"] - plan.denoise.resident) / (24 * 44 * 80 * 2048 * 2)
    print(f"; {values:.2f} values a token and channel", end="")
    assert values <= 13.5


def test_processes_that_share_a_video_plan_with_their_share_of_its_tokens(sizes):
    plan = make_plan(sizes["2b"], **VIDEO, memory=card(8, ranks=4))
    assert plan.chunks.queries is None
    assert plan.denoise.activations == denoise_activation_bytes(sizes["2b"], 24 * 44 * 80 // 4, plan.chunks)


def test_a_start_that_does_not_fit_is_an_error(sizes):
    video = {"num_frames": 9, "height": 1920, "width": 1920}
    plan = make_plan(sizes["2b"], **video, memory=card(6))
    assert plan.condition is None
    with pytest.raises(NotEnoughMemoryError):
        make_plan(sizes["2b"], **video, memory=card(6), num_conditioning_frames=5)


def test_the_plan_of_each_card_is_that_of_the_published_table(sizes):
    """docs/benchmarks.md: 0.5 GiB are taken by others, and ComfyUI streams weights in two streams."""
    section = (
        (REPO / "docs" / "benchmarks.md").read_text().split("<!-- benchmarks/memory.py -->")[1].split("<!-- end")[0]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert len(rows[2:]) == 14
    for name, gib, what_happens, predicted, _ in rows[2:]:
        plan = make_plan(sizes[name], **VIDEO, memory=card(int(gib) - 0.5, layers_in_flight=3))
        peaks = [f"{stage.peak / GIB:.2f}" for stage in (plan.encode, plan.denoise, plan.decode)]
        assert (plan.describe().split(";")[0], " / ".join(peaks)) == (what_happens, predicted), f"{name}, {gib} GiB"


@pytest.mark.parametrize(("gib", "goal"), GOALS.items(), ids=str)
def test_a_card_of_each_size_makes_the_whole_video(sizes, gib, goal):
    plan = make_plan(sizes["2b"], **VIDEO, memory=card(gib, layers_in_flight=3))
    assert plan.peak <= goal * GIB


def test_a_streamed_part_leaves_room_for_its_layers_in_flight_and_a_fifth_of_the_card(sizes):
    memory = card(8, layers_in_flight=3)
    plan = make_plan(sizes["2b"], **VIDEO, memory=memory)
    stage = plan.encode
    assert stage.streaming == 3 * sizes["2b"].text_encoder.largest_layer
    assert stage.peak == pytest.approx(0.8 * memory.free)
    assert plan.memory_required(stage) == pytest.approx(stage.activations + stage.streaming + 0.2 * memory.free, abs=2)


@pytest.mark.exhaustive
def test_a_streamed_text_encoder_needs_little_of_the_gpu(sizes, accounted):
    plan = make_plan(sizes["2b"], **VIDEO, memory=card(8, streams_all=True))
    assert plan.encode.resident == 0
    counted = accounted("2b", plan, "encode")
    print(f"\n{counted / GIB:.2f} GiB at zero budget", end="")
    assert counted <= 1.3 * GIB


def test_a_pass_needs_little_beside_the_weights(sizes):
    plan = make_plan(sizes["2b"], **VIDEO, memory=card(24))
    assert plan.attention_parts == 1
    assert denoise_activation_bytes(sizes["2b"], 24 * 44 * 80, plan.chunks) <= 2.6 * GIB


@pytest.mark.slow
def test_a_small_video_takes_what_its_prompts_keep(models, sizes):
    """235 MB in all blocks of the 2B, more than the rest of a pass."""
    video = {"num_frames": 9, "height": 320, "width": 512}
    plan = make_plan(sizes["2b"], **video, memory=card(24))
    with fake_gpu():
        beside = account(models["2b"], plan, "denoise", **video) - plan.denoise.weights
    print(f"\n{plan.denoise.activations / 1e6:.0f} MB predicted, {beside / 1e6:.0f} MB counted", end="")
    assert 235e6 < beside <= plan.denoise.activations <= 1.3 * beside
    begun = plan.memory_required(plan.denoise, begun=True)
    assert plan.memory_required(plan.denoise) - begun == pytest.approx(235e6, rel=0.01)


@pytest.mark.exhaustive
def test_a_pass_takes_as_little_as_is_predicted(sizes, accounted):
    plan = make_plan(sizes["2b"], **VIDEO, memory=card(24))
    beside = accounted("2b", plan, "denoise") - plan.denoise.weights
    print(f"\n{beside / GIB:.2f} GiB beside the weights", end="")
    assert beside <= 2.6 * GIB


def test_memory_that_cannot_be_streamed_into_takes_whole_parts(sizes):
    assert make_plan(sizes["2b"], **VIDEO, memory=card(24, layers_in_flight=0)).encode.residency == "resident"
    with pytest.raises(NotEnoughMemoryError):
        make_plan(sizes["2b"], **VIDEO, memory=card(12, layers_in_flight=0))


def test_without_limit_nothing_is_cut(sizes):
    plan = make_plan(sizes["14b"], **VIDEO, memory=UNLIMITED)
    assert (plan.grid, plan.attention_parts) == ((1, 1), 1)
    assert plan.memory_required(plan.denoise) == plan.denoise.activations


@pytest.mark.parametrize(
    ("memory", "line"),
    [
        (
            card(8),
            "text encoder 49% resident, transformer resident, decode in 1x2 tiles; about 6.4 of 8.0 GiB of free VRAM",
        ),
        (
            card(2.6, streams_all=True),
            "text encoder streamed, transformer streamed with attention in 11 chunks, decode in 2x3 tiles; "
            "about 1.8 of 2.6 GiB of free VRAM",
        ),
        (card(16), "text encoder resident, transformer resident, decode whole; about 12.6 of 16.0 GiB of free VRAM"),
    ],
    ids=["8 GiB", "no weights kept", "16 GiB"],
)
def test_a_plan_is_one_line_for_a_person(sizes, memory, line):
    assert make_plan(sizes["2b"], **VIDEO, memory=memory).describe() == line


def test_what_does_not_fit_is_an_error_that_names_what_does(sizes):
    with pytest.raises(NotEnoughMemoryError) as error:
        make_plan(sizes["14b"], **VIDEO, memory=card(4))
    print(f"\n{error.value}", end="")
    width, height, frames = (
        int(word) for word in str(error.value).split(". ")[1].replace("x", " ").split() if word.isdigit()
    )
    assert (width, height, frames) != (1280, 704, 93)
    assert width % 16 == height % 16 == 0
    make_plan(sizes["14b"], frames, height, width, card(4))


def test_frames_that_do_not_fit_into_ram_are_an_error_too(sizes):
    with pytest.raises(NotEnoughMemoryError, match=r"0\.9 GiB of RAM.*with 93 frames would"):
        make_plan(sizes["2b"], **VIDEO, memory=card(24, ram=0.9 * GIB))


def test_where_nothing_fits_the_error_says_so(sizes):
    with pytest.raises(NotEnoughMemoryError, match="neither does any smaller size"):
        make_plan(sizes["2b"], **VIDEO, memory=card(0.1))


def test_less_memory_takes_more_tiles_with_the_least_work_first():
    whole = 88 * 160
    work = {}
    for grid in grids(704, 1280):
        height, width = largest_tile(704, 1280, grid)
        work[grid] = grid[0] * grid[1] * height * width / whole
    assert list(work.values()) == sorted(work.values())
    assert [round(100 * (work[grid] - 1)) for grid in ((1, 1), (1, 2), (2, 2), (2, 3))] == [0, 5, 15, 21]


@pytest.mark.parametrize("count", range(1, 9))
def test_tiles_share_64_pixels_with_the_next_and_cover_all(count):
    parts = spans(160, count)
    assert (parts[0].start, parts[-1].stop) == (0, 160)
    for part, following in pairwise(parts):
        assert part.stop - following.start == OVERLAP
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) == math.ceil((160 + (count - 1) * OVERLAP) / count)


def test_the_type_that_is_computed_in_counts_not_that_of_the_weights(models, sizes):
    with fake_gpu():
        models["2b"].transformer.compute_dtype = torch.float32
        larger = sizes_of(models["2b"])
        models["2b"].transformer.compute_dtype = None
    assert larger == replace(sizes["2b"], itemsize=4)
    assert decode_activation_bytes(replace(larger, vae_itemsize=4), 88, 160) == 2 * decode_activation_bytes(
        larger, 88, 160
    )
