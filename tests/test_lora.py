"""LoRAs: the names that trainers give, what a file is refused for, and what ComfyUI makes of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cosmos_predict25.pipeline.errors import WrongCheckpointError
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.load.lora import read_lora
from cosmos_predict25.pipeline.local.load.original_names import diffusers_name, original_name
from cosmos_predict25.pipeline.local.lora import layers_of, merge_lora
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.tests.lora import NAMINGS, merged, random_pairs, write_lora

SHAPES = {
    "transformer_blocks.0.attn1.to_q": (8, 8),
    "transformer_blocks.11.ff.net.0.proj": (32, 8),
    "transformer_blocks.11.attn1.norm_q": (4,),
}
PAIRS = {name: (torch.ones(shape[0], 4), torch.ones(4, shape[1])) for name, shape in SHAPES.items() if len(shape) == 2}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("0.30.0", marks=pytest.mark.slow),
        pytest.param("0.18.2", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
    ],
)
def report(request, tmp_path_factory):
    """What tests/lora_worker.py finds in this ComfyUI."""
    worker = Path(__file__).with_name("lora_worker.py")
    folder = tmp_path_factory.mktemp("loras")
    environment = {**os.environ, "TESTED_COMFYUI": request.param}
    command = [sys.executable, str(worker), str(DEMO_FOLDER), str(folder)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_lora_of_any_naming_is_what_merging_it_by_hand_gives(report, naming):
    assert report["namings"][naming] == [40, [], 0, 0]
    *found, loaded, streamed = report["MODEL"][naming]
    assert found == [40, []]
    assert max(loaded, streamed) < 5e-6 < 0.1 < report["effects"]["MODEL"]


@pytest.mark.parametrize("config", ["plain", "dora", "rank-stabilised, another alpha"])
def test_a_file_of_peft_and_diffusers_does_what_peft_does(report, config):
    count, left_out, distance = report["peft"][config]
    assert (count, left_out) == (40, [])
    assert distance < 1e-5 < 0.1 < report["effects"][f"PEFT {config}"]


def test_a_lokr_and_a_loha_are_what_their_formulas_give(report):
    assert report["factors"].keys() == {"LoKr", "LoHa"}
    assert max(report["factors"].values()) < 1e-4


def test_a_lora_of_the_text_projection_is_applied_where_that_lives_in_both_engines(report):
    found = report["projection"]
    assert max(found["distances"]) < 1e-4 < 0.05 < found["effect"]
    assert found["layers"] == [1] * 6
    assert found["left out"] == [[], [f"net.crossattn_proj.0.lora_{half}.weight" for half in "AB"]]
    assert found["prompts of its own"]
    assert found["without it"] == 0


def test_comfyuis_own_loader_leaves_the_text_projection_out_as_the_help_says(report):
    assert report["projection"]["patches of ComfyUI's own loader"] == [0, 0]


def test_kept_prompts_have_another_name_for_each_strength_of_a_lora_of_the_projection(report):
    assert [len(names) for names in report["projection"]["kept"]] == [1, 2, 3, 3]


def test_the_model_with_a_distilled_lora_is_a_distilled_one(report):
    assert report["projection"]["schedules"] == ["distilled", None]


def test_loras_add_up_and_branches_of_a_graph_take_turns(report):
    for name, distance in (*report["streamed"].items(), *report["in turn"]):
        assert distance <= (1e-5 if name == "dora" else 0), name
    assert min(report["effects"][name] for name in ("one", "two", "dora")) > 0.1


def test_without_its_loras_the_model_is_as_it_was(report):
    assert report["base bit-equal"]
    assert report["MODEL bit-equal"]
    assert report["from disk again"]


def test_a_lora_changes_neither_the_prompts_nor_what_another_video_left(report):
    assert report["the same prompts"]
    assert report["one's own latents"]


def test_names_go_both_ways():
    transformer = json.loads((DEMO_FOLDER / "transformer" / "config.json").read_text(encoding="utf-8"))
    assert transformer["num_layers"] > 1
    from diffusers import CosmosTransformer3DModel

    with torch.device("meta"):
        names = list(CosmosTransformer3DModel.from_config(transformer).state_dict())
    originals = [original_name(name) for name in names]
    assert len(set(originals)) == len(names)
    assert "blocks.0.self_attn.output_proj.weight" in originals
    assert [diffusers_name(name) for name in originals] == names


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_tensor_finds_its_layer(tmp_path, naming):
    lora = read_lora(write_lora(tmp_path, naming, PAIRS), SHAPES)
    assert {name.rpartition(".lora_")[0] or name.removesuffix(".alpha") for name in lora.tensors} == PAIRS.keys()
    assert lora.tensors["transformer_blocks.11.ff.net.0.proj.lora_up.weight"].shape == (32, 4)
    assert lora.tensors["transformer_blocks.11.ff.net.0.proj.lora_down.weight"].shape == (4, 8)
    assert not lora.left_out


def test_alpha_is_read_from_the_metadata_that_diffusers_writes(tmp_path):
    settings = {"transformer.r": 4, "transformer.lora_alpha": 6, "transformer.alpha_pattern": {"ff.net.0.proj": 3}}
    tensors = {}
    for layer, (up, down) in PAIRS.items():
        tensors |= {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    read = read_lora(tmp_path / "a.safetensors", SHAPES).tensors
    assert read["transformer_blocks.0.attn1.to_q.alpha"] == 6
    assert read["transformer_blocks.11.ff.net.0.proj.alpha"] == 3


@pytest.mark.parametrize(
    ("name", "metadata", "is_distilled"),
    [
        ("Cosmos-Predict2.5-2B-base-distilled-LoRA", {}, True),
        ("turbo", {"modelspec.description": "Distilled to 4 steps"}, True),
        ("turbo", {"ss_tag_frequency": '{"distilled water": 3}'}, False),
        ("black-shapes", {}, False),
    ],
)
def test_a_distilled_lora_is_recognised_by_its_name_or_its_description(tmp_path, name, metadata, is_distilled):
    up, down = PAIRS["transformer_blocks.0.attn1.to_q"]
    layer = "diffusion_model.blocks.0.self_attn.q_proj"
    tensors = {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}
    save_file(tensors, tmp_path / f"{name}.safetensors", metadata)
    assert read_lora(tmp_path / f"{name}.safetensors", SHAPES).is_distilled == is_distilled


def test_what_does_not_fit_is_left_out_and_told(tmp_path):
    extra = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0),
        "lora_unet_blocks_0_cross_attn_q_proj.alpha": torch.tensor(1.0),
        "diffusion_model.blocks.11.self_attn.q_norm.diff": torch.ones(4),
    }
    lora = read_lora(write_lora(tmp_path, "kohya", PAIRS, extra), SHAPES)
    assert sorted(lora.left_out) == sorted(list(extra)[:2])
    assert lora.tensors["transformer_blocks.11.attn1.norm_q.diff"].equal(torch.ones(4))


def test_oft_and_boft_turn_the_outputs_of_a_layer(tmp_path):
    layers = {"blocks.0.self_attn.q_proj": (2, 4, 4), "blocks.11.mlp.layer1": (3, 4, 8, 8)}
    tensors = {f"diffusion_model.{name}.oft_blocks": torch.ones(shape) for name, shape in layers.items()}
    tensors["diffusion_model.blocks.0.self_attn.q_proj.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "oft.safetensors")
    lora = read_lora(tmp_path / "oft.safetensors", SHAPES)
    assert not lora.left_out
    assert lora.tensors["transformer_blocks.0.attn1.to_q.oft_blocks"].shape == (2, 4, 4)
    assert lora.tensors["transformer_blocks.11.ff.net.0.proj.oft_blocks"].shape == (3, 4, 8, 8)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (
            {"blocks.0.self_attn.q_proj.a1.weight": (8, 4)},
            r"changes this model by diffusion_model\.blocks\.0\.self_attn\.q_proj\.a1\.weight, of a kind that is not",
        ),
        (
            {"blocks.11.mlp.layer1.lora_down.weight": (4, 6), "blocks.11.mlp.layer1.lora_up.weight": (32, 4)},
            r"in part alone\. .*of another size: transformer_blocks\.11\.ff\.net\.0\.proj has shape \(32, 6\)",
        ),
        ({"blocks.11.mlp.layer1.oft_blocks": (2, 4, 4)}, "fits this model in part alone"),
    ],
    ids=["a kind that is not known", "another size", "blocks of another size"],
)
def test_a_file_is_taken_as_a_whole_or_not_at_all(tmp_path, extra, says):
    """The change of a norm fits every model with heads of this size."""
    tensors = {"diffusion_model.blocks.11.self_attn.q_norm.diff": torch.ones(4)}
    tensors |= {f"diffusion_model.{name}": torch.ones(shape) for name, shape in extra.items()}
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(WrongCheckpointError, match=says):
        read_lora(tmp_path / "part.safetensors", SHAPES)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], "It seems to be for Flux or HunyuanVideo."),
        (["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"], "It seems to be for Flux or HunyuanVid"),
        (["diffusion_model.blocks.0.self_attn.q.lora_A.weight"], "It seems to be for Wan."),
        (["lora_unet_input_blocks_4_1_proj_in.alpha"], "It seems to be for Stable Diffusion 1, 2 or XL."),
        (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "It seems to be for Stable Diffusion 1, 2 or XL."),
        (["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"], "It seems to be for Stable Diffusion 3 or Qwen"),
        (["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], "It seems to be for a language model."),
        (["net.blocks.0.self_attn.q_proj.weight"], "does not seem to be a LoRA"),
        (
            ["a.lora_A.weight", "b", "c", "d"],
            "Its first tensors are a.lora_A.weight, b, c. It is for an unknown model.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_file_for_another_model_is_refused_with_what_it_seems_to_be(tmp_path, names, says):
    save_file({name: torch.ones(1) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(WrongCheckpointError, match=r"other\.safetensors does not fit this model") as refused:
        read_lora(tmp_path / "other.safetensors", SHAPES)
    assert says in str(refused.value)
    assert names[0] in str(refused.value)


def test_a_lora_for_another_size_is_refused_with_both_sizes(tmp_path):
    pairs = {"transformer_blocks.0.attn1.to_q": (torch.ones(16, 4), torch.ones(4, 16))}
    with pytest.raises(WrongCheckpointError, match=r"another size: transformer_blocks\.0\.attn1\.to_q .*\(16, 16\)"):
        read_lora(write_lora(tmp_path, "NVIDIA", pairs), SHAPES)


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(WrongCheckpointError, match="cannot be read"):
        read_lora(tmp_path / "page.safetensors", SHAPES)
    broken = {"lora_adapter_metadata": "{"}
    pair = {"transformer_blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 8)}
    pair["transformer_blocks.0.attn1.to_q.lora_B.weight"] = torch.ones(8, 4)
    save_file(pair, tmp_path / "broken.safetensors", broken)
    with pytest.raises(WrongCheckpointError, match="cannot be read"):
        read_lora(tmp_path / "broken.safetensors", SHAPES)


@pytest.fixture
def model() -> LocalModel:
    return load_pipeline_folder(DEMO_FOLDER)


def weights_of(model: LocalModel) -> dict[str, torch.Tensor]:
    return {name: layer.weight.clone() for name, layer in layers_of(model).items()}


@pytest.mark.parametrize("naming", ["diffusers", "ComfyUI with alpha", "NVIDIA"])
def test_in_plain_python_a_lora_is_merged_into_the_weights(model, tmp_path, naming):
    pairs, before = random_pairs(model.transformer, 1), weights_of(model)
    lora = merge_lora(model, write_lora(tmp_path, naming, pairs), -0.5)
    assert not lora.left_out
    for name, weight in weights_of(model).items():
        expected = merged(before[name], *pairs[name], -0.5) if name in pairs else before[name]
        torch.testing.assert_close(weight, expected)


def test_in_plain_python_a_dora_a_lokr_a_loha_and_a_difference_are_their_formulas(model, tmp_path):
    name, factor = "transformer_blocks.0.attn1.to_q", torch.randn
    before = weights_of(model)[name]
    up, down, magnitude = factor(128, 4), factor(4, 128), 1 + factor(128, 1).abs()
    whole = before + up @ down
    lokr, loha = [factor(2, 4), factor(64, 3), factor(3, 32)], [factor(128, 3), factor(3, 128)] * 2
    cases = [
        ({"lora_A.weight": down, "lora_B.weight": up, "lora_magnitude_vector": magnitude[:, 0]},
         magnitude * whole / whole.norm(dim=1, keepdim=True)),
        (dict(zip(("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"), [*lokr, torch.tensor(6.0)], strict=True)),
         before + 2 * torch.kron(lokr[0], lokr[1] @ lokr[2])),
        (dict(zip(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"),
                  [each.clone() for each in loha] + [torch.tensor(6.0)], strict=True)),
         before + 2 * (loha[0] @ loha[1]) * (loha[2] @ loha[3])),
        ({"diff": up @ down}, whole),
    ]  # fmt: skip
    for tensors, expected in cases:
        save_file({f"{name}.{kind}": value.contiguous() for kind, value in tensors.items()}, tmp_path / "a.safetensors")
        layers_of(model)[name].weight.data = before.clone()
        merge_lora(model, tmp_path / "a.safetensors")
        torch.testing.assert_close(weights_of(model)[name], expected, rtol=1e-4, atol=1e-4)


def test_in_plain_python_a_lora_of_the_text_projection_changes_the_text_encoder(model, tmp_path):
    before = weights_of(model)["crossattn_proj.0"]
    up, down = torch.randn(before.shape[0], 2), torch.randn(2, before.shape[1])
    save_file({"net.crossattn_proj.0.lora_A.weight": down, "net.crossattn_proj.0.lora_B.weight": up},
              tmp_path / "a.safetensors")  # fmt: skip
    merge_lora(model, tmp_path / "a.safetensors")
    torch.testing.assert_close(model.text_encoder.crossattn_proj[0].weight, before + up @ down)


def test_in_plain_python_oft_is_refused(model, tmp_path):
    save_file({"transformer_blocks.0.attn1.to_q.oft_blocks": torch.zeros(8, 16, 16)}, tmp_path / "a.safetensors")
    with pytest.raises(WrongCheckpointError, match="is OFT"):
        merge_lora(model, tmp_path / "a.safetensors")
