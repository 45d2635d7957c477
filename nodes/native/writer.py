"""The text encoder as a prompt writer for ComfyUI's Generate Text: Qwen2.5-VL with lm_head and vision tower."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.utils
import torch
import torch.nn.functional as F
from comfy import model_management
from torch import Tensor

from .compat import BaseGenerate, Qwen2VLVisionTransformer, optimized_attention_for_device, process_qwen2vl_images
from .encoder import KEY, ReasonEncoder

MAX_PIXELS = 1280 * 28 * 28
"""Pixels of a picture: 1280 tokens of 28 x 28 pixels."""
QWEN_VISION = {
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "num_layers": 32,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""The vision tower of Qwen2.5-VL-7B."""

SAMPLING = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 0.95,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
}
"""The supported options of `BaseGenerate.sample_token`, with the defaults of `CLIP.generate`."""


def patches_of(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return the patches of the first of `picture`, (N, H, W, 3) in 0..1, and their rows and columns."""
    height, width = picture.shape[1:3]
    scale = min(1.0, math.sqrt(MAX_PIXELS / (height * width)))
    size = [max(28, round(side * scale / 28) * 28) for side in (height, width)]
    channels_first = picture[:1, :, :, :3].movedim(-1, 1).float()
    resized = F.interpolate(channels_first, size, mode="bicubic", antialias=True).clamp(0, 1)
    return process_qwen2vl_images(resized.movedim(1, -1))


class VisionTower(Qwen2VLVisionTransformer):
    """ComfyUI's vision tower, with its output in picture order. Older versions leave it in windows."""

    def __init__(self, config: dict[str, Any], **options: Any) -> None:
        super().__init__(
            **{name: value for name, value in config.items() if name != "fullatt_block_indexes"}, **options
        )
        self.fullatt_block_indexes = config["fullatt_block_indexes"]

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Return (patches / 4, channels of the language model)."""
        attention = optimized_attention_for_device(pixel_values.device, mask=False, small_input=True)
        windows, window_ends = self.get_window_index(image_grid_thw)
        by_window = torch.unique_consecutive(torch.tensor(window_ends))
        whole = torch.tensor([0, len(pixel_values)])
        angles = self._in_windows(self.get_position_embeddings(image_grid_thw, pixel_values.device), windows)
        angles = torch.cat((angles, angles), dim=-1)
        hidden = self._in_windows(self.patch_embed(pixel_values), windows)
        for index, block in enumerate(self.blocks):
            ends = whole if index in self.fullatt_block_indexes else by_window
            hidden = block(hidden, (angles.cos(), angles.sin()), ends, optimized_attention=attention)
        return self.merger(hidden)[torch.argsort(windows)]

    def _in_windows(self, values: Tensor, windows: Tensor) -> Tensor:
        return values.unflatten(0, (-1, self.spatial_merge_size**2))[windows].flatten(0, 1)


def positions(length: int, start: int, grid: Sequence[int]) -> Tensor:
    """Return positions in time, rows and columns, (3, length), for `length` tokens with a picture at `start`.

    Source: `Qwen2_5_VLModel.get_rope_index` of transformers.
    """
    rows, columns = grid[1] // 2, grid[2] // 2
    picture = torch.stack(torch.meshgrid(torch.arange(1), torch.arange(rows), torch.arange(columns), indexing="ij"))
    after = start + max(rows, columns) + torch.arange(length - start - rows * columns)
    return torch.cat([torch.arange(start).expand(3, -1), start + picture.flatten(1), after.expand(3, -1)], dim=1)


def sampling_options(sample_token: Callable[..., Tensor], options: dict[str, Any]) -> dict[str, Any]:
    """Return `SAMPLING` updated by `options`, as far as `sample_token` supports it: ComfyUI 0.18 has fewer options."""
    taken = inspect.signature(sample_token).parameters
    return {name: options.get(name, value) for name, value in SAMPLING.items() if name in taken}


class ReasonWriter(ReasonEncoder, BaseGenerate):
    """Encodes like `ReasonEncoder`. It has its own loop for writing, since ComfyUI's does not know pictures."""

    def __init__(
        self,
        *,
        vision: dict[str, Any],
        stop_tokens: tuple[int, ...],
        dtype: Any = None,
        device: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options, dtype=dtype, device=device)
        self.visual = VisionTower(vision, ops=self.operations, dtype=dtype, device=device)
        self.stop_tokens = stop_tokens

    def generate(
        self,
        tokens: dict[str, Any],
        *,
        do_sample: bool,
        max_length: int,
        seed: int | None = None,
        **options: Any,
    ) -> list[int]:
        """Return at most `max_length` token ids. `options`: `SAMPLING`. Others, such as `mtp`, do nothing."""
        sampling = sampling_options(self.sample_token, options)
        device = self.execution_device
        generator = torch.Generator(device).manual_seed(seed or 0) if do_sample else None
        embeds, places = self._read([token for token, _ in tokens[KEY][0]])
        caches = self._empty_caches(embeds.shape[1] + max_length, embeds)
        bar, written = comfy.utils.ProgressBar(max_length), []
        while len(written) < max_length:
            states, _, caches = self.model(None, embeds=embeds, position_ids=places, past_key_values=caches)
            token = self.sample_token(
                self._logits(states), token_history=written, generator=generator, do_sample=do_sample, **sampling
            )
            if token.item() in self.stop_tokens:
                break
            written.append(token.item())
            embeds = self.model.embed_tokens(token, out_dtype=embeds.dtype)
            places = None if places is None else places[:1, -1:] + 1
            bar.update(1)
        return written

    def _read(self, tokens: list[Any]) -> tuple[Tensor, Tensor | None]:
        """Return the tokens' embeddings (1, length, channels), and their positions if one of them is a picture."""
        device = self.execution_device or torch.device("cpu")
        dtype = torch.bfloat16 if model_management.should_use_bf16(device) else torch.float32
        ids = torch.tensor([[token if isinstance(token, int) else 0 for token in tokens]], device=device)
        embeds = self.model.embed_tokens(ids, out_dtype=dtype)
        start = next((place for place, token in enumerate(tokens) if not isinstance(token, int)), None)
        if start is None:
            return embeds, None
        patches, grid = patches_of(tokens[start]["data"])
        seen = self.visual(patches.to(device), grid)[None].to(dtype)
        embeds = torch.cat([embeds[:, :start], seen, embeds[:, start + 1 :]], dim=1)
        return embeds, positions(embeds.shape[1], start, grid[0].tolist()).to(device)

    def _empty_caches(self, length: int, like: Tensor) -> list[tuple[Tensor, Tensor, int]]:
        """Allocate keys and values for every layer."""
        config = self.model.config
        shape = (1, config.num_key_value_heads, length, config.head_dim)
        return [(like.new_empty(shape), like.new_empty(shape), 0) for _ in range(config.num_hidden_layers)]

    def _logits(self, states: Tensor) -> Tensor:
        last = states[:, -1:]
        return (self.model.lm_head(last) if self.model.config.lm_head else self.logits(last))[:, -1]
