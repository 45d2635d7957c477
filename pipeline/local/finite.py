"""Whether a part of the model gave numbers: one NaN is in everything after it, and more work cannot help."""

import torch
from torch import Tensor

from ..errors import NotANumberError

TRANSFORMER, TEXT_ENCODER, VAE = "transformer", "text encoder", "VAE"
ADVICE = {
    TRANSFORMER: "Take the LoRA away if there is one, or lower its strength. Without a LoRA the transformer's file is "
    "damaged, or of a type that is too small, such as float16: download it again, in bfloat16.",
    TEXT_ENCODER: "Its file is damaged, or of a type that is too small, such as float16: download Cosmos-Reason1-7B "
    "again, in bfloat16.",
    VAE: "Its file is damaged, or of a type that is too small, such as float16: download the Wan 2.1 VAE again, in "
    "bfloat16 or float32.",
}


def check_finite(values: Tensor, part: str, where: str) -> None:
    """Raise `NotANumberError`, with what to try, unless all of `values`, which `part` gave, are finite."""
    if not torch.isfinite(values).all():
        raise NotANumberError(f"The {part} gave values that are not numbers (NaN) {where}. {ADVICE[part]}")
