"""Encode prompt text to the embedding that the transformer attends to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import TextEncoder
from .sizes import MAX_TOKENS, ModelSizes

if TYPE_CHECKING:
    from transformers.models.qwen2_5_vl import Qwen2_5_VLTextModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

SYSTEM_PROMPT = "You are a helpful assistant who will provide prompts to an image generator."


def _conversation(prompt: str) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("system", SYSTEM_PROMPT), ("user", prompt))
    ]


def tokenize(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> Tensor:
    """Return the token ids (1, 512) of the chat template around `prompt`, truncated or padded.

    The padding is attended to like text.
    """
    encoding: Any = tokenizer.apply_chat_template(
        _conversation(prompt),
        tokenize=True,
        add_generation_prompt=False,
        max_length=MAX_TOKENS,
        truncation=True,
        padding="max_length",
        return_dict=True,
        return_tensors="pt",
    )
    return encoding["input_ids"]


def first_truncated_word(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> str | None:
    """Return the first word of `prompt` that `tokenize` truncates or drops, or None if it keeps all."""
    text = str(tokenizer.apply_chat_template(_conversation(prompt), tokenize=False, add_generation_prompt=False))
    spans = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    if len(spans) <= MAX_TOKENS:
        return None
    kept = spans[MAX_TOKENS - 1][1] - text.rindex(prompt)
    cut = prompt[:kept].split(" ")[-1] if kept < len(prompt) and not prompt[kept].isspace() else ""
    rest = f"{cut}{prompt[max(kept, 0) :]}".split()
    return rest[0] if rest else None


def encode_activation_bytes(sizes: ModelSizes) -> int:
    """Return the bytes for one prompt: the hidden states of all layers, and their normalised copies."""
    states = MAX_TOKENS * (sizes.text_layers + 1) * sizes.text_channels * sizes.text_itemsize
    return int(2.1 * states)


def layer_features(
    language_model: "Qwen2_5_VLTextModel", token_embeds: Tensor | None = None, input_ids: Tensor | None = None
) -> Tensor:
    """Return the hidden states of all layers, each normalised over its channels: (1, 512, layers * hidden_size).

    `token_embeds`: (1, 512, hidden_size), on the device and in the dtype of the computation, or the tokens, (1, 512).
    """
    given = {"input_ids": input_ids} if token_embeds is None else {"inputs_embeds": token_embeds}
    outputs = language_model(**given, output_hidden_states=True, use_cache=False)
    return normalized_layers(outputs.hidden_states[1:])


def normalized_layers(states: Sequence[Tensor]) -> Tensor:
    """Return the hidden states of all layers side by side, each normalised over its channels."""
    features = states[0].new_empty(*states[0].shape[:2], len(states), states[0].shape[2])
    for index, state in enumerate(states):
        features[:, :, index] = (state - state.mean(-1, keepdim=True)) / (state.std(-1, keepdim=True) + 1e-8)
    return features.flatten(2)


@torch.inference_mode()
def encode_prompt(
    text_encoder: TextEncoder,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the prompt's embedding (1, 512, text_embed_dim) on `device`, where the text encoder runs.

    Source: `Cosmos2_5_PredictBasePipeline._get_prompt_embeds` and `CosmosTransformer3DModel.forward` of diffusers.
    """
    ids = tokenize(tokenizer, prompt)
    if text_encoder.whole:
        features = layer_features(text_encoder.language_model, input_ids=ids.to(device))
    else:
        token_embeds = F.embedding(ids, text_encoder.token_embeddings)
        features = layer_features(text_encoder.language_model, token_embeds.to(device, text_encoder.compute_dtype))
    return text_encoder.crossattn_proj(features)
