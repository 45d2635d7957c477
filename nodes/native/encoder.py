"""The text encoder: Qwen2.5-VL's language model, and the projection of its layers for the transformer."""

from typing import Any

import comfy.ops
import torch
from comfy import model_management
from torch import Tensor, nn

from ...pipeline.errors import InvalidRequestError
from ...pipeline.local.encode import normalized_layers
from ...pipeline.local.finite import TEXT_ENCODER, check_finite
from ...pipeline.local.sizes import MAX_TOKENS
from .compat import Llama2_, Qwen25_7BVLI_Config

KEY = "reason1"
"""The key of the tokens, as other text encoders have theirs."""


class ReasonEncoder(nn.Module):
    """Computes in float32 with weights of any dtype, as ComfyUI's text encoders do."""

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
        self.operations = layers
        self.features = features
        self.dtypes = {dtype}
        self.execution_device: torch.device | None = None

    def reset_clip_options(self) -> None:
        self.execution_device = None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        self.execution_device = options.get("execution_device", self.execution_device)

    def encode_token_weights(self, pairs: dict[str, Any]) -> tuple[Tensor, None]:
        """Return embeddings (1, 512, text_embed_dim) and no pooled output."""
        ids = torch.tensor([[token for token, _ in row] for row in pairs[KEY]], device=self.execution_device)
        states = self.model(ids, intermediate_output="all", final_layer_norm_intermediate=False, dtype=torch.float32)[1]
        features = normalized_layers(states.unbind(1)[1:])
        embeds = self.crossattn_proj(features)
        check_finite(embeds, TEXT_ENCODER, "for a prompt")
        return embeds.to(model_management.intermediate_device()), None

    def load_sd(self, tensors: dict[str, Tensor]) -> Any:
        return self.load_state_dict(tensors, strict=False, assign=getattr(self, "can_assign_sd", False))

    def memory_estimation_function(self, tokens: Any, device: Any = None) -> int:
        """Return the features and their hidden states, in float32."""
        return 3 * 4 * MAX_TOKENS * self.features

    def generate(self, tokens: Any, **_: Any) -> list[int]:
        raise InvalidRequestError(
            "This CLIP encodes prompts but does not write them. Switch on prompt_writer, an advanced input of "
            "Checkpoint Loader (Cosmos Predict2.5)."
        )
