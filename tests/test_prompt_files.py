"""Embeddings of prompts that are kept on disk."""

import os

import pytest
import torch

from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.prompt_cache import PromptCache, PromptFiles, fingerprint

PROMPT = "A red circle that nobody else would think of."


@pytest.fixture
def text_encoder(checkpoint):
    return load_pipeline_folder(checkpoint).text_encoder


class Encoder:
    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self.texts: list[str] = []
        self.dtype = dtype

    def __call__(self, text: str) -> torch.Tensor:
        self.texts.append(text)
        return torch.full((1, 512, 8), len(text)).to(self.dtype) + torch.randn(1, 512, 8).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_known_prompt_is_not_encoded_again_after_a_restart(text_encoder, tmp_path, dtype):
    encode = Encoder(dtype)
    embeds = PromptCache(files=PromptFiles(tmp_path / "new", text_encoder)).get_or_encode(PROMPT, encode)
    again = PromptCache(files=PromptFiles(tmp_path / "new", text_encoder)).get_or_encode(PROMPT, encode)
    assert encode.texts == [PROMPT]
    assert again.dtype == dtype
    assert again.equal(embeds)


def test_the_text_is_nowhere_in_the_folder(text_encoder, tmp_path):
    PromptFiles(tmp_path, text_encoder).get_or_encode(PROMPT, Encoder())
    (file,) = tmp_path.iterdir()
    assert b"circle" not in file.read_bytes() + file.name.encode()


def test_other_weights_or_another_type_have_other_embeddings(text_encoder, checkpoint):
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


def test_above_the_bound_those_that_were_used_longest_ago_go(text_encoder, tmp_path):
    encode = Encoder()
    kept = PromptFiles(tmp_path, text_encoder, max_bytes=2 * 512 * 8 * 2 + 1000)

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
def test_a_damaged_file_is_made_again(text_encoder, tmp_path, content):
    encode = Encoder()
    PromptFiles(tmp_path, text_encoder).get_or_encode(PROMPT, encode)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    embeds = PromptFiles(tmp_path, text_encoder).get_or_encode(PROMPT, encode)
    assert len(encode.texts) == 2
    assert PromptFiles(tmp_path, text_encoder).get_or_encode(PROMPT, encode).equal(embeds)


def test_a_folder_that_cannot_be_written_does_no_harm(text_encoder, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    embeds = PromptFiles(tmp_path / "file", text_encoder).get_or_encode(PROMPT, Encoder())
    assert embeds.shape == (1, 512, 8)
    assert "could not be kept" in caplog.text
    assert PROMPT not in caplog.text


def test_a_checkpoint_does_not_take_the_embeddings_of_another(text_encoder, checkpoint, tmp_path):
    encode = Encoder()
    PromptFiles(tmp_path, text_encoder).get_or_encode(PROMPT, encode)
    other = load_pipeline_folder(checkpoint, torch.bfloat16).text_encoder
    PromptFiles(tmp_path, other).get_or_encode(PROMPT, encode)
    assert encode.texts == [PROMPT, PROMPT]
