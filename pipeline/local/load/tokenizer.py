"""Load a tokenizer from its folder, and check it before anything large is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import WrongCheckpointError
from .reading import as_wrong_checkpoint

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)
"""Qwen2.5-VL's own template for text. Others, such as Qwen2.5's, do not take messages in parts."""
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
PAD_TOKEN = "<|endoftext|>"


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return Qwen2.5-VL's tokenizer, with a chat template for a prompt, padding and truncating on the right.

    Raises `WrongCheckpointError` if it is not a tokenizer, belongs to another model, or has a newer format.
    """
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    with as_wrong_checkpoint(folder):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (*CHAT_TOKENS, PAD_TOKEN) if token not in vocabulary]
    if missing:
        raise WrongCheckpointError(
            f"{folder} is not Qwen2.5-VL's tokenizer: it has no token {', '.join(missing)}. Use the one of "
            "Cosmos-Reason1-7B."
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = PAD_TOKEN
    if not _takes_prompts(tokenizer):
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _takes_prompts(tokenizer: Any) -> bool:
    """Return whether its own chat template, if it has one, takes a conversation in parts."""
    try:
        message = {"role": "user", "content": [{"type": "text", "text": "a cat"}]}
        text = str(tokenizer.apply_chat_template([message], tokenize=False))
    except Exception:  # of Jinja and of the template's own
        return False
    return "a cat" in text and "{'" not in text
