"""What ComfyUI's save nodes write, loaded again by both loaders."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.graph import (
    CLIP,
    MODEL,
    NEGATIVE,
    POSITIVE,
    VAE,
    Node,
    Output,
    first,
    frames_of,
    node,
    pictures,
    sampled,
    text,
    to_prompt,
)
from cosmos_predict25.devtools.metrics import psnr
from cosmos_predict25.pipeline.errors import CheckpointNotFoundError
from cosmos_predict25.pipeline.local.load.find import DEMO, DEMO_FOLDER, DEMO_LORA
from cosmos_predict25.pipeline.local.load.parts import file_parts
from cosmos_predict25.pipeline.local.load.saved import find_projection, projection_of

BLACK = "A large black circle moves left over a white background."
FOLDERS = {"CheckpointSave": "checkpoints", "ModelSave": "diffusion_models"}


def with_lora(model: Output) -> Output:
    return first("CosmosPredict25LoraLoader", model=model, lora=DEMO_LORA, strength=1.0)


def loader(kind: str, transformer: str, **values: Any) -> Node:
    single = {"checkpoint": "single files", "transformer": transformer, "vae": "none", "text_encoder": "none"}
    options = {"guardrail": False} if kind == "CosmosPredict25Loader" else {"prompt_writer": False}
    return node(kind, **single, **options, **values)


def saved_model(server: ComfyUI, kind: str, model: Output, clip: Output = CLIP, vae: Output = VAE) -> str:
    """The name of a file that a save node wrote, in models/diffusion_models."""
    inputs = {"clip": clip, "vae": vae} if kind == "CheckpointSave" else {}
    server.run(to_prompt(node(kind, model=model, filename_prefix=f"{FOLDERS[kind]}/kept", **inputs)))
    written = max((server.output / FOLDERS[kind]).glob("kept_*.safetensors"))
    name = f"{kind} {written.stem}.safetensors"
    (server.models / "diffusion_models").mkdir(parents=True, exist_ok=True)
    shutil.copy(written, server.models / "diffusion_models" / name)
    return name


def generated(model: Output) -> Output:
    """The frames of Generate Locally."""
    settings = {"num_frames": 9, "num_inference_steps": 4, "guidance_scale": 2.0, "seed": 7, "width": 96, "height": 96}
    video = first(
        "CosmosPredict25Generate", model=model,
        prompt=first("CosmosPredict25Prompt", prompt=BLACK, negative_prompt=NEGATIVE),
        settings=first("CosmosPredict25SamplerSettings", **settings),
    )  # fmt: skip
    return first("GetVideoComponents", video=video)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_baked_lora_loads_again(any_comfyui, kind):
    """ModelSave's file takes its projection, and all else, from the only folder that it fits."""
    baked = frames_of(any_comfyui, pictures(sampled(with_lora(MODEL), text(BLACK))))
    name = saved_model(any_comfyui, kind, with_lora(MODEL))
    values = {"projection_from": DEMO} if kind == "CheckpointSave" else {}
    again = loader("CosmosPredict25CheckpointLoader", name, **values)
    latent = sampled(again[0], text(BLACK, again[1]), text(NEGATIVE, again[1]))
    found = frames_of(any_comfyui, first("VAEDecode", samples=latent, vae=again[2]))
    assert psnr(found, baked) > 60
    plain = frames_of(any_comfyui, pictures(sampled(MODEL, text(BLACK))))
    assert psnr(found, plain) < 30

    ours = first("CosmosPredict25Loader", checkpoint=DEMO, guardrail=False, transformer="none", vae="none",
                 text_encoder="none")  # fmt: skip
    locally = frames_of(any_comfyui, generated(with_lora(ours)))
    assert psnr(frames_of(any_comfyui, generated(loader("CosmosPredict25Loader", name, **values)[0])), locally) > 60


def test_a_file_of_several_parts_gives_the_vae_too(comfyui, checkpoint):
    """Of a checkpoint whose VAE is Wan's in shape."""
    whole = loader("CosmosPredict25CheckpointLoader", "none")
    whole.inputs["checkpoint"] = checkpoint.name
    name = saved_model(comfyui, "CheckpointSave", whole[0], whole[1], whole[2])
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(checkpoint / part, comfyui.models / "text_encoders" / "saved", dirs_exist_ok=True)
    again = loader("CosmosPredict25CheckpointLoader", name)
    again.inputs["text_encoder"] = "saved"
    latents = first("CosmosPredict25EmptyLatent", width=64, height=48, num_frames=9)
    made = [
        frames_of(comfyui, first("VAEDecode", vae=each[2], samples=sampled(
            each[0], text(POSITIVE, each[1]), text(NEGATIVE, each[1]), latents, steps=2,
        )))
        for each in (whole, again)
    ]  # fmt: skip
    assert psnr(*made) > 60


def as_modelsave_writes(folder: Path, file: Path) -> Path:
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    kept = {f"model.diffusion_model.{name}": value for name, value in weights.items() if "crossattn" not in name}
    save_file(kept, file)
    return file


def copy_of(checkpoint: Path, folder: Path, change: float) -> Path:
    """A file of the transformer, its projection changed."""
    weights = load_file(checkpoint / "transformer" / "diffusion_pytorch_model.safetensors")
    weights["crossattn_proj.0.bias"] = weights["crossattn_proj.0.bias"] + change
    save_file(weights, folder / f"changed by {change}.safetensors")
    return folder / f"changed by {change}.safetensors"


def test_the_projection_is_found_where_one_checkpoint_fits(checkpoint, tmp_path):
    file = as_modelsave_writes(checkpoint, tmp_path / "kept.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_text("<html>")
    others = {"broken": broken, "another model": DEMO_FOLDER, "gone": tmp_path / "gone.safetensors"}
    assert find_projection(file, None, {**others, "own": checkpoint}) == checkpoint
    twin = copy_of(checkpoint, tmp_path, 0.0)
    assert find_projection(file, None, {"own": checkpoint, "the same": twin}) == checkpoint
    assert find_projection(twin, None, {}) is None

    other = copy_of(checkpoint, tmp_path, 1.0)
    with pytest.raises(CheckpointNotFoundError, match=r"and own, another fit\. Choose in projection_from"):
        find_projection(file, None, {"own": checkpoint, "another": other})
    with pytest.raises(CheckpointNotFoundError, match=r"no checkpoint with the same shapes was found\. Choose in proj"):
        find_projection(file, None, others)


def test_a_clip_that_was_saved_has_the_projection(checkpoint, tmp_path):
    file = as_modelsave_writes(checkpoint, tmp_path / "kept.safetensors")
    clip = tmp_path / "clip.safetensors"
    projection = {f"crossattn_proj.0.{part}": torch.full((64, 144)[:rank], 2.0) for part, rank in
                  (("weight", 2), ("bias", 1))}  # fmt: skip
    save_file({**projection, "model.norm.weight": torch.ones(48)}, clip)
    rest = find_projection(file, clip, {"own": checkpoint})
    assert rest == clip
    assert projection_of(rest).keys() == projection.keys()
    parts = file_parts(file, checkpoint / "vae" / "diffusion_pytorch_model.safetensors", clip, rest=rest)
    source = parts.transformer["crossattn_proj.0.weight"]
    assert source.file.read(source.name, None).eq(2).all()


def test_a_folder_gives_the_rest_and_what_shapes_do_not_tell(tmp_path):
    file = as_modelsave_writes(DEMO_FOLDER, tmp_path / "kept.safetensors")
    parts = file_parts(file, None, None, rest=DEMO_FOLDER)
    assert parts.transformer_config["extra_pos_embed_type"] == "learnable"
    assert parts.vae_config["base_dim"]
    assert (parts.text_encoder, parts.tokenizer) == (DEMO_FOLDER / "text_encoder", DEMO_FOLDER / "tokenizer")
