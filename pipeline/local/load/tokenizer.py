"""A tokenizer from its folder, found to be right before anything large is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import WrongCheckpointError
from .reading import as_wrong_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)
"""As Qwen2.5-VL's own does it for text. Others, such as Qwen2.5's, take no messages in parts."""
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
PAD_TOKEN = "<|endoftext|>"


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Qwen2.5-VL's tokenizer, with a chat template that takes a prompt, which pads and cuts on the right.

    Raises `WrongCheckpointError` for what is no tokenizer, another model's, or of a newer format.
    """
    from transformers import AutoTokenizer

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
    """Whether its own chat template, where it has one, makes text of a conversation in parts."""
    try:
        message = {"role": "user", "content": [{"type": "text", "text": "a cat"}]}
        text = str(tokenizer.apply_chat_template([message], tokenize=False))
    except Exception:  # of Jinja and of the template's own
        return False
    return "a cat" in text and "{'" not in text
