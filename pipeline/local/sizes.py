"""The sizes in bytes that determine a video's memory: parts, device and frames."""

import math
from dataclasses import dataclass

GIB = 2**30
USED_SHARE = 0.8
"""The share of the free memory to use. The rest is for fragmentation, kernels' workspaces and the desktop."""
MAX_TOKENS = 512
"""Prompts are padded or truncated to this number of tokens."""
KEPT_TOKENS = 2048
"""Up to this number of tokens in a video, each block keeps its prompts' keys and values for all passes."""


@dataclass(frozen=True)
class Chunks:
    """The number of tokens in the transformer's layers at once, and of queries in self-attention.

    `queries`: None for all. A matrix product of 8192 rows keeps a GPU as busy as one of 84480.
    """

    tokens: int = 8192
    queries: int | None = None


@dataclass(frozen=True)
class DeviceMemory:
    """The memory that a placement has, in bytes.

    `free`: on the device, once everything else has left it. `ram`: free RAM. `layers_in_flight`: the number of streamed
    layers on the device at once, or 0 if weights cannot be streamed. `streams_all`: no weight stays on the device.
    `ranks`: the number of equal devices that share the tokens of a video.
    """

    free: float
    ram: float
    layers_in_flight: int = 0
    streams_all: bool = False
    ranks: int = 1

    @property
    def usable(self) -> float:
        return USED_SHARE * self.free


UNLIMITED = DeviceMemory(math.inf, math.inf)


@dataclass(frozen=True)
class PartSize:
    """Bytes of a part's weights, of its largest layer, and of the layers held for several chunks."""

    weights: int
    largest_layer: int
    held: int = 0


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a checkpoint that determine its memory. Item sizes, in bytes, are of the computation's dtypes."""

    text_encoder: PartSize
    transformer: PartSize
    vae: PartSize
    text_layers: int
    text_channels: int
    text_itemsize: int
    channels: int
    blocks: int
    head_dim: int
    patch: int
    itemsize: int
    vae_channels: int
    vae_itemsize: int


def frame_bytes(num_frames: int, height: int, width: int) -> int:
    """Return the bytes of finished frames, RGB in float32."""
    return num_frames * height * width * 3 * 4
