"""Latents to frames."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .causal import convolve, empty_memory, fast_on_cpu
from .finite import VAE, check_finite
from .latents import SPATIAL_COMPRESSION
from .out_of_memory import is_out_of_memory
from .sizes import ModelSizes
from .tiles import SMALLEST_SPLIT, Tile, whole

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

Report = Callable[[int, int, int], None]
"""Called after each latent frame with the tile's number (from 1), the number of tiles, and the finished frames."""

RanOut = Callable[[Exception], bool]
"""Tells whether an error means out of memory."""


def decode_chunks(vae: "AutoencoderKLWan", latents: Tensor) -> Iterator[Tensor]:
    """Decode one latent frame at a time: the first gives one frame, each later one four.

    `latents`: (1, 16, T, h, w) as from `denormalize`. Yields (frames, 8h, 8w, 3), float32 in 0..1, on the VAE's device.

    The causal convolutions keep their memory from chunk to chunk. The frames are therefore the same as those of
    `vae.decode`, without the whole video on the device. Source: `AutoencoderKLWan._decode` of diffusers.
    """
    return upsample(vae, middle_features(vae, latents))


@torch.inference_mode()
def middle_features(vae: "AutoencoderKLWan", latents: Tensor) -> Iterator[Tensor]:
    """Yield the features of each latent frame after the first half of the decoder: (1, channels, 1, h, w).

    This half is small, and its attention sees the whole picture, so it is not tiled. Source: `WanDecoder3d.forward`.
    """
    decoder = vae.decoder
    memory = empty_memory(decoder.conv_in, decoder.mid_block)
    inputs = vae.post_quant_conv(latents.to(vae.dtype))
    for index in range(inputs.shape[2]):
        position = [0]
        x = convolve(decoder.conv_in, inputs[:, :, index : index + 1], memory, position)
        yield decoder.mid_block(x, feat_cache=memory, feat_idx=position)


@torch.inference_mode()
def upsample(vae: "AutoencoderKLWan", features: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the frames of each latent frame, as `decode_chunks` does, from the features of `middle_features`."""
    decoder = vae.decoder
    memory = empty_memory(decoder.up_blocks, decoder.conv_out)
    for index, x in enumerate(features):
        position = [0]
        for block in decoder.up_blocks:
            x = block(x, feat_cache=memory, feat_idx=position, first_chunk=index == 0)
        x = convolve(decoder.conv_out, decoder.nonlinearity(decoder.norm_out(x)), memory, position)
        yield (x[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)


def decode_activation_bytes(sizes: ModelSizes, height: int, width: int) -> int:
    """Return the bytes that decoding takes for one latent frame of a tile of `height` x `width` latents.

    56 values per pixel and base channel, in the convolutions of the last level.
    """
    return 56 * height * width * SPATIAL_COMPRESSION**2 * sizes.vae_channels * sizes.vae_itemsize


def decode(
    vae: "AutoencoderKLWan",
    latents: Tensor,
    num_frames: int,
    grid: tuple[int, int],
    report: Report,
    ran_out: RanOut = is_out_of_memory,
) -> Tensor:
    """Return the first `num_frames` frames, (num_frames, 8h, 8w, 3), float32 in 0..1, in RAM.

    `latents`: as for `decode_chunks`. `grid`: rows and columns of tiles. A tile that does not fit into memory is split
    into smaller ones. Raises the device's error if no tile is small enough.
    """
    height, width = (side * SPATIAL_COMPRESSION for side in latents.shape[-2:])
    frames = torch.zeros(num_frames, height, width, 3)
    tiles, device = whole(latents).split(grid), latents.device
    with fast_on_cpu(vae.decoder, device):
        features = [feature.cpu() for feature in middle_features(vae, latents)]
        for number, tile in enumerate(tiles, 1):
            _decode_tile(
                vae, features, tile, frames, 0, device, lambda done, n=number: report(n, len(tiles), done), ran_out
            )
    return frames


def _decode_tile(
    vae: "AutoencoderKLWan",
    features: list[Tensor],
    tile: Tile,
    frames: Tensor,
    done: int,
    device: torch.device,
    report: Callable[[int], None],
    ran_out: RanOut,
) -> None:
    """Compute the tile on `device`, and add its frames from number `done` on to `frames`."""
    rows, columns = tile.pixels()
    weights = tile.weights.to(device)
    start = 0
    try:
        for chunk in upsample(vae, (feature[..., tile.rows, tile.columns].to(device) for feature in features)):
            check_finite(chunk, VAE, f"in frame {start + 1}")
            stop = min(start + len(chunk), len(frames))
            if stop > done:
                frames[start:stop, rows, columns] += (chunk[: stop - start] * weights).cpu()
                done = stop
                report(done)
            start = stop
    except Exception as error:
        height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
        if not ran_out(error) or max(height, width) < SMALLEST_SPLIT:
            raise
        smaller = tile.split((2, 1) if height > width else (1, 2))
    else:
        return
    # Outside of the handler, which would keep what the failed one held.
    for part in smaller:
        _decode_tile(
            vae, features, part, frames, done, device, report if part is smaller[-1] else lambda _: None, ran_out
        )
