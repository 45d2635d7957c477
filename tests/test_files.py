"""Files in the forms that people hold them in: loaded, with the same weights or the right strength."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open as real_safe_open
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint as distributed
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from cosmos_predict25.pipeline.errors import CheckpointNotFoundError, InvalidRequestError, WrongCheckpointError
from cosmos_predict25.pipeline.local.encode import tokenize
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load import weights
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder, load_vae_file
from cosmos_predict25.pipeline.local.load.find import find_pipeline_folders, find_text_encoders, why_not_found
from cosmos_predict25.pipeline.local.load.lora import read_lora
from cosmos_predict25.pipeline.local.load.parts import language_model_name
from cosmos_predict25.pipeline.local.load.reading import as_wrong_checkpoint
from cosmos_predict25.pipeline.local.schedule import is_usable, standard_sigmas
from cosmos_predict25.pipeline.local.variant import DFD, DISTILLED, KARRAS_CONFIG, OTHERS, POST_TRAINED, recognise
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.tests.held import LAYER, Held, pair
from cosmos_predict25.tests.test_checkpoint import assert_same_weights


@pytest.fixture
def held(checkpoint, tmp_path) -> Held:
    (tmp_path / "files").mkdir()
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    return Held(tmp_path / "checkpoint", tmp_path / "files")


@pytest.fixture(scope="module")
def expected(checkpoint) -> Any:
    return load_pipeline_folder(checkpoint)


WRAPPERS = [
    "_orig_mod.", "module.", "net.model.", "transformer.", "model.diffusion_model.", "module.net._orig_mod.",
    "_fsdp_wrapped_module.", "pipe.dit.",
]  # fmt: skip
MIDDLES = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"]


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_what_a_training_loop_puts_before_names_is_dropped(held, expected, prefix):
    assert_same_weights(held.load("c.safetensors", held.weights(prefix)).transformer, expected.transformer)


@pytest.mark.parametrize("middle", MIDDLES)
def test_what_it_puts_into_their_middle_is_dropped(held, expected, middle):
    found = {name.replace(".self_attn.", f".{middle}.self_attn."): value for name, value in held.weights().items()}
    assert_same_weights(held.load("c.safetensors", found).transformer, expected.transformer)


@pytest.mark.parametrize("prefix", ["vae.", "first_stage_model.", "module._orig_mod.", "model."])
def test_a_vaes_names_are_freed_too(held, expected, prefix):
    file = held.write("v.safetensors", {prefix + name: value for name, value in load_file(held.vae).items()})
    assert_same_weights(load_vae_file(file, None), expected.vae)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("base_model.model.model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("text_encoder.model.language_model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("language_model.model.norm.weight", "norm.weight"),
        ("module.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", None),
        ("lm_head.weight", None),
        ("model.visual.blocks.0.attn.qkv.weight", None),
    ],
)
def test_a_text_encoders_names_are_freed_too(name, inner):
    assert language_model_name(name) == inner


LORA_NAMES = [
    "transformer._orig_mod.transformer_blocks.0.attn1.to_q", "module.transformer_blocks.0.attn1.to_q",
    "net.model.blocks.0.self_attn.q_proj", "blocks.0._checkpoint_wrapped_module.self_attn.q_proj",
    "lora_unet__orig_mod_blocks_0_self_attn_q_proj",
]  # fmt: skip


@pytest.mark.parametrize("name", LORA_NAMES)
def test_a_loras_names_are_freed_too(held, name):
    lora = held.load_lora("o.safetensors", pair(name))
    assert {key.rpartition(".lora_")[0] for key in lora.tensors} == {LAYER}
    assert not lora.left_out


def nested(held: Held) -> dict[str, Any]:
    weights, state = held.weights(), {0: {"exp_avg": torch.ones(3), "step": torch.tensor(1)}}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1}]}
    return {
        "model": {"model": weights, "iteration": 1000},
        "state_dict": {"state_dict": weights, "epoch": 3, "optimizer": optimizer},
        "two levels": {"checkpoint": {"model": weights, "optim": {f"a{i}": torch.ones(1) for i in range(2000)}}},
        "beside a tensor": {"loss": torch.ones(1), "ema": weights},
        "a BytesIO": {**weights, "net.blocks.0.self_attn.attn_op._extra_state": io.BytesIO(b"state")},
    }


@pytest.mark.parametrize("form", ["model", "state_dict", "two levels", "beside a tensor", "a BytesIO"])
def test_weights_are_found_in_a_pickle(held, expected, form):
    assert_same_weights(held.load("n.pt", nested(held)[form]).transformer, expected.transformer)


def test_a_pickle_from_before_zip_is_read(held, expected):
    file = held.empty / "l.pt"
    torch.save(held.weights(), file, _use_new_zipfile_serialization=False)
    assert_same_weights(held.load_file(file).transformer, expected.transformer)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
def test_a_safetensors_file_of_another_name_is_read(held, expected, suffix):
    file = held.empty / f"s{suffix}"
    save_file({name: value.contiguous() for name, value in held.weights().items()}, file)
    assert_same_weights(held.load_file(file).transformer, expected.transformer)


def test_a_pickle_named_safetensors_is_read(held, expected):
    file = held.write("p.pt", held.weights())
    assert_same_weights(held.load_file(file.rename(file.with_suffix(".safetensors"))).transformer, expected.transformer)


def test_a_disk_without_memory_maps_is_read_without_one(held, expected, monkeypatch):
    def no_map(path: Path, **options: Any) -> Any:
        if Path(path).parent.name in ("transformer", "vae"):
            raise OSError("No such device (os error 19)")
        return real_safe_open(path, **options)

    monkeypatch.setattr(weights, "safe_open", no_map)
    model = held.load_folder(dtype=torch.bfloat16)
    assert model.transformer.dtype == torch.bfloat16
    assert_same_weights(model.transformer.float(), expected.transformer.to(torch.bfloat16).float())
    expected.transformer.float()


def test_any_shard_stands_for_all(held, checkpoint):
    names = sorted(held.weights())
    expected = load_pipeline_folder(checkpoint)
    for index in range(3):
        part = {name: held.weights()[name] for name in names[index::3]}
        held.write(f"model-0000{index + 1}-of-00003.safetensors", part)
    model = held.load_file(held.empty / "model-00002-of-00003.safetensors")
    assert_same_weights(model.transformer, expected.transformer)


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "transformer/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"],
)
def test_a_byte_order_mark_does_no_harm(held, name):
    file = held.folder / name
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert find_pipeline_folders([held.folder.parent]) == {"checkpoint": held.folder}
    assert held.load_folder().name == "checkpoint"


def test_text_encoders_are_found_at_any_depth(held):
    shutil.copytree(held.text_encoder, held.empty / "encoders/nvidia/Cosmos-Reason1-7B")
    shutil.copytree(held.text_encoder, held.empty / "encoders/flat")
    assert list(find_text_encoders([held.empty / "encoders"])) == ["flat", "nvidia/Cosmos-Reason1-7B"]


def test_what_is_meant_as_a_checkpoint_and_is_none_is_named(held):
    root = held.empty / "diffusers"
    held.write("diffusers/Cosmos-Predict2.5-2B/base/post-trained/81edfebe_ema_bf16.pt", b"")
    held.write("diffusers/training/iter_1000/model/__0_0.distcp", b"")
    for name, index in (("wan", '{"_class_name": "WanPipeline"}'), ("broken", "{"), ("empty", None)):
        (root / name).mkdir()
        if index:
            (root / name / "model_index.json").write_text(index)
    reasons = why_not_found([root])
    assert reasons.keys() == {"Cosmos-Predict2.5-2B", "training", "wan", "broken"}
    assert "convert_distcp_to_pt.py" in reasons["training"]
    assert "--revision diffusers/base/post-trained" in reasons["Cosmos-Predict2.5-2B"]
    assert "WanPipeline" in reasons["wan"]
    assert "cannot be read" in reasons["broken"]


def test_auto_makes_no_video_of_the_demo_where_another_model_is_meant(core, held, monkeypatch):
    from cosmos_predict25.nodes import checkpoint_inputs

    monkeypatch.setattr(checkpoint_inputs, "_roots", lambda kind: [held.empty])
    with pytest.raises(CheckpointNotFoundError, match=r"There is no Cosmos-Predict2\.5 model in"):
        checkpoint_inputs.folder_of("auto")
    held.write("Cosmos-Predict2.5-2B/base/post-trained/81edfebe_ema_bf16.pt", b"")
    with pytest.raises(CheckpointNotFoundError, match=r"--revision diffusers/base/post-trained.* Or choose 'Demo"):
        checkpoint_inputs.folder_of("auto")
    with pytest.raises(CheckpointNotFoundError, match=r"no model_index\.json.*--revision"):
        checkpoint_inputs.folder_of("Cosmos-Predict2.5-2B")
    assert checkpoint_inputs.folder_of("Demo: moving shapes (CPU)").name == "moving-shapes"


def test_single_files_that_are_not_chosen_are_named_with_their_folders(core, held, monkeypatch):
    from cosmos_predict25.nodes import checkpoint_inputs

    file = held.folder / "transformer/diffusion_pytorch_model.safetensors"
    monkeypatch.setattr(checkpoint_inputs, "_roots", lambda kind: [held.empty / kind])
    monkeypatch.setattr(checkpoint_inputs, "_file", lambda kind, name: file)
    for chosen, says in {
        ("none", "none", "none"): r"transformer is 'none'.*_ema_bf16\.pt.*diffusion_models",
        ("a.pt", "none", "none"): r"vae is 'none'.*wan_2\.1_vae\.safetensors .*vae",
        ("a.pt", "b.pt", "none"): r"text_encoder is 'none'.*nvidia/Cosmos-Reason1-7B .*text_encoders",
    }.items():
        with pytest.raises(InvalidRequestError, match=says) as error:
            checkpoint_inputs.single_files(*chosen)
        assert "GGUF" not in str(error.value)
    held.write("diffusion_models/cosmos/small.gguf", b"GGUF")
    with pytest.raises(InvalidRequestError, match=r"small\.gguf is a GGUF file, which cannot be read here"):
        checkpoint_inputs.single_files("none", "none", "none")


# Tokenizers


def without(held: Held, *fields: str) -> Any:
    (held.folder / "tokenizer/chat_template.jinja").unlink(missing_ok=True)
    held.change_json("tokenizer/tokenizer_config.json", **dict.fromkeys(fields))
    return held.load_folder().tokenizer


OLD_TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
PRINTS_PARTS = OLD_TEMPLATE.replace("m.content +", "m.content | string +")


@pytest.mark.parametrize("template", [None, OLD_TEMPLATE, PRINTS_PARTS], ids=["none", "Qwen2.5's", "prints parts"])
def test_a_chat_template_that_takes_no_prompt_is_replaced(held, expected, template):
    (held.folder / "tokenizer/chat_template.jinja").unlink(missing_ok=True)
    held.change_json("tokenizer/tokenizer_config.json", chat_template=template)
    tokens = tokenize(held.load_folder().tokenizer, "a cat")
    assert tokens.equal(tokenize(expected.tokenizer, "a cat"))


def test_a_tokenizer_without_a_pad_token_has_qwens(held, expected):
    tokens = tokenize(without(held, "pad_token"), "a cat")
    assert tokens.equal(tokenize(expected.tokenizer, "a cat"))


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
@pytest.mark.parametrize("prompt", ["a cat", "a cat " * 300], ids=["short", "long"])
def test_a_tokenizers_sides_are_the_models_own(held, expected, side, prompt):
    held.change_json("tokenizer/tokenizer_config.json", **{side: "left"})
    tokens = tokenize(held.load_folder().tokenizer, prompt)
    assert tokens.equal(tokenize(expected.tokenizer, prompt))


# Types

REQUEST = GenerationRequest(prompt="a cat", num_frames=9, num_inference_steps=2, width=48, height=32, seed=1)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("form", ["float8", "bfloat16 and float32"])
def test_a_storage_type_is_not_computed_in_on_a_cpu(held, part, form):
    (file,) = (held.folder / part).glob("*.safetensors")
    small = torch.float8_e4m3fn if form == "float8" else torch.bfloat16
    stored = {name: value if "norm" in name and form != "float8" else value.to(small)
              for name, value in load_file(file).items()}  # fmt: skip
    save_file(stored, file, {"format": "pt"})
    model = held.load_folder()
    assert {weight.dtype for weight in getattr(model, part).parameters()} == {torch.float32}
    assert torch.isfinite(generate(model, REQUEST).frames).all()


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_parts_of_different_types_work_together_on_a_cpu(held, part):
    (file,) = (held.folder / part).glob("*.safetensors")
    save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file, {"format": "pt"})
    model = held.load_folder()
    assert next(iter(getattr(model, part).parameters())).dtype == torch.bfloat16
    assert torch.isfinite(generate(model, REQUEST).frames).all()


# Schedulers

CONFIGS = {
    "Euler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 5.0},
    "no flow": {"_class_name": "UniPCMultistepScheduler"},
    "an early name": {**KARRAS_CONFIG, "_class_name": "FlowUniPCMultistepScheduler"},
    "a list": [],
    "exponential": {**KARRAS_CONFIG, "use_karras_sigmas": False, "use_exponential_sigmas": True},
    "two spacings": {**KARRAS_CONFIG, "use_exponential_sigmas": True},
    "dynamic": {**KARRAS_CONFIG, "use_karras_sigmas": False, "use_dynamic_shifting": True},
    "a word for a number": {**KARRAS_CONFIG, "sigma_max": "200"},
    "a noise of nothing": {**KARRAS_CONFIG, "sigma_max": 0.0, "sigma_min": 0.0},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_scheduler_that_is_not_the_models_is_not_used_and_that_is_said(held, name):
    (held.folder / "scheduler/scheduler_config.json").write_text(json.dumps(CONFIGS[name]))
    model = held.load_folder()
    assert model.scheduler_config == KARRAS_CONFIG
    assert standard_sigmas(model.scheduler_config, 4)[0] < 1
    assert "is not UniPC with flow sigmas: NVIDIA's own is used." in model.notes[0]


def test_a_folders_own_unipc_is_used(held):
    held.change_json("scheduler/scheduler_config.json", sigma_max=80.0)
    model = held.load_folder()
    assert (model.scheduler_config["sigma_max"], model.notes) == (80.0, ())
    assert is_usable({"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0})


# Variants

NAMES = {
    "diffusion_models/81edfebe-bd6a-4039-8c1d-737df1a790bf_ema_bf16.pt": POST_TRAINED,
    "diffusion_models/d20b7120-df3e-4911-919d-db6e08bad31c_ema_bf16.pt": OTHERS,
    "diffusion_models/575edf0f-d973-4c74-b52c-69929a08d0a5_ema_bf16.pt": DISTILLED,
    "base/pre-trained/model.pt": OTHERS,
    "base/distilled/model.pt": DISTILLED,
    "base/pre-trained/81edfebe-bd6a_ema_bf16.pt": POST_TRAINED,
    "pretrained_models/diffusion_models/model.pt": POST_TRAINED,
    "pretrained/cosmos-2b-post-trained.safetensors": POST_TRAINED,
    "diffusion_models/cosmos_predict2.5_2b_pretrained_bf16.safetensors": OTHERS,
    "diffusion_models/Cosmos-Predict2.5-2B-Distilled.safetensors": DISTILLED,
    "cosmos_dfd_checkpoints/0000040.net_model.pt": DFD,
    "diffusion_models/cosmos25-dfd-distilled.safetensors": DFD,
    "diffusers/Cosmos-Predict2.5-2B": POST_TRAINED,
    "diffusers/Cosmos-Predict2.5-2B-pre-trained": OTHERS,
    "checkpoints/iter_000002000/model_ema_bf16.pt": POST_TRAINED,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_2b_models_variant_is_known_by_nvidias_names(name):
    assert recognise(Path("/comfyui/models", name), 16) is NAMES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_14b_model_is_known_by_its_heads(name):
    assert recognise(Path("/comfyui/models", name), 40) is OTHERS


def test_a_revision_is_read_off_hugging_faces_cache_and_a_clone(tmp_path):
    repository = tmp_path / "models--nvidia--Cosmos-Predict2.5-2B"
    snapshot, clone = repository / "snapshots" / "15a82a2e", tmp_path / "clone"
    for folder in (snapshot, clone / ".git", repository / "refs/diffusers/base"):
        folder.mkdir(parents=True)
    assert recognise(snapshot, 16) is recognise(clone, 16) is POST_TRAINED
    (repository / "refs/diffusers/base/pre-trained").write_text("15a82a2e\n")
    (clone / ".git" / "HEAD").write_text("ref: refs/heads/diffusers/base/pre-trained\n")
    assert recognise(snapshot, 16) is recognise(clone, 16) is OTHERS


def test_a_choice_goes_before_what_is_recognised_and_before_the_folders_scheduler(held):
    assert held.load_folder().variant is POST_TRAINED
    model = held.load_folder(variant=OTHERS)
    assert (model.variant, model.scheduler_config) == (OTHERS, OTHERS.scheduler_config)
    file = held.write("d20b7120_ema_bf16.pt", held.weights())
    assert held.load_file(file).variant is OTHERS
    assert held.load_file(file, variant=DISTILLED).variant is DISTILLED


def test_the_dfd_checkpoint_loads_after_the_command_that_its_refusal_gives(held):
    folder = held.empty / "0000040.net_model"
    distributed.save({"net": held.weights()}, checkpoint_id=folder, no_dist=True)
    with pytest.raises(WrongCheckpointError) as refused, as_wrong_checkpoint(folder):
        raise OSError("Is a directory")
    file = folder.with_name(f"{folder.name}.pt")
    assert f"dcp_to_torch {folder} models/diffusion_models/{file.name}" in str(refused.value)
    dcp_to_torch_save(folder, file)
    assert held.load_file(file).variant is DFD


def test_the_zip_of_a_distributed_checkpoint_is_to_be_extracted(held):
    file = held.empty / "0000040.net_model.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0000040.net_model/__0_0.distcp", b"")
    with pytest.raises(WrongCheckpointError, match=r"net_model\.pt is the zip .*: extract it.*dcp_to_torch"):
        held.load_file(file)


# LoRAs


def adapter(held: Held, tensors: dict[str, torch.Tensor], name: str = "adapter_model.safetensors", **config: Any):
    (held.empty / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **config}))
    return held.load_lora(name, tensors)


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        ({"lora_alpha": 8}, 8),
        ({"lora_alpha": 8, "use_rslora": True}, 16),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 3}}, 3),
        ({"lora_alpha": 8, "r": 64, "rank_pattern": {"attn1.to_q": 4}}, 8),
    ],
)
def test_pefts_config_beside_the_file_gives_alpha(held, config, alpha):
    lora = adapter(held, pair(f"base_model.model.{LAYER}"), **config)
    assert lora.tensors[f"{LAYER}.alpha"] == alpha
    assert not lora.assumes_alpha


def test_a_config_beside_a_file_of_another_name_is_not_its_own(held):
    assert adapter(held, pair(f"base_model.model.{LAYER}"), "mine.safetensors", lora_alpha=8).assumes_alpha


def test_it_is_said_where_no_alpha_is_anywhere(held):
    assert held.load_lora("a.safetensors", pair(LAYER)).assumes_alpha
    assert not held.load_lora("b.safetensors", {**pair(LAYER), f"{LAYER}.alpha": torch.tensor(2.0)}).assumes_alpha
    assert not held.load_lora("c.safetensors", {f"{LAYER}.diff": torch.ones(8, 8)}).assumes_alpha


FACTORS = {
    "LoKr": {"lokr_w1": (2, 4), "lokr_w2": (4, 2)},
    "LoKr of products": {"lokr_w1": (2, 2), "lokr_w2_a": (4, 3), "lokr_w2_b": (3, 4)},
    "LoHa": {"hada_w1_a": (8, 3), "hada_w1_b": (3, 8), "hada_w2_a": (8, 3), "hada_w2_b": (3, 8)},
}


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize(
    "name", [LAYER, "lycoris_transformer_blocks_0_attn1_to_q", "lora_unet_blocks_0_self_attn_q_proj"]
)
def test_a_lokr_and_a_loha_find_their_layer(held, kind, name):
    lora = held.load_lora(
        "l.safetensors", {f"{name}.{part}": torch.ones(shape) for part, shape in FACTORS[kind].items()}
    )
    assert lora.tensors.keys() == {f"{LAYER}.{part}" for part in FACTORS[kind]}
    assert lora.assumes_alpha == (kind != "LoKr")


def test_the_text_projection_is_a_layer_like_any_other(held):
    tensors = {
        "net.crossattn_proj.0.lora_A.weight": torch.ones(2, 16),
        "net.crossattn_proj.0.lora_B.weight": torch.ones(8, 2),
    }
    assert held.load_lora("p.safetensors", tensors).tensors.keys() >= {"crossattn_proj.0.lora_up.weight"}


def test_a_lora_trainings_whole_checkpoint_is_a_lora_without_what_the_model_has(held):
    shapes = {name.removesuffix(".weight"): tuple(value.shape) for name, value in load_file(held.transformer).items()}
    lora = read_lora(held.write("iter_1000.pt", held.with_lora()), shapes)
    assert len(lora.tensors) == 2 * sum(name.endswith("base_layer.weight") for name in held.with_lora())
    assert set(lora.left_out) <= {"net.base_model.model.crossattn_proj.0.bias"}
