"""The parts of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLTextModel


class TextEncoder(nn.Module):
    """Qwen2.5-VL's language model with the projection that the checkpoint keeps in its transformer.

    Projecting here, once for each prompt, replaces projecting 512 x 100352 values in every pass of the transformer.
    """

    def __init__(self, language_model: "Qwen2_5_VLTextModel", crossattn_proj: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model
        self.crossattn_proj = crossattn_proj


@dataclass(frozen=True)
class LocalModel:
    """The parts of one checkpoint, as `load_pipeline_folder` and `load_single_files` give them.

    `transformer.crossattn_proj` is the identity: the projection is part of `text_encoder`.
    """

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    text_encoder: TextEncoder
    transformer: "CosmosTransformer3DModel"
    vae: "AutoencoderKLWan"
    scheduler_config: Mapping[str, Any]
