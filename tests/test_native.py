"""ComfyUI's own MODEL, CLIP, VAE and SAMPLER: against Generate Locally, diffusers and ComfyUI's own detection."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_cosmos import CosmosRotaryPosEmbed

from cosmos_predict25.pipeline.local.load.original_names import diffusers_name
from cosmos_predict25.pipeline.local.load.parts import transformer_config
from cosmos_predict25.pipeline.local.load.weights import Source
from cosmos_predict25.tests.test_checkpoint import REAL_HEADS, nvidias_tensors

START_REFUSAL = (
    "The latent's shape is {}, but must be (1, 16, more than 2, height/8, width/8): the start is 2 of its latent "
    "frames. Connect Empty Latent (Cosmos Predict2.5), with at least 9 frames."
)

REPORTS = [
    pytest.param("0.30.0", marks=pytest.mark.slow),
    pytest.param("0.18.2", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
]

SHORT = ("uni_pc_bh2", "standard", "TorchCompileModel", "RescaleCFG", "LazyCache")
"""The samplers and nodes of the short run. Each takes 70 passes, the most that there are here."""


def long(name: str, *values: float) -> Any:
    """The case of a sampler or a node, which is exhaustive unless it is in SHORT."""
    return pytest.param(name, *values, marks=() if name in SHORT else pytest.mark.exhaustive)


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What tests/native_worker.py finds in this ComfyUI."""
    command = [sys.executable, str(Path(__file__).with_name("native_worker.py"))]
    if "not exhaustive" in request.config.getoption("markexpr"):
        command += SHORT
    environment = {**os.environ, "TESTED_COMFYUI": request.param}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    print(f"\nComfyUI {request.param}: {run.stdout.splitlines()[-1]}")
    return {**json.loads(run.stdout.splitlines()[-1]), "log": run.stderr}


def test_embeddings_are_those_of_generate_locally(report):
    assert max(report["embeddings"].values()) <= 1e-4


def test_the_log_says_at_which_word_a_prompt_was_cut_and_nothing_is_missing(report):
    assert re.search(r"Cosmos Predict2\.5: .*prompt .* 512 tokens, .*'word99'", report["log"])
    assert "missing" not in report["log"]


def test_frames_are_within_a_level(report):
    assert report["vae levels"] <= 1


def test_karras_is_the_models_own_schedule(report):
    assert report["sigmas"] <= 1e-6


# The network enlarges the rounding of float32, most of all with guidance.
@pytest.mark.parametrize(("guidance", "least"), [(1, 100), (7, 90)])
def test_the_own_sampler_makes_what_generate_locally_does(report, guidance, least):
    assert report["samplers"][f"own, 10 steps, guidance {guidance}"] >= least


@pytest.mark.parametrize(
    ("schedule", "least"), [("few steps, 12 steps", 100), ("distilled, 4 steps", 94), ("distilled, 2 steps", 100)]
)
def test_its_other_schedules_are_those_of_generate_locally(report, schedule, least):
    assert report["samplers"][schedule] >= least


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("too large", "This checkpoint makes at most 96x96 and 25 frames at once, got 112x96 and 29 frames."),
        ("distilled, 5 steps", "steps is 5, but the schedule 'distilled' has 1 to 4."),
        ("distilled, cfg 2", "cfg is 2, but the schedule 'distilled' has no guidance: set it to 1."),
        ("distilled, half of the noise", "The schedule 'distilled' starts from pure noise: set denoise to 1."),
        (
            "another model's prompt",
            "The conditioning has 768 values per token, but this model takes 96: it comes from another model. "
            "Connect CLIP Text Encode (Prompt) to the CLIP of the same Checkpoint Loader (Cosmos Predict2.5).",
        ),
        ("an image's latent", START_REFUSAL.format("(1, 4, 8, 8)")),
        ("another VAE's latent", START_REFUSAL.format("(1, 48, 3, 8, 8)")),
        ("nothing to make", START_REFUSAL.format("(1, 16, 2, 8, 8)")),
        (
            "another VAE",
            "The VAE gives a latent of the shape (5, 4, 8, 8), but must give (1, 16, 2, 8, 8): connect the VAE of the "
            "Checkpoint Loader (Cosmos Predict2.5), or the Wan 2.1 VAE.",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(report, what, says):
    assert report["refusals"][what] == says


def test_the_dfd_checkpoint_makes_what_generate_locally_does_with_its_frame_rate_in_the_positions(report):
    assert report["dfd"]["12"] >= 60
    assert report["dfd"]["24"] < 40


def test_nan_ends_a_run_of_comfyuis_own_samplers_at_its_first_step(report):
    assert report["refusals"]["NaN"].startswith("The transformer produced NaN in this step.")


@pytest.mark.parametrize(
    ("name", "least"), [long("uni_pc_bh2", 42), long("deis", 49), long("dpmpp_2m", 59), long("euler", 51)]
)
def test_ksamplers_own_samplers_come_near_at_35_steps(report, name, least):
    assert report["samplers"][name] >= least


@pytest.mark.parametrize("given", ["1", "5"])
def test_a_start_latent_makes_what_generate_locally_makes_of_the_same_start(report, given):
    """But for the start's own frames, which ComfyUI keeps as they are, and what that changes in those after them."""
    assert report["starts"][given]["known"] <= 1e-4
    assert report["starts"][given]["rest"] >= 60


def test_another_variant_makes_what_generate_locally_does_with_it(report):
    """Of text and of a clip, with ComfyUI's scheduler simple; the post-trained 2B's settings make another video."""
    found = report["other variant"]
    assert found["sigmas"] <= 1e-4
    assert min(found["text"], found["clip"]) >= 55
    assert max(found["text, post-trained"], found["clip, post-trained"]) <= 45


@pytest.mark.parametrize(
    ("node", "least", "most"),
    [
        long("TorchCompileModel", 100, 200),
        long("ModelSamplingContinuousEDM", 50, 70),  # its noise is ComfyUI's, 200/201 of ours
        long("CFGZeroStar", 15, 50),
        long("RescaleCFG", 15, 50),
        long("LazyCache", 15, 40),
        long("SkipLayerGuidanceDiT", 100, 200),
    ],
)
def test_other_nodes_do_to_the_video_what_the_help_page_says(report, node, least, most):
    """In decibels to the video without it: above 100 it is the same, below 22 it is spoilt."""
    assert least <= report["other nodes"][node] <= most


def test_a_node_that_cannot_do_with_dynamic_loading_has_the_same_weights(report):
    assert report["loaded once more"] == {"MODEL": True, "CLIP": True}


@pytest.mark.parametrize("sampler", [long("standard"), long("dpmpp_2m")])
def test_easycache_skips_passes_and_keeps_the_video_with_our_sampler_and_ksamplers(report, sampler):
    """In a second run with the same MODEL as well, which starts with an empty cache."""
    found = report["cached"][sampler]
    assert 20 <= found["passes"] <= 30
    assert found["decibels"] >= 32  # the worst video in docs/benchmarks.md has 33
    assert found["decibels once more"] == found["decibels"]


@pytest.mark.parametrize("how", ["loaded", "streamed"])
@pytest.mark.parametrize("kind", ["text", "picture"])
def test_the_writer_writes_the_tokens_that_transformers_does(report, kind, how):
    writer = report["writer"]
    assert writer[how][kind] == writer["transformers"][kind]
    assert len(set(writer[how][kind])) > 10
    assert writer["streamed layers"] > 20


def test_generate_text_gives_what_transformers_writes(report):
    assert report["writer"]["Generate Text"] == report["writer"]["texts"]


def test_the_writer_leaves_out_what_a_later_comfyui_tells_it(report):
    assert report["writer"]["with mtp"] == report["writer"]["loaded"]["text"]


def test_sampling_has_what_this_comfyui_takes_of_what_is_known(core):
    from comfy.text_encoders.llama import BaseGenerate

    from cosmos_predict25.nodes.native.writer import SAMPLING, sampling_options

    def older(logits, temperature, top_k, token_history, generator, do_sample=True): ...

    def newer(logits, temperature, top_k, mtp=None, **more): ...

    given = {"temperature": 0.5, "top_k": 7, "mtp": 4}
    assert sampling_options(BaseGenerate.sample_token, {}) == SAMPLING
    assert sampling_options(BaseGenerate.sample_token, given) == {**SAMPLING, "temperature": 0.5, "top_k": 7}
    assert sampling_options(older, given) == sampling_options(newer, given) == {"temperature": 0.5, "top_k": 7}
    assert sampling_options(older, {}) == {"temperature": 1.0, "top_k": 50}


def test_the_writer_samples_and_decodes(report):
    assert len(report["writer"]["sampled"]) == 20
    assert report["writer"]["sampled"] != report["writer"]["loaded"]["text"]
    assert report["writer"]["decoded"] == "a cat"


def test_a_picture_is_cut_into_the_patches_that_transformers_makes(report):
    assert report["writer"]["patches"] <= 1e-5


def test_a_picture_is_seen_as_transformers_sees_it_and_where(report):
    assert report["writer"]["vision"] <= 1e-4
    assert report["writer"]["same positions"]


def test_the_writer_changes_no_embedding_and_is_not_loaded_unless_asked_for(report):
    assert report["writer"]["same embedding"]
    assert report["writer"]["only the encoder"]


def test_a_clip_that_cannot_write_says_so(report):
    assert report["writer"]["not switched on"].startswith("This CLIP encodes prompts but does not write them.")
    demo = report["writer"]["demo"]
    assert demo.startswith("The demo cannot write prompts: its tokenizer has no token for a picture.")
    assert "Choose NVIDIA's model" in demo
    assert "--revision diffusers/base/post-trained" in demo


def test_scaled_float8_files_compute_what_their_weights_mean(report):
    """In both forms that ComfyUI knows, with the prefixes that such files have."""
    files = report["files"]
    assert max(files["transformer"].values()) <= 1e-4
    assert files["transformer"].keys() >= {"plain float8", "bfloat16 and float32"}
    assert files["text encoder"]["float8"] <= 1e-4 < files["text encoder"]["rounding"]


def test_a_text_encoder_in_one_file_is_the_same_as_a_folder(report):
    files = report["files"]["text encoder"]
    assert files["same tokens"]
    assert files["embedding"] <= 1e-4
    assert files["of several parts"] <= 1e-4


def test_a_text_encoder_file_of_another_kind_is_refused(report):
    files = report["files"]["text encoder"]
    assert "with lm_head and vision tower, which prompt_writer needs: model.lm_head.weight is" in files["no writer"]
    assert files["another model"].endswith("text_encoder.safetensors is not Qwen2.5-VL but a VAE.")


def test_the_writer_stops_at_the_end_of_its_text(core, tmp_path):
    from cosmos_predict25.nodes.native.clip import load_clip
    from cosmos_predict25.tests.native_writer import TOKENS, parts_of, random_writer, written

    _, tokenizer = random_writer(tmp_path)
    clip: Any = load_clip(*parts_of(tmp_path), writer=True)
    writer = clip.cond_stage_model
    assert writer.stop_tokens == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    writer.stop_tokens = ()
    unending = written(clip, None)
    assert len(unending) == TOKENS
    writer.stop_tokens = (unending[5],)
    assert written(clip, None) == unending[: unending.index(unending[5])]


@pytest.mark.parametrize("schedule", ["standard", "few steps"])
def test_the_own_samplers_preview_is_the_video_as_it_is_guessed(core, schedule):
    from cosmos_predict25.nodes.native.sampler import sample

    sigmas, previews = torch.tensor([200.0, 20, 2, 0.01, 0]), []
    guess = torch.linspace(-1, 1, 64).view(1, 16, 1, 2, 2)
    noise = torch.randn(guess.shape, generator=torch.Generator().manual_seed(1)) * (1 + sigmas[0])
    sample(lambda x, sigma: guess, noise, sigmas, callback=previews.append, schedule=schedule)
    assert [preview["i"] for preview in previews] == [0, 1, 2, 3]
    assert all(preview["denoised"].equal(guess) for preview in previews)


def nvidias_sources(name: str) -> dict[str, Source]:
    """All names of the 2B's or the 14B's file, without values."""

    class File:
        path = Path("model.pt")

        def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
            self.tensors = tensors

        def shape(self, name: str) -> tuple[int, ...]:
            return tuple(self.tensors[name].shape)

    heads, blocks = REAL_HEADS[name]
    with torch.device("meta"):
        file: Any = File(nvidias_tensors(heads, blocks))
    named = {diffusers_name(name): Source(file, name) for name in file.tensors}
    return {name: source for name, source in named.items() if name is not None}


@pytest.mark.parametrize("name", REAL_HEADS)
def test_the_network_of_the_real_shapes_is_the_one_that_comfyui_detects(core, name):
    """All but the rotary embedding of the 14B, which ComfyUI takes for that of Predict2."""
    from comfy.model_detection import detect_unet_config

    from cosmos_predict25.nodes.native.model import PROJECTION, native_names, network_config

    sources = nvidias_sources(name)
    config = network_config(transformer_config(Path("model.pt"), sources))
    tensors = {source.name.removeprefix("net."): torch.empty(source.file.shape(source.name), device="meta")
               for source in sources.values()}  # fmt: skip
    detected = detect_unet_config(tensors, "")
    rope = {f"rope_{axis}_extrapolation_ratio" for axis in "thw"}
    assert {key for key in detected if detected[key] != config.get(key)} == (rope if name == "14B" else set())
    assert [config[f"rope_{axis}_extrapolation_ratio"] for axis in "thw"] == [1, 3, 3]
    names = native_names(config, transformer_config(Path("model.pt"), sources), sources)
    assert set(names.values()) == tensors.keys()
    assert sum(name.startswith(PROJECTION) for name in set(names.values())) == 2


@pytest.mark.parametrize("name", REAL_HEADS)
def test_the_rotary_embedding_of_the_real_shapes_is_diffusers_own(core, name):
    from comfy.ldm.cosmos.predict2 import MiniTrainDIT
    from comfy.ops import disable_weight_init

    from cosmos_predict25.nodes.native.model import network_config

    config = transformer_config(Path("model.pt"), nvidias_sources(name))
    network = MiniTrainDIT(**{**network_config(config), "num_blocks": 0}, operations=disable_weight_init)
    latents = torch.zeros(1, 17, 5, 88, 160)
    ours = network.pos_embedder(torch.zeros(1, 5, 44, 80, 1), fps=None, device="cpu")
    cos, sin = CosmosRotaryPosEmbed(128, rope_scale=config["rope_scale"])(latents)
    torch.testing.assert_close(ours[..., 0, 0], cos[:, :64])
    torch.testing.assert_close(ours[..., 1, 0], sin[:, :64])
