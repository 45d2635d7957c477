"""The embeddings of the last prompts, in memory and on disk."""

import copy
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..disk import atomic_write
from .encode import tokenize

if TYPE_CHECKING:
    from .model import LocalModel, TextEncoder

MAX_BYTES = 512 * 2**20
SAMPLED_VALUES = 1024


class PromptCache:
    """Keeps the embeddings of the last `size` texts for one model, so that a new seed needs no text encoder.

    An embedding takes 1 MB for the 2B model in bfloat16. With `files`, they survive a restart.
    """

    def __init__(self, size: int = 16, files: "PromptFiles | None" = None) -> None:
        self._size = size
        self._files = files
        self._embeds: OrderedDict[str, Tensor] = OrderedDict()

    def for_other_weights(self, changes: bytes) -> "PromptCache":
        """Return an empty cache for the same text encoder with changed weights. `changes`: a hash of the changes."""
        return PromptCache(self._size, self._files and self._files.for_other_weights(changes))

    def get_or_encode(self, text: str, encode: Callable[[str], Tensor]) -> Tensor:
        """Return the embedding of `text`, (1, 512, text_embed_dim): the cached one, or a new one from `encode`."""
        if text not in self._embeds:
            self._embeds[text] = self._files.get_or_encode(text, encode) if self._files else encode(text)
        self._embeds.move_to_end(text)
        while len(self._embeds) > self._size:
            self._embeds.popitem(last=False)
        return self._embeds[text]


class PromptFiles:
    """Embeddings in a folder, one safetensors file each, named by a hash of tokens and of the text encoder's weights.

    The texts themselves are not stored. Above `max_bytes`, the least recently used files are deleted.
    """

    def __init__(self, folder: Path, model: "LocalModel", max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._weights = fingerprint(model.text_encoder)
        self._tokenizer = model.tokenizer

    def for_other_weights(self, changes: bytes) -> "PromptFiles":
        """Do the work of `PromptCache.for_other_weights`, in the same folder, with other names."""
        other = copy.copy(self)
        other._weights = hashlib.sha256(self._weights + changes).digest()
        return other

    def get_or_encode(self, text: str, encode: Callable[[str], Tensor]) -> Tensor:
        """Return the embedding as `PromptCache.get_or_encode` does.

        An unreadable file is replaced. A full disk is only logged.
        """
        tokens = tokenize(self._tokenizer, text).numpy().tobytes()
        file = self._folder / f"{hashlib.sha256(self._weights + tokens).hexdigest()}.safetensors"
        with suppress(OSError, SafetensorError, KeyError):
            embeds = load_file(file)["embeds"]
            os.utime(file)
            return embeds
        embeds = encode(text)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as unfinished:
                save_file({"embeds": embeds.contiguous()}, unfinished)
            self._remove_oldest()
        except (OSError, SafetensorError) as error:  # the latter where a disk is full
            logging.warning(f"The embedding of a prompt could not be saved in {self._folder}: {error}")
        return embeds

    def _remove_oldest(self) -> None:
        files = sorted(
            (path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.glob("*.safetensors")
        )
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def fingerprint(text_encoder: "TextEncoder") -> bytes:
    """Return a hash of the text encoder's weights, as of `weights_hash`, and of the dtype of the computation."""
    weights = {"token_embeddings": text_encoder.token_embeddings, **dict(text_encoder.named_parameters())}
    return weights_hash(weights, str(text_encoder.compute_dtype))


def weights_hash(weights: Mapping[str, Tensor], salt: str = "") -> bytes:
    """Return a hash of the first and the last values of every weight, and of `salt`.

    Reading all weights would take longer than encoding a prompt.
    """
    digest = hashlib.sha256(salt.encode())
    for name, weight in weights.items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        values = weight.detach().flatten()
        for part in (values[:SAMPLED_VALUES], values[-SAMPLED_VALUES:]):
            digest.update(part.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.digest()
