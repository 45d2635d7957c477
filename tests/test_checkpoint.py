"""Finding and loading checkpoints: folders, single files, files of other models, and what the errors say.

Files with original names are made from ComfyUI's own Cosmos and Wan modules, and what they compute is compared.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from safetensors.torch import load_file, save_file

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.random_checkpoint import write_random_checkpoint
from cosmos_predict25.pipeline.errors import CheckpointNotFoundError, WrongCheckpointError
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity
from cosmos_predict25.pipeline.local.encode import encode_prompt, tokenize
from cosmos_predict25.pipeline.local.load.checkpoint import (
    load_pipeline_folder,
    load_single_files,
    load_vae_file,
)
from cosmos_predict25.pipeline.local.load.find import (
    DEMO,
    DOWNLOAD,
    find_checkpoints,
    find_pipeline_folders,
    find_text_encoders,
    nothing_found,
    size_of_weights,
)
from cosmos_predict25.pipeline.local.load.original_names import diffusers_name, diffusers_vae_name
from cosmos_predict25.pipeline.local.load.parts import folder_parts, transformer_config, vae_file_parts
from cosmos_predict25.pipeline.local.load.weights import Source, check_same_tensors
from cosmos_predict25.tests.posix import only_posix
from cosmos_predict25.tests.test_generate import Recorder, StoppedError

HEADS, HEAD_DIM, BLOCKS, TEXT_DIM = 4, 32, 2, 64


@pytest.fixture(scope="module")
def core_transformer(core):
    """ComfyUI's Cosmos-Predict2 network in the shape that Predict2.5 has, small."""
    import comfy.ops
    from comfy.ldm.cosmos.predict2 import MiniTrainDIT

    torch.manual_seed(1)
    network = MiniTrainDIT(
        max_img_h=240, max_img_w=240, max_frames=128, in_channels=17, out_channels=16, patch_spatial=2,
        patch_temporal=1, concat_padding_mask=True, model_channels=HEADS * HEAD_DIM, num_blocks=BLOCKS,
        num_heads=HEADS, crossattn_emb_channels=TEXT_DIM, pos_emb_cls="rope3d", pos_emb_learnable=True,
        use_adaln_lora=True, adaln_lora_dim=16, rope_h_extrapolation_ratio=3.0, rope_w_extrapolation_ratio=3.0,
        rope_t_extrapolation_ratio=1.0, rope_enable_fps_modulation=False, operations=comfy.ops.disable_weight_init,
        dtype=torch.float32,
    )  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.fixture(scope="module")
def original_weights(core_transformer, checkpoint) -> dict[str, torch.Tensor]:
    """As in NVIDIA's file: prefix, projection, and the entries that are no weights."""
    weights = {f"net.{name}": tensor for name, tensor in core_transformer.state_dict().items()}
    projection = load_file(checkpoint / "transformer" / "diffusion_pytorch_model.safetensors")
    for part in ("weight", "bias"):
        weights[f"net.crossattn_proj.0.{part}"] = projection[f"crossattn_proj.0.{part}"]
    weights["net.accum_iteration"] = torch.tensor(7)
    weights["net.pos_embedder.seq"] = torch.arange(128).float()
    weights["net.blocks.0.self_attn.attn_op._extra_state"] = torch.zeros(1)
    return weights


@pytest.fixture(scope="module")
def nvidias_pickle(original_weights, tmp_path_factory) -> Path:
    """Also with an entry that is no tensor."""
    file = tmp_path_factory.mktemp("pickle") / "model.pt"
    torch.save({**original_weights, "net.blocks.1.self_attn.attn_op._extra_state": None}, file)
    return file


@pytest.fixture(scope="module")
def text_encoder(checkpoint, tmp_path_factory) -> Path:
    """A transformers folder: text encoder and tokenizer side by side."""
    folder = tmp_path_factory.mktemp("text_encoders") / "reason"
    shutil.copytree(checkpoint / "text_encoder", folder)
    shutil.copytree(checkpoint / "tokenizer", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def vae_file(checkpoint) -> Path:
    return checkpoint / "vae" / "diffusion_pytorch_model.safetensors"


def write(weights: dict[str, torch.Tensor], path: Path) -> Path:
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    return path


def velocity(transformer, embeds) -> torch.Tensor:
    latents = torch.randn(1, 16, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    return predict_velocity(transformer, latents, torch.tensor([0.7]), embeds, condition_mask(latents))


def assert_same_weights(module: torch.nn.Module, expected: torch.nn.Module) -> None:
    weights, others = module.state_dict(), expected.state_dict()
    assert weights.keys() == others.keys()
    assert all(weights[name].equal(others[name]) for name in weights)


def public(config) -> dict:
    return {key: value for key, value in config.items() if not key.startswith("_")}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_nvidias_file_computes_what_comfyuis_network_does(
    suffix, core_transformer, original_weights, nvidias_pickle, text_encoder, vae_file, tmp_path
):
    file = nvidias_pickle if suffix == ".pt" else write(original_weights, tmp_path / "model.safetensors")
    model = load_single_files(file, vae_file, text_encoder)
    embeds = encode_prompt(model.text_encoder, model.tokenizer, "a cat")
    latents = torch.randn(1, 16, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    with_mask = torch.cat([latents, torch.zeros_like(latents[:, :1])], dim=1)
    with torch.inference_mode():
        expected = core_transformer(with_mask, torch.tensor([0.7]), embeds)
    difference = (velocity(model.transformer, embeds) - expected).abs().max().item()
    print(f"\nlargest difference to ComfyUI's network: {difference:.1e} of {expected.abs().max():.2f}")
    assert difference <= 1e-4


def test_single_files_and_folder_are_the_same_model(checkpoint, text_encoder, vae_file):
    """Also with diffusers' parameter names in the single file."""
    folder = load_pipeline_folder(checkpoint)
    transformer = checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    files = load_single_files(transformer, vae_file, text_encoder)
    configs = [json.dumps(public(model.transformer.config), sort_keys=True) for model in (folder, files)]
    assert configs[0] == configs[1]
    for part in ("text_encoder", "transformer", "vae"):
        assert_same_weights(getattr(files, part), getattr(folder, part))
    tokens = [tokenize(model.tokenizer, "a cat") for model in (folder, files)]
    assert tokens[0].equal(tokens[1])


def test_weights_keep_their_dtype_or_take_the_one_asked_for(checkpoint):
    for dtype in (None, torch.float32, torch.bfloat16):
        model = load_pipeline_folder(checkpoint, dtype)
        parts = (model.text_encoder, model.transformer, model.vae)
        assert {parameter.dtype for part in parts for parameter in part.parameters()} == {dtype or torch.float32}
        assert not any(tensor.is_meta for part in parts for tensor in [*part.parameters(), *part.buffers()])


def test_the_text_encoder_may_keep_another_type(checkpoint):
    model = load_pipeline_folder(checkpoint, torch.float32, torch.bfloat16)
    weights = {weight.dtype for weight in model.text_encoder.language_model.parameters()}
    assert weights | {model.text_encoder.token_embeddings.dtype} == {torch.bfloat16}
    assert {weight.dtype for part in (model.transformer, model.vae) for weight in part.parameters()} == {torch.float32}


def test_the_text_encoder_is_never_float16(checkpoint):
    model = load_pipeline_folder(checkpoint, torch.float16)
    assert {weight.dtype for weight in model.text_encoder.language_model.parameters()} == {torch.bfloat16}
    assert {weight.dtype for part in (model.transformer, model.vae) for weight in part.parameters()} == {torch.float16}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.exhaustive), "bfloat16"])
def test_loading_takes_little_more_memory_than_the_files(tmp_path, dtype):
    folder = tmp_path / "large"
    write_random_checkpoint(folder, hidden_size=960, num_attention_heads=40)
    size = size_of_weights(folder) / 2**20
    command = [sys.executable, str(environment.REPO / "benchmarks" / "load.py"), "ours", str(folder), dtype]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads(printed.splitlines()[-1])
    print(f"\n{figures['mib']:.0f} MiB in {dtype} for {size:.0f} MiB of files", end="")
    assert figures["mib"] <= 1.15 * size


def test_wans_names_are_diffusers_ones_by_diffusers_own_table(core):
    from comfy.ldm.wan.vae import WanVAE
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    names = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).state_dict().keys()
    table = convert_wan_vae_to_diffusers({name: name for name in names})
    assert {diffusers_vae_name(name): name for name in names} == table
    assert all(diffusers_vae_name(name) == name for name in table)


def test_wan_vae_file_of_comfyui_decodes_like_comfyui(core, tmp_path):
    from comfy.ldm.wan.vae import WanVAE

    torch.manual_seed(3)
    with torch.inference_mode():
        core_vae = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).eval()
        for parameter in core_vae.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        vae = load_vae_file(write(core_vae.state_dict(), tmp_path / "wan_2.1_vae.safetensors"), None)
        latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(2))
        expected = (core_vae.decode(latents)[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
    frames = torch.cat(list(decode_chunks(vae, latents)))
    assert frames.shape == expected.shape == (9, 32, 48, 3)
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)


def test_predict2_is_refused(original_weights, text_encoder, vae_file, tmp_path):
    weights = {name: tensor for name, tensor in original_weights.items() if "crossattn_proj" not in name}
    with pytest.raises(
        WrongCheckpointError, match=r"it is Cosmos-Predict2, not 2\.5, or ComfyUI saved it from a MODEL"
    ):
        load_single_files(write(weights, tmp_path / "model.pt"), vae_file, text_encoder)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["net.blocks.block0.blocks.0.block.attn.to_q.0.weight"], "Cosmos 1.0"),
        (["patch_embedding.weight", "blocks.0.self_attn.q.weight"], "Wan"),
        (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["encoder.conv1.weight", "decoder.conv1.weight"], "a VAE"),
        (["a.weight", "b.weight"], "an unknown model whose first parameters are a.weight, b.weight"),
    ],
)
def test_other_models_are_named(names, what, text_encoder, vae_file, tmp_path):
    file = write({name: torch.zeros(2) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(WrongCheckpointError) as error:
        load_single_files(file, vae_file, text_encoder)
    assert str(error.value) == f"{file} is not Cosmos-Predict2.5 but {what}."


def test_a_state_of_nvidias_training_names_the_file_to_take(original_weights, text_encoder, vae_file, tmp_path):
    averaged = {name.replace("net.", "net_ema.", 1): tensor for name, tensor in original_weights.items()}
    for weights in ({**original_weights, **averaged}, averaged):
        with pytest.raises(WrongCheckpointError, match=r"Choose its model_ema_bf16\.pt"):
            load_single_files(write(weights, tmp_path / "model.pt"), vae_file, text_encoder)


def test_float8_with_scales_is_refused_with_the_loader_that_takes_it(
    original_weights, text_encoder, vae_file, tmp_path
):
    scaled = {**original_weights, "net.blocks.0.mlp.layer1.scale_weight": torch.ones(1)}
    with pytest.raises(
        WrongCheckpointError, match=r"in scaled float8.* template 'Cosmos Text to Video \(core nodes\)'"
    ):
        load_single_files(write(scaled, tmp_path / "scaled.pt"), vae_file, text_encoder)


def test_a_network_with_more_or_less_than_this_one_is_refused(original_weights, text_encoder, vae_file, tmp_path):
    more = {**original_weights, "net.new_embedder.weight": torch.zeros(2)}
    with pytest.raises(WrongCheckpointError, match=r"new_embedder\.weight is not part of it"):
        load_single_files(write(more, tmp_path / "more.pt"), vae_file, text_encoder)
    less = {name: tensor for name, tensor in original_weights.items() if "blocks.1.mlp.layer1" not in name}
    with pytest.raises(WrongCheckpointError, match=r"transformer_blocks\.1\.ff\.net\.0\.proj\.weight is missing"):
        load_single_files(write(less, tmp_path / "less.pt"), vae_file, text_encoder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truncated.safetensors", None),
        ("page.safetensors", b"<!DOCTYPE html><html>not found</html>"),
        ("page.sft", b"<!DOCTYPE html><html>not found</html>"),
        ("page.pt", b"<!DOCTYPE html><html>not found</html>"),
        ("empty.pt", b""),
    ],
)
def test_an_unreadable_file_is_named(name, content, text_encoder, vae_file, tmp_path):
    file = tmp_path / name
    file.write_bytes(vae_file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(WrongCheckpointError) as error:
        load_single_files(file, vae_file, text_encoder)
    assert str(error.value).startswith(f"{file} ({file.stat().st_size} bytes) cannot be read: ")
    assert str(error.value).endswith("ownload it again.")


def test_a_broken_config_is_named(checkpoint, tmp_path):
    for part in ("transformer/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json"):
        folder = tmp_path / part.split("/")[0]
        shutil.copytree(checkpoint, folder)
        for broken in ("{", "[1]"):
            (folder / part).write_text(broken)
            with pytest.raises(WrongCheckpointError, match=f"{folder / part.split('/')[0]} cannot be read"):
                load_pipeline_folder(folder)


def test_a_pickle_with_code_is_refused(text_encoder, vae_file, tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was here",))

    file = tmp_path / "model.pt"
    torch.save({"net.x_embedder.proj.1.weight": Malicious()}, file)
    with pytest.raises(WrongCheckpointError, match="not run for safety"):
        load_single_files(file, vae_file, text_encoder)
    assert not (tmp_path / "was here").exists()


def test_a_text_encoder_of_another_size_is_refused(checkpoint, original_weights, text_encoder, vae_file, tmp_path):
    weights = {**original_weights, "net.crossattn_proj.0.weight": torch.zeros(TEXT_DIM, 96)}
    with pytest.raises(WrongCheckpointError, match=r"144 features per token, but the transformer takes 96"):
        load_single_files(write(weights, tmp_path / "model.pt"), vae_file, text_encoder)


def test_another_file_as_vae_is_refused(checkpoint, text_encoder):
    transformer = checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(WrongCheckpointError, match=r"is not the Wan 2\.1 VAE"):
        load_single_files(transformer, transformer, text_encoder)


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "encoder.conv1.weight"])
def test_a_vae_for_pictures_is_refused(checkpoint, original_weights, text_encoder, tmp_path, name):
    """Stable Diffusion's, whose convolutions have no time."""
    transformer = write(original_weights, tmp_path / "model.pt")
    vae = write({name: torch.zeros(128, 3, 3, 3), "quant_conv.bias": torch.zeros(8)}, tmp_path / "vae.safetensors")
    with pytest.raises(WrongCheckpointError, match=r"vae\.safetensors is not the Wan 2\.1 VAE"):
        load_single_files(transformer, vae, text_encoder)


def test_another_vae_is_refused_by_comfyuis_own_nodes_too(core, checkpoint, tmp_path):
    """Wan 2.2's, whose first convolution takes twelve channels."""
    from cosmos_predict25.nodes.native.vae import load_vae

    weights = {"encoder.conv1.weight": torch.zeros(160, 12, 3, 3, 3), "conv1.bias": torch.zeros(96)}
    config, sources = vae_file_parts(write(weights, tmp_path / "wan2.2.safetensors"))
    with pytest.raises(WrongCheckpointError, match=r"wan2\.2\.safetensors does not hold the Wan 2\.1 VAE"):
        load_vae(replace(folder_parts(checkpoint), vae_config=config, vae=sources))


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "transformer", "vae", "scheduler"])
def test_a_folder_without_a_part_is_refused(checkpoint, tmp_path, part):
    folder = tmp_path / "incomplete"
    shutil.copytree(checkpoint, folder)
    shutil.rmtree(folder / part)
    with pytest.raises(CheckpointNotFoundError, match=f"has no folder {part}"):
        load_pipeline_folder(folder)


def test_a_folder_without_weights_or_a_shard_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "incomplete"
    shutil.copytree(checkpoint, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shards = {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}
    (weights.parent / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(CheckpointNotFoundError, match="has no diffusion_pytorch_model-00001-of-00002"):
        load_pipeline_folder(folder)
    (weights.parent / "diffusion_pytorch_model.safetensors.index.json").unlink()
    weights.unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"has no \.safetensors file"):
        load_pipeline_folder(folder)


def test_a_predict2_folder_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "predict2"
    shutil.copytree(checkpoint, folder)
    config = folder / "transformer" / "config.json"
    config.write_text(
        config.read_text().replace('"use_crossattn_projection": true', '"use_crossattn_projection": false')
    )
    with pytest.raises(WrongCheckpointError, match="no text projection"):
        load_pipeline_folder(folder)


def test_a_sharded_folder_gives_the_weights_of_the_whole_one(checkpoint, tmp_path):
    from diffusers import CosmosTransformer3DModel

    folder = tmp_path / "sharded"
    shutil.copytree(checkpoint, folder)
    shutil.rmtree(folder / "transformer")
    whole = CosmosTransformer3DModel.from_pretrained(checkpoint / "transformer")
    whole.save_pretrained(folder / "transformer", max_shard_size="1MB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 2
    assert_same_weights(load_pipeline_folder(folder).transformer, load_pipeline_folder(checkpoint).transformer)


def test_a_macs_files_beside_the_weights_are_left_alone(checkpoint, tmp_path):
    folder = tmp_path / "from a Mac"
    shutil.copytree(checkpoint, folder)
    for weights in list(folder.rglob("*.safetensors")):
        weights.with_name(f"._{weights.name}").write_bytes(b"Mac OS X")
    assert_same_weights(load_pipeline_folder(folder).transformer, load_pipeline_folder(checkpoint).transformer)


@only_posix
def test_find_lists_cosmos_pipelines_the_largest_first(checkpoint, tmp_path):
    roots = [tmp_path / "a", tmp_path / "b", tmp_path / "missing"]
    shutil.copytree(checkpoint, roots[0] / "small")
    (roots[0] / "small" / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "more.safetensors").write_bytes(bytes(100))
    shutil.copytree(checkpoint, roots[1] / "nested" / "large")
    (roots[1] / "nested" / "large" / "linked").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(checkpoint, roots[1] / "small")
    for name, index in (("other", '{"_class_name": "WanPipeline"}'), ("broken", "{"), ("odd", "[]")):
        (roots[0] / name).mkdir()
        (roots[0] / name / "model_index.json").write_text(index)
    found = find_pipeline_folders(roots)
    assert list(found.items()) == [("nested/large", roots[1] / "nested" / "large"), ("small", roots[0] / "small")]


@pytest.mark.parametrize("target", [".", "..", "folder"], ids=["the folder itself", "the one above", "a ring"])
def test_links_that_lead_back_do_not_keep_the_search_from_ending(checkpoint, tmp_path, target):
    """Two of them, as each one alone ends after 40 links."""
    root = tmp_path / "models" / "diffusers"
    shutil.copytree(checkpoint, root / "folder" / "mine")
    for place in (root, root / "folder"):
        for name in ("first", "second"):
            (place / name).symlink_to(root / target, target_is_directory=True)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cosmos_predict25.pipeline.local.load.find import files_below, find_pipeline_folders\n"
        "root = Path(sys.argv[1])\n"
        "print(list(find_pipeline_folders([root])), sum(1 for file in files_below(root)) > 0)\n"
    )
    command = [sys.executable, "-c", program, str(root)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert "'folder/mine'" in printed
    assert "True" in printed


def test_a_folder_has_the_name_of_each_link_to_it(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "disk" / "mine")
    (tmp_path / "root").mkdir()
    for name in ("first", "second"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "disk", target_is_directory=True)
    assert set(find_pipeline_folders([tmp_path / "root"])) == {"first/mine", "second/mine"}


def test_a_checkpoint_behind_a_link_is_found(checkpoint, tmp_path):
    root, elsewhere = tmp_path / "diffusers", tmp_path / "other disk"
    shutil.copytree(checkpoint, elsewhere / "mine")
    root.mkdir()
    (root / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert find_pipeline_folders([root]) == {"linked/mine": root / "linked" / "mine"}
    assert load_pipeline_folder(root / "linked" / "mine").name == "mine"


def test_the_demo_comes_after_every_checkpoint_of_ones_own(checkpoint, tmp_path):
    assert list(find_checkpoints([tmp_path])) == [DEMO]
    shutil.copytree(checkpoint, tmp_path / "mine")
    assert list(find_checkpoints([tmp_path])) == ["mine", DEMO]


def test_find_text_encoders_takes_the_first_of_a_name(text_encoder, tmp_path):
    shutil.copytree(text_encoder, tmp_path / "reason")
    roots = [text_encoder.parent, tmp_path, tmp_path / "missing"]
    assert find_text_encoders(roots) == {"reason": text_encoder}


def test_nothing_found_says_what_to_download_and_where_to():
    message = str(nothing_found([Path("models") / "diffusers", Path("more")]))
    assert message.startswith("There is no Cosmos-Predict2.5 model in models/diffusers or more.\n")
    assert "huggingface.co/nvidia/Cosmos-Predict2.5-2B" in message
    assert "--revision diffusers/base/post-trained" in message
    assert str(Path("models/diffusers/Cosmos-Predict2.5-2B")) in message
    assert "auth login" in message
    assert DEMO in message


@pytest.mark.parametrize(
    "file", ["README.md", "web/docs/CosmosPredict25Loader.md", "workflows/NVIDIA Cosmos Text to Video (local).json"]
)
def test_the_download_command_is_the_same_everywhere(file):
    text = (environment.REPO / file).read_text(encoding="utf-8")
    assert f"hf {DOWNLOAD} models/diffusers/Cosmos-Predict2.5-2B" in text


REAL_HEADS = {"2B": (16, 28), "14B": (40, 36)}


def names_of_nvidias_file(num_blocks: int) -> list[str]:
    """What people who had the 2B post-trained file found in it: weights, and the state of the training code."""
    attentions = ("self_attn", "cross_attn")
    attention = ("q_proj", "k_proj", "v_proj", "output_proj", "q_norm", "k_norm")
    block = [f"{part}.{name}.weight" for part in attentions for name in attention]
    block += [f"mlp.layer{number}.weight" for number in (1, 2)]
    block += [f"adaln_modulation_{part}.{number}.weight" for part in (*attentions, "mlp") for number in (1, 2)]
    block += [f"{part}.{norm}._extra_state" for part in attentions for norm in ("q_norm", "k_norm")]
    names = [f"blocks.{index}.{name}" for index in range(num_blocks) for name in block]
    names += ["x_embedder.proj.1.weight", "t_embedder.1.linear_1.weight", "t_embedder.1.linear_2.weight"]
    names += ["t_embedding_norm.weight", "t_embedding_norm._extra_state", "final_layer.linear.weight"]
    names += [f"final_layer.adaln_modulation.{number}.weight" for number in (1, 2)]
    names += [f"crossattn_proj.0.{part}" for part in ("weight", "bias")]
    names += [f"pos_embedder.{name}" for name in ("seq", "dim_spatial_range", "dim_temporal_range")]
    names += [f"accum_{name}" for name in ("video_sample_counter", "image_sample_counter", "iteration", "hours")]
    return [f"net.{name}" for name in names]


def shape_in_nvidias_file(name: str, heads: int, head_dim: int, text_features: int) -> tuple[int, ...]:
    channels, text = heads * head_dim, 1024
    shapes = {
        "x_embedder": (channels, 72), "t_embedder.1.linear_1": (channels, channels), "t_embedding_norm": (channels,),
        "t_embedder.1.linear_2": (3 * channels, channels), "final_layer.linear": (64, channels),
        "final_layer.adaln_modulation.1": (256, channels), "final_layer.adaln_modulation.2": (2 * channels, 256),
        "crossattn_proj.0.weight": (text, text_features), "crossattn_proj.0.bias": (text,),
        "_norm.weight": (head_dim,), "cross_attn.k_proj": (channels, text), "cross_attn.v_proj": (channels, text),
        "mlp.layer1": (4 * channels, channels), "mlp.layer2": (channels, 4 * channels), 
        "_proj.weight": (channels, channels),
        "attn.1.weight": (256, channels), "mlp.1.weight": (256, channels), ".2.weight": (3 * channels, 256),
    }  # fmt: skip
    if name.endswith("_extra_state") or "accum_" in name or "pos_embedder" in name:
        return (1,)
    return next(shape for part, shape in shapes.items() if part in name)


def nvidias_tensors(heads: int, blocks: int, head_dim: int = 128, text_features: int = 100352) -> dict:
    """All names of the real file, bfloat16, on the default device."""
    return {
        name: torch.zeros(shape_in_nvidias_file(name, heads, head_dim, text_features), dtype=torch.bfloat16)
        for name in names_of_nvidias_file(blocks)
    }


def test_the_real_file_has_689_names_of_which_569_are_weights():
    names = names_of_nvidias_file(28)
    assert (len(names), len(set(names))) == (689, 689)
    assert len({diffusers_name(name) for name in names} - {None}) == 569


def test_a_pickle_with_all_689_names_of_the_real_file_loads(checkpoint, text_encoder, vae_file, tmp_path):
    """28 blocks of a tiny width."""
    weights = nvidias_tensors(heads=2, blocks=28, head_dim=16, text_features=3 * 48)
    model = load_single_files(write(weights, tmp_path / "model.pt"), vae_file, text_encoder)
    transformer = model.transformer
    assert len(transformer.transformer_blocks) == 28
    assert sum(1 for _ in transformer.parameters()) + 2 == 569  # the projection is in the text encoder
    assert transformer.config["rope_scale"] == (1.0, 3.0, 3.0)


@pytest.mark.parametrize("name", REAL_HEADS)
def test_the_config_of_the_real_shapes_is_read_off_them(name):
    """From tensors without values: the 14B has 40 heads and 36 blocks."""
    heads, blocks = REAL_HEADS[name]

    class File:
        def __init__(self, tensors):
            self.tensors = tensors

        def shape(self, name):
            return tuple(self.tensors[name].shape)

    with torch.device("meta"):
        file = File(nvidias_tensors(heads, blocks))
        sources = {diffusers_name(name): Source(file, name) for name in file.tensors}
        sources.pop(None)
        config = transformer_config(Path("model.pt"), sources)
        transformer = CosmosTransformer3DModel.from_config(config)
    assert (config["num_attention_heads"], config["num_layers"], config["attention_head_dim"]) == (heads, blocks, 128)
    check_same_tensors(transformer.state_dict().items(), sources, "the transformer")


def test_reading_a_checkpoint_reports_its_bytes_and_can_be_stopped(checkpoint):
    observer = Recorder()
    load_pipeline_folder(checkpoint, torch.bfloat16, observer=observer)
    for part in ("the Cosmos-Predict2.5 transformer", "Qwen2.5-VL", "the Wan 2.1 VAE"):
        reports = [report for report in observer.reports if report[0].startswith(f"Reading {part}, ")]
        assert [done for _, done, _ in reports] == sorted({done for _, done, _ in reports})
        assert reports[-1][1:] == (100, 100)
        assert re.search(r", (\d+\.\d) of \1 GB$", reports[-1][0])
    with pytest.raises(StoppedError):
        load_pipeline_folder(checkpoint, observer=Recorder(stop_at=2))
