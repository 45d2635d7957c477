"""The embeddings of the last prompts."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor


class PromptCache:
    """Keeps the embeddings of the last `size` texts, for one model: with them a new seed needs no text encoder.

    An embedding takes 1 MB for the 2B model in bfloat16.
    """

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._embeds: OrderedDict[str, Tensor] = OrderedDict()

    def get_or_encode(self, text: str, encode: Callable[[str], Tensor]) -> Tensor:
        """The embedding of `text`, (1, 512, text_embed_dim): the one kept, or that which `encode` makes of it."""
        if text not in self._embeds:
            self._embeds[text] = encode(text)
        self._embeds.move_to_end(text)
        while len(self._embeds) > self._size:
            self._embeds.popitem(last=False)
        return self._embeds[text]
