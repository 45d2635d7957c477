"""Check a part's output for NaN: one NaN spreads to everything after it, so more work is useless."""

import torch
from torch import Tensor

from ..errors import NotANumberError

TRANSFORMER, TEXT_ENCODER, VAE = "transformer", "text encoder", "VAE"
ADVICE = {
    TRANSFORMER: "Remove the LoRA, or lower its strength. Without a LoRA, the transformer's file is damaged, or its "
    "type is too small, such as float16: download it again, in bfloat16.",
    TEXT_ENCODER: "Its file is damaged, or its type is too small, such as float16: download Cosmos-Reason1-7B again, "
    "in bfloat16.",
    VAE: "Its file is damaged, or its type is too small, such as float16: download the Wan 2.1 VAE again, in "
    "bfloat16 or float32.",
}


def check_finite(values: Tensor, part: str, where: str) -> None:
    """Raise `NotANumberError`, with advice, unless all `values`, the output of `part`, are finite."""
    if not torch.isfinite(values).all():
        raise NotANumberError(f"The {part} produced NaN {where}. {ADVICE[part]}")
