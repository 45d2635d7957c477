"""diffusers' own pipeline, to be compared with."""

from pathlib import Path

import torch
from diffusers import Cosmos2_5_PredictBasePipeline


class AllowEverything:
    """Stands where the stock pipeline insists on a guardrail."""

    def to(self, device: object) -> None:
        pass

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames):
        return frames


def load_stock(folder: Path, dtype: torch.dtype) -> Cosmos2_5_PredictBasePipeline:
    pipeline = Cosmos2_5_PredictBasePipeline.from_pretrained(
        folder, safety_checker=AllowEverything(), torch_dtype=dtype
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
