"""Write a small Cosmos-Predict2.5 checkpoint with RANDOM weights, in diffusers layout.

    python devtools/random_checkpoint.py FOLDER

It has every part of the real checkpoint (tokenizer, Qwen2.5-VL text encoder, transformer, Wan 2.1 VAE, scheduler) in
about 8 MB, the same bytes on every run. It makes noise, not videos: it is there to try the graph and to test the code.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, UniPCMultistepScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)


def random_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return as_qwens(tokenizer)


def as_qwens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """`tokenizer` with Qwen2.5's special tokens and a chat template of the same form."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[2],
        additional_special_tokens=SPECIAL_TOKENS[1:2],
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
    )


def random_text_encoder(
    vocab_size: int, hidden_size: int = 48, num_layers: int = 3, num_key_value_heads: int = 1, **options: Any
) -> Qwen2_5_VLForConditionalGeneration:
    """`options`: more of `Qwen2_5_VLConfig`. The vision tower is as small as can be: it is never used."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": hidden_size // 16,
            "num_key_value_heads": num_key_value_heads,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": hidden_size,
            "fullatt_block_indexes": [0],
        },
        **options,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def random_transformer(
    crossattn_proj_in_channels: int, num_attention_heads: int = 4, num_layers: int = 3
) -> CosmosTransformer3DModel:
    return CosmosTransformer3DModel(
        in_channels=17,
        out_channels=16,
        num_attention_heads=num_attention_heads,
        attention_head_dim=32,
        num_layers=num_layers,
        text_embed_dim=64,
        adaln_lora_dim=16,
        rope_scale=(1.0, 3.0, 3.0),
        extra_pos_embed_type=None,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=crossattn_proj_in_channels,
        encoder_hidden_states_channels=64,
    )


def random_scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        use_karras_sigmas=True,
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        sigma_max=200.0,
        sigma_min=0.01,
    )


def write_random_checkpoint(folder: Path, hidden_size: int = 48, num_attention_heads: int = 4) -> None:
    """Write the checkpoint into `folder`. The two sizes scale the text encoder and the transformer."""
    disable_progress_bar()
    torch.manual_seed(0)
    tokenizer = random_tokenizer()
    text_encoder = random_text_encoder(len(tokenizer), hidden_size)
    text_config = text_encoder.config.text_config
    components = {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "transformer": random_transformer(text_config.num_hidden_layers * hidden_size, num_attention_heads),
        "vae": AutoencoderKLWan(base_dim=8),
        "scheduler": random_scheduler(),
    }
    write_checkpoint(folder, components)


def write_checkpoint(folder: Path, components: Mapping[str, Any]) -> None:
    """Write the parts into `folder`; the index comes last, so what has one is whole."""
    index: dict[str, str | list[str]] = {"_class_name": "Cosmos2_5_PredictBasePipeline"}
    for name, component in components.items():
        component.save_pretrained(folder / name)
        index[name] = [type(component).__module__.split(".")[0], type(component).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: random_checkpoint.py FOLDER")
    write_random_checkpoint(Path(sys.argv[1]))
    print(f"Wrote a checkpoint with RANDOM weights into {sys.argv[1]}")
