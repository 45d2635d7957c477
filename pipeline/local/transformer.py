"""diffusers' Cosmos transformer, computed in chunks of tokens: the same result in less memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import CosmosTransformer3DModel
from torch import Tensor, nn
from torch.func import functional_call

from .compat import CosmosTransformerBlock, apply_rotary_emb
from .sizes import KEPT_TOKENS, Chunks

RESIDUAL_DTYPE = torch.float32
"""The residual stream has large values, and bfloat16 keeps only three digits of them. NVIDIA runs it in bfloat16."""
FINE_DTYPE = torch.float32
"""The dtype of the timestep's embedding, of every modulation and of the last layer, as NVIDIA runs them. They are
small, a row each. In bfloat16, the rounding of a modulation is as large as eight steps at the start. Also the dtype of
learned positions, which only the demo has.
"""


class Kernels:
    """The operations of a block besides its matrix products, in plain PyTorch. A subclass may be faster.

    A subclass may also divide the tokens between `ranks` processes. This process is number `rank` of them.
    """

    rank, ranks = 0, 1

    def share(self, x: Tensor, dim: int = 0) -> Tensor:
        """Return the tokens of `x`, along `dim`, that this process computes."""
        return x

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        """Return all tokens, (1, tokens, channels), of the shares `x` of all processes."""
        return x

    def to_heads(self, x: Tensor) -> Tensor:
        """Exchange (1, t, channels), all heads of own tokens, for (ranks, t, channels / ranks), own heads of all."""
        return x

    def to_tokens(self, x: Tensor) -> Tensor:
        """Do the reverse of `to_heads`."""
        return x

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(1, heads, tokens, head_dim) each -> (1, tokens, heads * head_dim)."""
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def self_attention(self, query: Tensor, key: Tensor, value: Tensor, sigma: Tensor, block_index: int) -> Tensor:
        """Do the work of `attention` for a block's self-attention. `sigma`: the flow sigma, (1,)."""
        return self.attention(query, key, value)

    def rotary_table(self, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the table for `norm_and_rotate` from the angles, (tokens, head_dim) each, tokens first."""
        return torch.stack((cos, sin), dim=1)

    def norm_and_rotate(self, norm: Any, heads: Tensor, table: Tensor) -> Tensor:
        """Apply each head's RMSNorm and RoPE to `heads`, (1, heads, tokens, head_dim)."""
        cos, sin = table.unbind(1)
        rotated: Any = apply_rotary_emb(norm(heads), (cos, sin), use_real_unbind_dim=-2)  # pyright: ignore[reportArgumentType]
        return rotated

    def adaptive_norm(self, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        """Return LayerNorm(x) * (1 + scale) + shift, over the last dimension."""
        return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift

    def hold(self, layer: nn.Module, like: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `layer` in the dtype and on the device of `like`, for use on several chunks."""
        return with_weights_in(layer, like.dtype)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Apply `layer` to `x` once, in the dtype of `x`."""
        return with_weights_in(layer, x.dtype)(x)


@dataclass(frozen=True)
class Timestep:
    """Values shared by all passes at one timestep, whatever their prompts.

    `time`, (rows, channels), and `time_lora`, (rows, 3 * channels): one row, or one for each latent frame, in
    `FINE_DTYPE`.
    `table`: from `Kernels.rotary_table`. `positions`: (1, tokens, channels), or None. `sigma`: the flow sigma, (1,).
    `modulations`: filled in for each norm as a pass reaches it.
    """

    time: Tensor
    time_lora: Tensor
    table: Tensor
    positions: Tensor | None
    sigma: Tensor
    modulations: dict[nn.Module, tuple[Tensor, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """A prompt of all passes of a video.

    `embeds`: (1, 512, text_embed_dim), projected, in the compute dtype. `heads`: its keys and values in each block,
    (1, heads, 512, head_dim), filled in as the first pass reaches the block. None computes them in every pass.
    """

    embeds: Tensor
    heads: dict[nn.Module, tuple[Tensor, Tensor]] | None


@dataclass(frozen=True)
class Pass:
    """Values shared by all blocks of one pass, and a block's own index.

    `tokens`: of the whole video. `first`: the first one of this process.
    """

    timestep: Timestep
    prompt: Prompt
    kernels: Kernels
    chunks: Chunks
    tokens: int
    first: int
    block_index: int = 0

    @property
    def like(self) -> Tensor:
        """Return a tensor with the dtype and device of the layers' computation."""
        return self.prompt.embeds

    def slices(self, tokens: int) -> Iterator[slice]:
        return slices(slice(0, tokens), self.chunks.tokens)


class CosmosTransformer(CosmosTransformer3DModel):
    """A `CosmosTransformer3DModel` after `use_less_memory`."""

    kernels: Kernels
    chunks: Chunks
    compute_dtype: torch.dtype | None = None
    """None means the dtype of the weights."""
    fps: int | None = None
    """The frame rate in the positions: those in time are multiplied by 24 / `fps`. None leaves them as they are.

    Source: `VideoRopePosition3DEmb.generate_embeddings` of cosmos-predict2.5, with `enable_fps_modulation`.
    """

    def at(self, latents: Tensor, timestep: Tensor) -> Timestep:
        """Return the shared values for `forward` at `timestep`, (1,), or (T,) with one per latent frame."""
        time, time_lora = self._embed(timestep)
        cos, sin = (self.kernels.share(angles) for angles in self.rope(latents, fps=self.fps))
        positions = self.learnable_pos_embed and self.learnable_pos_embed(latents.to(FINE_DTYPE))
        if positions is not None:
            positions = self.kernels.share(positions, dim=1)
        return Timestep(time, time_lora, self.kernels.rotary_table(cos, sin), positions, timestep[-1:])

    def prompt(self, prompt_embeds: Tensor, latents: Tensor) -> Prompt:
        """Return the prompt for `forward` in all passes of a video with `latents`, (1, 16, T, H/8, W/8).

        `prompt_embeds`: (1, 512, text_embed_dim), projected. A small video's prompts keep their keys and values. In the
        demo they are a tenth of a pass. In a video of 93 frames at 704p they would be a thousandth, in 235 MB.
        """
        _, height, width = self.config["patch_size"]
        is_small = latents[0, 0].numel() <= KEPT_TOKENS * height * width
        return Prompt(prompt_embeds.to(self.compute_dtype or self.dtype), {} if is_small else None)

    def _embed(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Return `time` and `time_lora` of a timestep. Source: `CosmosEmbedding.forward` of diffusers."""
        embedder = self.time_embed.t_embedder
        time = self.time_embed.time_proj(timestep).to(FINE_DTYPE)
        hidden = embedder.activation(self.kernels.apply(embedder.linear_1, time))
        return with_weights_in(self.time_embed.norm, FINE_DTYPE)(time), self.kernels.apply(embedder.linear_2, hidden)

    def forward(self, latents: Tensor, timestep: Timestep, prompt: Prompt, condition_mask: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the velocity, in the shape and dtype of `latents`, (1, 16, T, H/8, W/8).

        `condition_mask`: (1, 1, T, H/8, W/8).

        Source: `CosmosTransformer3DModel.forward` of diffusers.
        """
        frames, height, width = latents.shape[2:]
        _, patch_height, patch_width = self.config["patch_size"]
        x = torch.cat([latents, condition_mask, torch.zeros_like(condition_mask)], dim=1)
        patches = (
            x.view(1, -1, frames, height // patch_height, patch_height, width // patch_width, patch_width)
            .permute(0, 2, 3, 5, 1, 4, 6)
            .reshape(1, frames * height * width // (patch_height * patch_width), -1)
        )
        hidden_states = self.patch_embed.proj(self.kernels.share(patches, dim=1)).to(RESIDUAL_DTYPE)
        first = self.kernels.rank * hidden_states.shape[1]
        shared = Pass(timestep, prompt, self.kernels, self.chunks, patches.shape[1], first)
        for index, block in enumerate(self.transformer_blocks):
            hidden_states = block(hidden_states, replace(shared, block_index=index))
        patches = self.kernels.gather(self._project_out(hidden_states, shared, latents.dtype), shared.tokens)
        return (
            patches.view(1, frames, height // patch_height, width // patch_width, patch_height, patch_width, -1)
            .permute(0, 6, 1, 2, 4, 3, 5)
            .reshape(1, -1, frames, height, width)
        )

    def _project_out(self, hidden_states: Tensor, shared: Pass, dtype: torch.dtype) -> Tensor:
        shift, scale = modulation(self.norm_out, shared)
        proj_out = shared.kernels.hold(self.proj_out, shared.timestep.time)
        return torch.cat(
            [
                proj_out(run.to(FINE_DTYPE))
                for part in shared.slices(hidden_states.shape[1])
                for run in normalized(self.norm_out, hidden_states, part, scale, shift, shared)
            ],
            dim=1,
        ).to(dtype)


class CosmosBlock(CosmosTransformerBlock):
    """A block that changes `hidden_states` in place. It is exact, since a token's row never depends on its chunk."""

    def forward(self, hidden_states: Tensor, shared: Pass) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update `hidden_states`, (1, tokens, channels), in place. Source: `CosmosTransformerBlock.forward`."""
        if shared.timestep.positions is not None:
            hidden_states.add_(shared.timestep.positions)
        self._attend_to_itself(hidden_states, shared)
        self._attend_to_prompt(hidden_states, shared)
        self._feed_forward(hidden_states, shared)
        return hidden_states

    def _attend_to_itself(self, hidden_states: Tensor, shared: Pass) -> None:
        attn: Any = self.attn1
        shift, scale, gate = modulation(self.norm1, shared)
        to_q, to_k, to_v, to_out = (
            shared.kernels.hold(layer, shared.like) for layer in (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])
        )
        tokens = slice(0, hidden_states.shape[1])
        made = self._project(hidden_states, tokens, scale, shift, shared, (to_k, attn.norm_k), (to_v, None))
        key, value = (heads[:, :, : shared.tokens] for heads in made)
        for part in slices(tokens, shared.chunks.queries or tokens.stop):
            (query,) = self._project(hidden_states, part, scale, shift, shared, (to_q, attn.norm_q))
            out = shared.kernels.self_attention(query, key, value, shared.timestep.sigma, shared.block_index)
            out = out.view(shared.kernels.ranks, part.stop - part.start, -1)
            del query
            for inner in shared.slices(out.shape[1]):
                x = to_out(shared.kernels.to_tokens(out[:, inner]))
                add_gated(hidden_states, shifted(inner, part.start), gate, x, shared)

    def _project(
        self, hidden_states: Tensor, part: slice, scale: Tensor, shift: Tensor, shared: Pass,
        *layers: tuple[Callable[[Tensor], Tensor], nn.Module | None],
    ) -> list[Tensor]:  # fmt: skip
        """Return the heads of each layer, (1, heads / ranks, tokens of all processes, head_dim).

        `layers`: with the norm of queries and keys, which are also rotated.
        """
        kernels, size = shared.kernels, part.stop - part.start
        channels = self.attn1.inner_dim // kernels.ranks
        wholes = [shared.like.new_empty(kernels.ranks, size, channels) for _ in layers]
        for inner in shared.slices(size):
            outer = shifted(inner, part.start)
            x = modulated(self.norm1, hidden_states, outer, scale, shift, shared)
            for whole, (layer, norm) in zip(wholes, layers, strict=True):
                made = layer(x)
                if norm is not None:
                    heads = split_heads(made, self.attn1.heads)
                    heads.copy_(kernels.norm_and_rotate(norm, heads, shared.timestep.table[outer]))
                whole[:, inner] = kernels.to_heads(made)
        heads = self.attn1.heads // kernels.ranks
        return [split_heads(whole.view(1, -1, channels), heads) for whole in wholes]

    def _attend_to_prompt(self, hidden_states: Tensor, shared: Pass) -> None:
        attn: Any = self.attn2
        shift, scale, gate = modulation(self.norm2, shared)
        to_q, to_out = (shared.kernels.hold(layer, shared.like) for layer in (attn.to_q, attn.to_out[0]))
        key, value = self._heads_of(shared.prompt)
        for part in shared.slices(hidden_states.shape[1]):
            x = modulated(self.norm2, hidden_states, part, scale, shift, shared)
            query = attn.norm_q(split_heads(to_q(x), attn.heads))
            add_gated(hidden_states, part, gate, to_out(shared.kernels.attention(query, key, value)), shared)

    def _heads_of(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        if prompt.heads and self in prompt.heads:
            return prompt.heads[self]
        attn: Any = self.attn2
        key = attn.norm_k(split_heads(attn.to_k(prompt.embeds), attn.heads))
        made = key, split_heads(attn.to_v(prompt.embeds), attn.heads)
        if prompt.heads is not None:
            prompt.heads[self] = made
        return made

    def _feed_forward(self, hidden_states: Tensor, shared: Pass) -> None:
        shift, scale, gate = modulation(self.norm3, shared)
        first: Any = self.ff.net[0]
        widen, narrow = (shared.kernels.hold(layer, shared.like) for layer in (first.proj, self.ff.net[2]))
        for part in shared.slices(hidden_states.shape[1]):
            x = modulated(self.norm3, hidden_states, part, scale, shift, shared)
            add_gated(hidden_states, part, gate, narrow(F.gelu(widen(x))), shared)


def slices(part: slice, size: int) -> Iterator[slice]:
    for start in range(part.start, part.stop, size):
        yield slice(start, min(start + size, part.stop))


def shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """View (1, tokens, heads * head_dim) as (1, heads, tokens, head_dim)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def with_weights_in(layer: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return `layer` itself, or a copy with its weights in `dtype`."""
    weights = {name: weight.to(dtype) for name, weight in layer.named_parameters() if weight.dtype != dtype}
    return partial(functional_call, layer, weights) if weights else layer


def modulation(norm: Any, shared: Pass) -> tuple[Tensor, ...]:
    """Return shift, scale and, in a block, gate: (rows, channels) each. Computed once per timestep."""
    timestep, apply = shared.timestep, shared.kernels.apply
    if norm not in timestep.modulations:
        values = apply(norm.linear_2, apply(norm.linear_1, norm.activation(timestep.time)))
        values = values + timestep.time_lora[:, : values.shape[1]]
        timestep.modulations[norm] = values.split(timestep.time.shape[1], dim=1)
    return timestep.modulations[norm]


def runs_of(part: slice, num_rows: int, shared: Pass) -> Iterator[tuple[slice, slice]]:
    """Divide `part` of this process's tokens into runs that lie within one of the latent frames, or are whole ones.

    Yields the tokens and the rows of each run, of `num_rows` in all. A row of values is broadcast over its tokens,
    never copied to each. The share of the last process may end after the last token: the last row is for that, too.
    """
    length, start, stop = shared.tokens // num_rows, shared.first + part.start, shared.first + part.stop
    while start < stop:
        row, offset = divmod(start, length)
        if row >= num_rows - 1:
            end, rows = stop, slice(num_rows - 1, num_rows)
        else:
            whole = 0 if offset else min((stop - start) // length, num_rows - row)
            end = start + whole * length if whole else min(stop, (row + 1) * length)
            rows = slice(row, row + max(whole, 1))
        yield slice(start - shared.first, end - shared.first), rows
        start = end


def by_row(x: Tensor, rows: slice) -> Tensor:
    """View (1, tokens, channels) as (1, rows, tokens per row, channels)."""
    return x.unflatten(1, (rows.stop - rows.start, -1))


def normalized(
    norm: Any, hidden_states: Tensor, part: slice, scale: Tensor, shift: Tensor, shared: Pass
) -> Iterator[Tensor]:
    """Yield the runs of `part`, normalised, scaled and shifted, in the dtype of the residual stream."""
    for tokens, rows in runs_of(part, len(scale), shared):
        x, values = by_row(hidden_states[:, tokens], rows), (scale[rows, None], shift[rows, None])
        yield shared.kernels.adaptive_norm(x, *values, norm.norm.eps).flatten(1, 2)


def modulated(norm: Any, hidden_states: Tensor, part: slice, scale: Tensor, shift: Tensor, shared: Pass) -> Tensor:
    """Return the tokens of `part`, normalised, scaled and shifted, in the compute dtype."""
    runs = [run.to(shared.like.dtype) for run in normalized(norm, hidden_states, part, scale, shift, shared)]
    return runs[0] if len(runs) == 1 else torch.cat(runs, dim=1)


def add_gated(hidden_states: Tensor, part: slice, gate: Tensor, out: Tensor, shared: Pass) -> None:
    """Compute hidden_states[:, part] += gate * out in the dtype of the residual stream."""
    for tokens, rows in runs_of(part, len(gate), shared):
        run = slice(tokens.start - part.start, tokens.stop - part.start)
        # In an expression, since a name would keep the product of one run alive beside that of the next.
        by_row(hidden_states[:, tokens], rows).add_(
            by_row(out[:, run].to(hidden_states.dtype), rows).mul_(gate[rows, None])
        )


def use_less_memory(transformer: CosmosTransformer3DModel) -> CosmosTransformer:
    """Turn `transformer` into a `CosmosTransformer`, and return it."""
    transformer.__class__ = CosmosTransformer
    for block in transformer.transformer_blocks:
        block.__class__ = CosmosBlock
    assert isinstance(transformer, CosmosTransformer)
    transformer.kernels, transformer.chunks = Kernels(), Chunks()
    return transformer
