"""ComfyUI's CLIP: Qwen2.5-VL's language model and the projection of its layers to what the transformer attends to."""

import logging
from pathlib import Path
from typing import Any

import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy import model_management
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import llama
from comfy.text_encoders.llama import Llama2_, Qwen25_7BVLI_Config
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2_5_VLConfig

from ...pipeline.errors import WrongCheckpointError
from ...pipeline.local.encode import MAX_TOKENS, normalized_layers, tokenize, word_at_the_cut
from ...pipeline.local.load.original_names import name_of_other_model
from ...pipeline.local.load.parts import Parts, check_text_features, language_model_name
from ...pipeline.local.load.weights import as_wrong_checkpoint, check_same_tensors, index_tensors, weight_files
from .model import PROJECTION
from .tensors import read_tensors, weights_alone

KEY = "reason1"
"""Of the tokens, among those that other text encoders would give."""
COMFYUIS_TOKENIZER = Path(llama.__file__).with_name("qwen25_tokenizer")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)
"""As Qwen2.5-VL's own does it for text; the one beside ComfyUI's tokenizer is Qwen2.5's, which takes no parts."""
CONFIG_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
)


class ReasonTokenizer:
    """Makes of a prompt the 512 tokens that Generate Locally makes of it."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None) -> None:
        assert tokenizer_data
        self.tokenizer = tokenizer_data["tokenizer"]

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, Any]:
        if word := word_at_the_cut(self.tokenizer, text):
            logging.warning(f"Cosmos Predict2.5: the prompt was cut at {MAX_TOKENS} tokens, at the word {word!r}.")
        return {KEY: [[(token, 1.0) for token in tokenize(self.tokenizer, text)[0].tolist()]]}

    def untokenize(self, pairs: list[Any]) -> list[Any]:
        return [(pair, self.tokenizer.convert_ids_to_tokens(pair[0])) for pair in pairs]

    def state_dict(self) -> dict[str, Tensor]:
        return {}


class ReasonEncoder(nn.Module):
    """Computes in float32, whatever the weights are in, as ComfyUI's text encoders do."""

    def __init__(
        self,
        config: Qwen25_7BVLI_Config,
        text_embed_dim: int,
        device: Any = None,
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        layers = (model_options or {}).get("custom_operations", comfy.ops.manual_cast)
        features = config.num_hidden_layers * config.hidden_size
        self.model = Llama2_(config, device=device, dtype=dtype, ops=layers)
        self.crossattn_proj = nn.Sequential(
            layers.Linear(features, text_embed_dim, device=device, dtype=dtype), nn.GELU()
        )
        self.features = features
        self.dtypes = {dtype}
        self.execution_device: torch.device | None = None

    def reset_clip_options(self) -> None:
        self.execution_device = None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        self.execution_device = options.get("execution_device", self.execution_device)

    def encode_token_weights(self, pairs: dict[str, Any]) -> tuple[Tensor, None]:
        """Embeddings (1, 512, text_embed_dim) and no pooled output."""
        ids = torch.tensor([[token for token, _ in row] for row in pairs[KEY]], device=self.execution_device)
        states = self.model(ids, intermediate_output="all", final_layer_norm_intermediate=False, dtype=torch.float32)[1]
        features = normalized_layers(states.unbind(1)[1:])
        return self.crossattn_proj(features).to(model_management.intermediate_device()), None

    def load_sd(self, tensors: dict[str, Tensor]) -> Any:
        return self.load_state_dict(tensors, strict=False, assign=getattr(self, "can_assign_sd", False))

    def memory_estimation_function(self, tokens: Any, device: Any = None) -> int:
        """The features, and the hidden states that they are made of, in float32."""
        return 3 * 4 * MAX_TOKENS * self.features


def load_clip(parts: Parts, projection: dict[str, Tensor]) -> comfy.sd.CLIP:
    """The CLIP. Raises `WrongCheckpointError` for a text encoder of another kind or size."""
    config, tokenizer = _config_and_tokenizer(parts)
    features = config.num_hidden_layers * config.hidden_size
    check_text_features(parts.text_encoder, features, parts.transformer_config["crossattn_proj_in_channels"])
    with torch.device("meta"):
        expected = Llama2_(config, ops=comfy.ops.disable_weight_init).state_dict()
    files = [parts.text_encoder] if parts.text_encoder.is_file() else weight_files(parts.text_encoder)
    check_same_tensors(expected.items(), weights_alone(index_tensors(files, language_model_name)), "Qwen2.5-VL")
    tensors = {**read_tensors(files, _encoder_name), **projection}
    target = ClipTarget(ReasonTokenizer, ReasonEncoder)
    target.params = {"config": config, "text_embed_dim": parts.transformer_config["encoder_hidden_states_channels"]}
    return comfy.sd.CLIP(
        target,
        tokenizer_data={"tokenizer": tokenizer},
        parameters=comfy.utils.calculate_parameters(tensors),
        state_dict=[tensors],
        model_options=_options(tensors),
    )


def _options(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The weights' own type, where ComfyUI would take float16, and its layers with scales where there are any."""
    dtype = tensors["model.norm.weight"].dtype
    quantized = comfy.utils.detect_layer_quantization(tensors, "")
    if not quantized:
        return {"dtype": dtype}
    layers = comfy.ops.mixed_precision_ops(quantized, dtype, full_precision_mm=True)
    return {"dtype": dtype, "custom_operations": layers}


def _encoder_name(name: str) -> str | None:
    if name.startswith(PROJECTION):
        return None
    inner = language_model_name(name)
    return inner and f"model.{inner}"


def _config_and_tokenizer(parts: Parts) -> tuple[Qwen25_7BVLI_Config, Any]:
    """From a transformers folder; for a single file, from its shapes and what ComfyUI brings."""
    if parts.text_encoder.is_file():
        tokenizer = AutoTokenizer.from_pretrained(COMFYUIS_TOKENIZER, local_files_only=True)
        tokenizer.chat_template = CHAT_TEMPLATE
        return _config_of_shapes(parts.text_encoder), tokenizer
    with as_wrong_checkpoint(parts.text_encoder):
        text: Any = Qwen2_5_VLConfig.from_pretrained(parts.text_encoder, local_files_only=True).text_config
    with as_wrong_checkpoint(parts.tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(parts.tokenizer, local_files_only=True)
    config = Qwen25_7BVLI_Config(**{name: getattr(text, name) for name in CONFIG_FIELDS})
    config.rope_theta = text.rope_parameters["rope_theta"]
    config.rope_dims = text.rope_parameters["mrope_section"]
    config.head_dim = config.hidden_size // config.num_attention_heads
    return config, tokenizer


def _config_of_shapes(path: Path) -> Qwen25_7BVLI_Config:
    """Of any Qwen2.5-VL with heads of 128 channels. Raises `WrongCheckpointError` for another model's file."""
    sources = index_tensors([path], language_model_name)
    if "layers.0.self_attn.q_proj.bias" not in sources or "embed_tokens.weight" not in sources:
        raise WrongCheckpointError(
            f"{path} is not Qwen2.5-VL but {name_of_other_model(source.name for source in sources.values())}."
        )
    shapes = {name: source.file.shape(source.name) for name, source in sources.items()}
    vocab_size, hidden_size = shapes["embed_tokens.weight"]
    return Qwen25_7BVLI_Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=shapes["layers.0.mlp.up_proj.weight"][0],
        num_hidden_layers=len({name.split(".")[1] for name in sources if name.startswith("layers.")}),
        num_attention_heads=shapes["layers.0.self_attn.q_proj.weight"][0] // Qwen25_7BVLI_Config.head_dim,
        num_key_value_heads=shapes["layers.0.self_attn.k_proj.weight"][0] // Qwen25_7BVLI_Config.head_dim,
    )
