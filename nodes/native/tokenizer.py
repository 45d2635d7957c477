"""Tokenize a prompt as Generate Locally does, or an idea for writing a prompt."""

import logging
from pathlib import Path
from typing import Any

from comfy.text_encoders import llama
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...pipeline.errors import InvalidRequestError
from ...pipeline.local.encode import first_truncated_word, tokenize
from ...pipeline.local.load.tokenizer import load_tokenizer
from ...pipeline.local.sizes import MAX_TOKENS
from .encoder import KEY

COMFYUIS_TOKENIZER = Path(llama.__file__).with_name("qwen25_tokenizer")
PICTURE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
SYSTEM_PROMPT = (
    "You write prompts for a model that makes short videos of the physical world. Turn the user's idea into one "
    "paragraph of 80 to 200 words, in plain English and in the present tense. Describe the scene and what is in it, "
    "what moves and how, what the camera does, and the light. Keep all that the idea names and add only what fits it. "
    "It is one continuous shot of six seconds, without cuts, sound or writing. Answer with the paragraph alone."
)
PICTURE_PROMPT = "The picture is the first frame of the video: describe what it shows, then what happens from there."


def comfyuis_tokenizer() -> Any:
    """Qwen2.5's, which comes with ComfyUI."""
    return load_tokenizer(COMFYUIS_TOKENIZER)


def conversation(idea: str, picture: bool) -> str:
    """Return the conversation that the text encoder continues with a prompt."""
    system = f"{SYSTEM_PROMPT} {PICTURE_PROMPT}" if picture else SYSTEM_PROMPT
    place = "".join(PICTURE_TOKENS) if picture else ""
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{place}{idea}<|im_end|>\n<|im_start|>assistant\n"


class Tokens(dict[str, Any]):
    """Tokens by the text encoder that they are for."""

    def __missing__(self, name: str) -> Any:
        raise InvalidRequestError(
            f"This node wants tokens for the text encoder {name!r}, of another model: this CLIP has one encoder. Use "
            "CLIP Text Encode (Prompt)."
        )


class ReasonTokenizer:
    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None) -> None:
        assert tokenizer_data
        self.tokenizer = tokenizer_data["tokenizer"]

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Any]:
        """Return the 512 tokens of a prompt as in Generate Locally, or a conversation's tokens for Generate Text."""
        if "skip_template" in options:
            return self._tokens_to_write_from(text, options.get("image"), options["skip_template"])
        lines = []
        if word := first_truncated_word(self.tokenizer, text):
            lines.append(f"The prompt was truncated to {MAX_TOKENS} tokens, at the word {word!r}.")
            logging.warning(f"Cosmos Predict2.5: {lines[0]}")
        _show(lines)
        return Tokens({KEY: [[(token, 1.0) for token in tokenize(self.tokenizer, text)[0].tolist()]]})

    def _tokens_to_write_from(self, text: str, picture: Tensor | None, skip_template: bool) -> dict[str, Any]:
        if not skip_template:
            text = conversation(text, picture is not None)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens: list[Any] = [(token, 1.0) for token in ids]
        place = self.tokenizer.convert_tokens_to_ids(PICTURE_TOKENS[1])
        if picture is not None and place in ids:
            tokens[ids.index(place)] = ({"type": "image", "data": picture}, 1.0)
        return Tokens({KEY: [tokens]})

    def untokenize(self, pairs: list[Any]) -> list[Any]:
        return [(pair, self.tokenizer.convert_ids_to_tokens(pair[0])) for pair in pairs]

    def decode(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens).strip()

    def state_dict(self) -> dict[str, Tensor]:
        return {}


def _show(lines: list[str]) -> None:
    """Show `lines` on the node that encodes, which is ComfyUI's own; none where no graph runs."""
    if get_executing_context() is None:
        return
    from ..host.output import show_on_running_node

    show_on_running_node(*lines)
