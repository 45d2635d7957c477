"""Embeddings of prompts that are kept on disk."""

import os
import subprocess
import sys

import pytest
import torch

from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.prompt_cache import PromptCache, PromptFiles, fingerprint

PROMPT = "A red circle that nobody else would think of."


@pytest.fixture
def model(checkpoint):
    return load_pipeline_folder(checkpoint)


class Encoder:
    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self.texts: list[str] = []
        self.dtype = dtype

    def __call__(self, text: str) -> torch.Tensor:
        self.texts.append(text)
        return torch.full((1, 512, 8), len(text)).to(self.dtype) + torch.randn(1, 512, 8).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_known_prompt_is_not_encoded_again_after_a_restart(model, tmp_path, dtype):
    encode = Encoder(dtype)
    embeds = PromptCache(files=PromptFiles(tmp_path / "new", model)).get_or_encode(PROMPT, encode)
    again = PromptCache(files=PromptFiles(tmp_path / "new", model)).get_or_encode(PROMPT, encode)
    assert encode.texts == [PROMPT]
    assert again.dtype == dtype
    assert again.equal(embeds)


def test_the_text_is_nowhere_in_the_folder(model, tmp_path):
    PromptFiles(tmp_path, model).get_or_encode(PROMPT, Encoder())
    (file,) = tmp_path.iterdir()
    assert b"circle" not in file.read_bytes() + file.name.encode()


def test_other_weights_or_another_type_have_other_embeddings(model, checkpoint):
    text_encoder = model.text_encoder
    first = fingerprint(text_encoder)
    assert fingerprint(load_pipeline_folder(checkpoint).text_encoder) == first
    assert fingerprint(load_pipeline_folder(checkpoint, torch.bfloat16).text_encoder) != first
    text_encoder.compute_dtype = torch.float64
    assert fingerprint(text_encoder) != first
    text_encoder.compute_dtype = torch.float32
    for weight in (text_encoder.crossattn_proj[0].bias, text_encoder.token_embeddings):
        changed = weight.flatten()[0].item()
        weight.flatten()[0] = changed + 1
        assert fingerprint(text_encoder) != first
        weight.flatten()[0] = changed
    assert fingerprint(text_encoder) == first


def test_above_the_bound_those_that_were_used_longest_ago_go(model, tmp_path):
    encode = Encoder()
    kept = PromptFiles(tmp_path, model, max_bytes=2 * 512 * 8 * 2 + 1000)

    def use(text: str, at: int) -> None:
        before = set(tmp_path.iterdir())
        kept.get_or_encode(text, encode)
        for file in set(tmp_path.iterdir()) - before:
            os.utime(file, (at, at))

    use("a cat", 1)
    use("a dog", 2)
    use("a cat", 3)  # now it was used last
    use("a cow", 4)
    encode.texts.clear()
    for text in ("a cat", "a cow", "a dog"):
        kept.get_or_encode(text, encode)
    assert encode.texts == ["a dog"]


@pytest.mark.parametrize("content", [b"", b"not safetensors", None], ids=["empty", "garbage", "cut"])
def test_a_damaged_file_is_made_again(model, tmp_path, content):
    encode = Encoder()
    PromptFiles(tmp_path, model).get_or_encode(PROMPT, encode)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    embeds = PromptFiles(tmp_path, model).get_or_encode(PROMPT, encode)
    assert len(encode.texts) == 2
    assert PromptFiles(tmp_path, model).get_or_encode(PROMPT, encode).equal(embeds)


def test_a_folder_that_cannot_be_written_does_no_harm(model, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    embeds = PromptFiles(tmp_path / "file", model).get_or_encode(PROMPT, Encoder())
    assert embeds.shape == (1, 512, 8)
    assert "could not be saved" in caplog.text
    assert PROMPT not in caplog.text


def test_a_checkpoint_does_not_take_the_embeddings_of_another(model, checkpoint, tmp_path):
    encode = Encoder()
    PromptFiles(tmp_path, model).get_or_encode(PROMPT, encode)
    other = load_pipeline_folder(checkpoint, torch.bfloat16)
    PromptFiles(tmp_path, other).get_or_encode(PROMPT, encode)
    assert encode.texts == [PROMPT, PROMPT]


def test_another_chat_template_has_other_embeddings(model, tmp_path):
    encode = Encoder()
    PromptFiles(tmp_path, model).get_or_encode(PROMPT, encode)
    model.tokenizer.chat_template += "{{ ' Again.' }}"
    PromptFiles(tmp_path, model).get_or_encode(PROMPT, encode)
    assert encode.texts == [PROMPT, PROMPT]


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.prompt_cache import PromptFiles

files = PromptFiles(Path(sys.argv[2]), load_pipeline_folder(Path(sys.argv[1])))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
print(files.get_or_encode("a cat", lambda text: torch.ones(1, 512, 8)).shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of a file")
def test_a_full_disk_does_no_harm(checkpoint, tmp_path):
    command = [sys.executable, "-c", LIMITED, str(checkpoint), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert "torch.Size([1, 512, 8])" in result.stdout, result.stderr
    assert "could not be saved" in result.stderr
    assert not list(tmp_path.iterdir())
