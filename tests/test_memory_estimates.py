"""The memory that ComfyUI is asked for against the bytes alive at the real shapes, counted without computing."""

import weakref

import pytest
import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from cosmos_predict25.pipeline.local.decode import decode_activation_bytes, decode_chunks
from cosmos_predict25.pipeline.local.denoise import denoise_activation_bytes, nothing_given, predict_velocity


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors, made while entered, that were alive at once."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._alive:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._alive.pop, storage._cdata)
                self.peak = max(self.peak, sum(self._alive.values()))
        return result


@pytest.fixture
def bfloat16_on_meta():
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        yield
    torch.set_default_dtype(torch.float32)


def latents(frames: int) -> torch.Tensor:
    return torch.empty(1, 16, frames, 704 // 8, 1280 // 8, dtype=torch.float32)


def check(live: LiveBytes, estimate: int) -> None:
    print(f"\nalive {live.peak / 2**30:.2f} GiB, estimated {estimate / 2**30:.2f} GiB", end="")
    assert live.peak <= estimate <= 1.1 * live.peak


def test_one_pass_of_the_2b_transformer_at_93_frames_takes_what_is_estimated(bfloat16_on_meta):
    """Every block needs the same, so two of the 28 are enough."""
    transformer = CosmosTransformer3DModel(
        in_channels=17, num_attention_heads=16, attention_head_dim=128, num_layers=2, extra_pos_embed_type=None
    )
    with LiveBytes() as live:
        noise = latents(24)
        predict_velocity(transformer, noise, torch.empty(1), torch.empty(1, 512, 1024), nothing_given(noise))
    check(live, denoise_activation_bytes(transformer, latents(24)))


def test_decoding_with_the_wan_vae_takes_what_is_estimated(bfloat16_on_meta):
    """From the second latent frame on, each needs the same."""
    vae = AutoencoderKLWan()
    with LiveBytes() as live:
        for _ in decode_chunks(vae, latents(3)):
            pass
    check(live, decode_activation_bytes(vae, latents(3)))
