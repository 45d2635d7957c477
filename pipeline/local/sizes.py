"""The sizes that the memory for a video depends on, in bytes: of the parts, the device and the frames."""

import math
from dataclasses import dataclass

GIB = 2**30
USED_SHARE = 0.8
"""Of the free memory. The rest is for what the allocator loses between blocks, a kernel's workspace, the desktop."""


@dataclass(frozen=True)
class Chunks:
    """The number of tokens that go through the transformer's layers at once, and of queries through self-attention.

    `queries`: None for all. A matrix product of 8192 rows keeps a GPU as busy as one of 84480.
    """

    tokens: int = 8192
    queries: int | None = None


@dataclass(frozen=True)
class DeviceMemory:
    """The memory that a placement has, in bytes.

    `free`: on the device, once everything else has left it. `ram`: in the CPU's memory. `layers_in_flight`: how many
    layers are on the device at once where weights are streamed; 0 where they cannot be. `streams_all`: no weight stays
    on the device.
    """

    free: float
    ram: float
    layers_in_flight: int = 0
    streams_all: bool = False

    @property
    def usable(self) -> float:
        return USED_SHARE * self.free


UNLIMITED = DeviceMemory(math.inf, math.inf)


@dataclass(frozen=True)
class PartSize:
    """Bytes of a part's weights, of its largest layer, and of the layers whose weights are held for several chunks."""

    weights: int
    largest_layer: int
    held: int = 0


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a checkpoint that its memory depends on. Item sizes, in bytes, are of the computation's dtypes."""

    text_encoder: PartSize
    transformer: PartSize
    vae: PartSize
    text_layers: int
    text_channels: int
    text_itemsize: int
    channels: int
    head_dim: int
    patch: int
    itemsize: int
    vae_channels: int
    vae_itemsize: int


def frame_bytes(num_frames: int, height: int, width: int) -> int:
    """Return the bytes of finished frames, RGB in float32."""
    return num_frames * height * width * 3 * 4
