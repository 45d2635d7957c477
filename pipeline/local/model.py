"""The parts of a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .sizes import ModelSizes, PartSize
from .variant import POST_TRAINED, Variant
from .ways import OURS, Ways

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan
    from transformers.models.qwen2_5_vl import Qwen2_5_VLTextModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from .transformer import CosmosTransformer


class TextEncoder(nn.Module):
    """Qwen2.5-VL's language model, with the projection that the checkpoint keeps in its transformer.

    Projecting once per prompt replaces projecting 512 x 100352 values in every pass of the transformer.
    `whole`: whether the language model keeps its embedding table and takes tokens, as in transformers.
    `compute_dtype`: may differ from the weights' dtype if layers cast their weights on use.
    """

    def __init__(self, language_model: "Qwen2_5_VLTextModel", crossattn_proj: nn.Module, whole: bool = False) -> None:
        super().__init__()
        table: Any = language_model.get_input_embeddings()
        # A tensor, not a parameter: 512 rows of it are looked up on the CPU, wherever the rest of the module goes.
        self.token_embeddings = table.weight.detach()
        self.compute_dtype: torch.dtype = self.token_embeddings.dtype
        self.whole = whole
        if not whole:
            language_model.set_input_embeddings(nn.Identity())
        self.language_model = language_model
        self.crossattn_proj = crossattn_proj


@dataclass(frozen=True)
class LocalModel:
    """The parts of one checkpoint, from `load_pipeline_folder` or `load_single_files`.

    `transformer.crossattn_proj` is the identity: the projection is part of `text_encoder`. `notes`: sentences for the
    user on differences from the files.
    """

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    text_encoder: TextEncoder
    transformer: "CosmosTransformer"
    vae: "AutoencoderKLWan"
    scheduler_config: Mapping[str, Any]
    variant: Variant = POST_TRAINED
    notes: tuple[str, ...] = ()
    ways: Ways = OURS


def sizes_of(model: LocalModel) -> ModelSizes:
    """Return the sizes of `model` that its plan depends on."""
    text_config, vae = model.text_encoder.language_model.config, model.vae
    transformer, config = model.transformer, model.transformer.config
    first_block: Any = transformer.transformer_blocks[0]
    return ModelSizes(
        text_encoder=_part_size(model.text_encoder),
        transformer=replace(_part_size(transformer), held=_weights_of(first_block.ff)),
        vae=_part_size(vae),
        text_layers=text_config.num_hidden_layers,
        text_channels=text_config.hidden_size,
        text_itemsize=model.text_encoder.compute_dtype.itemsize,
        channels=config["num_attention_heads"] * config["attention_head_dim"],
        blocks=config["num_layers"],
        head_dim=config["attention_head_dim"],
        patch=math.prod(config["patch_size"]),
        itemsize=(transformer.compute_dtype or transformer.dtype).itemsize,
        vae_channels=vae.config["base_dim"],
        vae_itemsize=vae.dtype.itemsize,
    )


def _part_size(part: nn.Module) -> PartSize:
    largest = max(sum(weight.nbytes for weight in layer.parameters(recurse=False)) for layer in part.modules())
    return PartSize(_weights_of(part), largest)


def _weights_of(module: nn.Module) -> int:
    return sum(weight.nbytes for weight in module.parameters())
