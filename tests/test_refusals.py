"""What people hold that cannot be used, and what they are told: to be read from top to bottom.

Each case is what is tried, what the sentence has to say, and what it must not.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cosmos_predict25.pipeline.errors import CosmosError
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load import weights
from cosmos_predict25.pipeline.local.load.checkpoint import load_single_files
from cosmos_predict25.pipeline.request import GenerationRequest
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.tests.held import LAYER, Held, pair


@dataclass(frozen=True)
class Case:
    tried: Callable[[Held], Any]
    says: list[str]
    never: str = "ownload it again"


@pytest.fixture
def held(checkpoint, tmp_path) -> Held:
    (tmp_path / "files").mkdir()
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    return Held(tmp_path / "checkpoint", tmp_path / "files")


class Code:
    """What a pickle runs when it is read."""

    def __reduce__(self):
        return (os.mkdir, ("was here",))


def extra(held: Held, *names: str) -> dict[str, torch.Tensor]:
    return {**held.weights(), **{f"net.{name}": torch.zeros(2) for name in names}}


def distributed(held: Held) -> Path:
    held.write("iter_1000/model/__0_0.distcp", b"\x80")
    return held.write("iter_1000/model/.metadata", b"\x80").parent


def shard(held: Held) -> Path:
    """The second of three, alone."""
    part = dict(list(held.weights("").items())[::2])
    return held.write("model-00002-of-00003.safetensors", part)


def no_pages(held: Held) -> Path:
    """A file whose every read fails: what is at 0 in this process's memory."""
    path = held.empty / "broken disk.pt"
    path.symlink_to("/proc/self/mem")
    return path


def with_nan(model: Any, part: str, layer: str) -> Any:
    dict(getattr(model, part).named_parameters())[layer].data.view(-1)[0] = torch.nan
    return model


def make(model: Any, start: Start | None = None) -> Any:
    request = GenerationRequest(prompt="a cat", num_frames=9, num_inference_steps=5, width=48, height=32, seed=1)
    return generate(model, request, start=start)


def tokenizer_json(held: Held, **values: Any) -> Held:
    held.change_json("tokenizer/tokenizer.json", **values)
    return held


def text_config(held: Held, **values: Any) -> Held:
    held.change_json("text_encoder/config.json", **values)
    return held


def without_mrope(held: Held) -> Held:
    config = json.loads((held.folder / "text_encoder/config.json").read_text())["text_config"]
    for name in ("rope_parameters", "rope_scaling"):
        if config.get(name):
            config[name].pop("mrope_section")
    return text_config(held, text_config=config)


def with_other_tokens(held: Held) -> Held:
    file = held.folder / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace("<|im_start|>", "<s>"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (held.folder / "tokenizer" / name).exists():
            other = held.folder / "tokenizer" / name
            other.write_text(other.read_text().replace("<|im_start|>", "<s>"))
    return held


FILES = {
    "a LoRA training's whole checkpoint": Case(
        lambda held: held.load("iter_1000.pt", held.with_lora()),
        ["iter_1000.pt", "holds a LoRA along with the model", "LoRA Loader", "models/loras"],
    ),
    "a training's state with two networks": Case(
        lambda held: held.load("model.pt", {**held.weights(), **held.weights("net_ema.")}),
        ["model.pt", "with two networks", "model_ema_bf16.pt", "convert_distcp_to_pt.py"],
    ),
    "a distributed checkpoint's folder": Case(
        lambda held: held.load_file(distributed(held)),
        ["model is a distributed checkpoint", "convert_distcp_to_pt.py", "model_ema_bf16.pt"],
    ),
    "a pickle of no weights": Case(
        lambda held: held.load("steps.pt", {"iteration": 1000}),
        ["steps.pt", "holds a dict without named weights", "Choose another file"],
    ),
    "a pickle with code": Case(
        lambda held: held.load("code.pt", {"net.x_embedder.proj.1.weight": Code()}),
        ["code.pt", "mkdir", "code", "not run for safety", ".safetensors"],
        never="weights_only",
    ),
    "Git LFS's note, named .pt": Case(
        lambda held: held.load("lfs.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"),
        ["lfs.pt", "Git LFS pointer", "git lfs pull", "hf download"],
    ),
    "Git LFS's note, named .safetensors": Case(
        lambda held: held.load("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ["lfs.safetensors", "Git LFS pointer", "git lfs pull"],
    ),
    "a web page": Case(
        lambda held: held.load("page.pt", b"<!DOCTYPE html><html>log in</html>"),
        ["page.pt", "is a web page", "login", "ownload it again"],
        never="mmap",
    ),
    "an empty file": Case(
        lambda held: held.load("empty.pt", b""),
        ["empty.pt (0 bytes) cannot be read: it is empty", "ownload it again"],
        never="mmap",
    ),
    "half of a file": Case(
        lambda held: held.load("half.safetensors", held.transformer.read_bytes()[:100_000]),
        ["half.safetensors (100000 bytes) cannot be read", "incomplete", "ownload it again"],
        never="system",
    ),
    "a GGUF file": Case(
        lambda held: held.load("model.gguf", b"GGUF\x03\x00\x00\x00" + bytes(100)),
        ["model.gguf is a GGUF file", ".safetensors or .pt"],
    ),
    "a disk that cannot be read": Case(
        lambda held: held.load_file(no_pages(held)),
        ["broken disk.pt cannot be read", "The system says", "Input/output error", "may be whole", "copy it to a disk"],
    ),
    "one of three shards, alone": Case(
        lambda held: held.load_file(shard(held)),
        ["is one of 3 files", "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors", "these too"],
    ),
}

NETWORKS = {
    "action-conditioned": Case(
        lambda held: held.load("a.pt", extra(held, "action_embedder_B_D.fc1.weight", "action_embedder_B_3D.fc1.bias")),
        ["a.pt is an action-conditioned Cosmos-Predict2.5", "base/post-trained"],
    ),
    "multiview": Case(
        lambda held: held.load("m.pt", extra(held, "view_embeddings.weight", "adaln_view_proj.1.weight")),
        ["m.pt is a multiview Cosmos-Predict2.5", "base/post-trained"],
    ),
    "Transfer2.5": Case(
        lambda held: held.load("t.pt", extra(held, "control_embedder.proj.1.weight", "control_blocks.0.after.weight")),
        ["t.pt is Cosmos-Transfer2.5", "base/post-trained"],
    ),
    "Cosmos-Predict2": Case(
        lambda held: held.load("p2.pt", {n: t for n, t in held.weights().items() if "crossattn_proj" not in n}),
        ["p2.pt has no text projection", "it is Cosmos-Predict2, not 2.5"],
    ),
    "Cosmos-Reason2 for a text encoder": Case(
        lambda held: text_config(held, model_type="qwen3_vl").load_folder(),
        ["text_encoder is Qwen3-VL (Cosmos-Reason2), not Qwen2.5-VL", "Cosmos-Reason1-7B"],
    ),
    "T5 for a text encoder": Case(
        lambda held: text_config(held, model_type="t5").load_folder(),
        ["text_encoder is T5 (Cosmos-Predict2)", "Cosmos-Reason1-7B"],
    ),
    "a Qwen without mrope_section": Case(
        lambda held: without_mrope(held).load_folder(),
        ["config.json has no mrope_section", "Qwen without vision", "Cosmos-Reason1-7B"],
    ),
}

TOKENIZERS = {
    "a format that the installed package does not know": Case(
        lambda held: tokenizer_json(held, pre_tokenizer={"type": "NewSplit"}).load_folder(),
        ["tokenizer.json has a newer format", "pip install -U tokenizers"],
    ),
    "another model's": Case(
        lambda held: with_other_tokens(held).load_folder(),
        ["tokenizer is not Qwen2.5-VL's tokenizer", "<|im_start|>", "Cosmos-Reason1-7B"],
    ),
    "half of a file": Case(
        lambda held: (held.folder / "tokenizer/tokenizer.json").write_text("{") and held.load_folder(),
        ["tokenizer cannot be read", "ownload it again"],
        never="untagged",
    ),
}

LORAS = {
    "for another model": Case(
        lambda held: held.load_lora("wan.safetensors", pair("diffusion_model.blocks.0.self_attn.q")),
        ["wan.safetensors does not fit this model", "It seems to be for Wan"],
    ),
    "for another size": Case(
        lambda held: held.load_lora(
            "14b.safetensors",
            {f"{LAYER}.lora_A.weight": torch.ones(4, 16), f"{LAYER}.lora_B.weight": torch.ones(16, 4)},
        ),
        ["14b.safetensors does not fit this model", f"{LAYER} has shape (16, 16) there, but (8, 8) here"],
    ),
    "a LoKr for another size": Case(
        lambda held: held.load_lora(
            "lokr.safetensors", {f"{LAYER}.lokr_w1": torch.ones(2, 2), f"{LAYER}.lokr_w2": torch.ones(2, 2)}
        ),
        ["lokr.safetensors does not fit this model", f"{LAYER} has shape (4, 4) there, but (8, 8) here"],
        never="Load LoRA",
    ),
}

NAN = {
    "the text encoder": Case(
        lambda held: make(with_nan(held.load_folder(), "text_encoder", "language_model.layers.1.mlp.up_proj.weight")),
        ["The text encoder produced NaN for the prompt", "Cosmos-Reason1-7B", "bfloat16"],
        never="transformer",
    ),
    "the transformer": Case(
        lambda held: make(with_nan(held.load_folder(), "transformer", "transformer_blocks.1.ff.net.2.weight")),
        ["The transformer produced NaN in step 1", "LoRA", "float16"],
        never="VAE",
    ),
    "the VAE": Case(
        lambda held: make(with_nan(held.load_folder(), "vae", "decoder.up_blocks.1.resnets.0.conv1.weight")),
        ["The VAE produced NaN in frame 1", "Wan 2.1 VAE", "float32"],
        never="LoRA",
    ),
    "the VAE with a start": Case(
        lambda held: make(
            with_nan(held.load_folder(), "vae", "encoder.down_blocks.1.conv1.weight"), Start(torch.rand(1, 32, 48, 3))
        ),
        ["The VAE produced NaN for the picture or clip to start from", "Wan 2.1 VAE"],
        never="LoRA",
    ),
}

GROUPS = {"file": FILES, "network": NETWORKS, "tokenizer": TOKENIZERS, "LoRA": LORAS, "NaN in": NAN}
CASES = [pytest.param(case, id=f"{group}: {name}") for group, cases in GROUPS.items() for name, case in cases.items()]


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_the_reason_and_what_to_do(held, case):
    with pytest.raises(CosmosError) as refused:
        case.tried(held)
    print(f"\n{str(refused.value).replace(str(held.empty.parent), '...')}", end="")
    for fact in case.says:
        assert fact in str(refused.value)
    assert case.never in case.says or case.never not in str(refused.value)


@pytest.mark.parametrize(
    "read",
    [
        lambda held, file: load_single_files(held.transformer, file, held.text_encoder),
        lambda held, file: held.load_lora(file.name, file.read_bytes()),
    ],
    ids=["VAE", "LoRA"],
)
def test_the_same_is_said_of_a_vae_and_of_a_lora(held, read):
    """The readers are the same for all."""
    file = held.write("lfs.pt", b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CosmosError, match=r"lfs\.pt is a Git LFS pointer"):
        read(held, file)


def test_code_in_a_pickle_is_not_run(held, monkeypatch):
    monkeypatch.chdir(held.empty)
    with pytest.raises(CosmosError):
        held.load("code.pt", {"net.x_embedder.proj.1.weight": Code()})
    assert not Path("was here").exists()


@pytest.mark.parametrize("number", [5, 12, 13, 19, 116])
def test_what_the_system_says_is_passed_on_where_a_file_can_be_read_in_no_way(held, monkeypatch, number):
    """EIO, ENOMEM, EACCES, ENODEV, ESTALE: as safetensors tells of them."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(f"No such luck (os error {number})")

    monkeypatch.setattr(weights, "safe_open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CosmosError, match=rf"No such luck \(os error {number}\)\. The file itself may be whole"):
        held.load_file(held.transformer)
