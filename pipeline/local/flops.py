"""Count the floating point operations of a video's passes, and tell their time by the rate of a card."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..request import GenerationRequest
from .latents import SPATIAL_COMPRESSION, latent_frames
from .sizes import MAX_TOKENS

if TYPE_CHECKING:
    from .transformer import CosmosTransformer

SHARE = 0.6
"""The share of a card's rate that the passes reach.

NVIDIA's 35 steps of Predict2-2B, a network of the same shape, take 221.7 s on an H200 SXM and 228.8 s on an H100 SXM at
1280x704 and 93 frames, with text encoder and VAE: 62 % and 60 % of 989 TFLOP/s.
Source: documentations/performance.md of github.com/nvidia-cosmos/cosmos-predict2.
"""


def geforce(multiprocessors: int, gigahertz: float) -> float:
    """Return the rate of a GeForce card of the series 30, 40 or 50 in FLOP/s.

    A multiprocessor has 4 tensor cores with 128 operations per cycle each, half of those with sums in float16.
    """
    return 512e9 * multiprocessors * gigahertz


RATES = {
    "NVIDIA GeForce RTX 3060": geforce(28, 1.777),
    "NVIDIA GeForce RTX 3080": geforce(68, 1.71),
    "NVIDIA GeForce RTX 3090": geforce(82, 1.695),
    "NVIDIA GeForce RTX 4050 Laptop GPU": geforce(20, 2.37),
    "NVIDIA GeForce RTX 4060": geforce(24, 2.46),
    "NVIDIA GeForce RTX 4060 Ti": geforce(34, 2.535),
    "NVIDIA GeForce RTX 4070": geforce(46, 2.475),
    "NVIDIA GeForce RTX 4080": geforce(76, 2.505),
    "NVIDIA GeForce RTX 4090": geforce(128, 2.52),
    "NVIDIA GeForce RTX 5080": geforce(84, 2.617),
    "NVIDIA GeForce RTX 5090": geforce(170, 2.407),
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""PyTorch's name of a card -> its dense rate for bfloat16 and float16 with sums in float32, at boost clock, in FLOP/s.

Sources: multiprocessors and clocks in NVIDIA's specifications. Its architecture papers print the same rates: GA102 59.5
TFLOP/s for the RTX 3080 and 71 for the RTX 3090, Ada 165.2 for the RTX 4090, Blackwell 209.5 for the RTX 5090. The data
sheets of the H100 and the H200 print 1,979, with sparsity.
"""


@dataclass(frozen=True)
class PassFlops:
    """The operations of one pass. `attention`: scores and sums of values, in both attentions. `layers`: all else."""

    attention: float
    layers: float

    @property
    def total(self) -> float:
        return self.attention + self.layers


def flops_of_pass(transformer: "CosmosTransformer", num_frames: int, height: int, width: int) -> PassFlops:
    """Return the operations of one pass for one prompt: 2 per weight and token, and 4 per channel and pair of tokens.

    The modulations are left out. They have a row per timestep, a millionth of the whole. The keys and values of the
    prompt are counted, though the later passes of a small video have them.
    """
    config = transformer.config
    patch_frames, patch_height, patch_width = config["patch_size"]
    patch = patch_frames * patch_height * patch_width
    tokens = latent_frames(num_frames) * height * width // (SPATIAL_COMPRESSION**2 * patch)
    channels = config["num_attention_heads"] * config["attention_head_dim"]
    block = (6 + 2 * config["mlp_ratio"]) * channels**2 * tokens  # self: 4, to the prompt: query and output, and MLP
    of_prompt = 2 * config["text_embed_dim"] * channels * MAX_TOKENS  # keys and values
    ends = (config["in_channels"] + config["concat_padding_mask"] + config["out_channels"]) * patch * channels * tokens
    return PassFlops(
        attention=4 * config["num_layers"] * channels * tokens * (tokens + MAX_TOKENS),
        layers=2 * (config["num_layers"] * (block + of_prompt) + ends),
    )


def passes_of(request: GenerationRequest) -> int:
    """Return the number of passes of a video. With guidance, a step is two."""
    return request.num_inference_steps * (1 if request.guidance_scale == 1 else 2)


def flops_of(requests: Iterable[GenerationRequest], transformer: "CosmosTransformer") -> float:
    """Return the operations of all passes of all `requests`."""
    return sum(
        passes_of(request) * flops_of_pass(transformer, request.num_frames, request.height, request.width).total
        for request in requests
    )


def seconds_by_rate(request: GenerationRequest, transformer: "CosmosTransformer", device: torch.device) -> float | None:
    """Return the seconds of a video's passes by the published rate of `device`, or None if it is not in `RATES`."""
    dtype = transformer.compute_dtype or transformer.dtype
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    rate = RATES.get(torch.cuda.get_device_name(device))
    return flops_of([request], transformer) / (SHARE * rate) if rate else None
