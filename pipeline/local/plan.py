"""What is on the device when, and in how many pieces the work is done: from sizes alone, before anything runs.

Weights that find no room are streamed, which ComfyUI does. What is worked on has to fit.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import NotEnoughMemoryError
from .latents import SPATIAL_COMPRESSION, latent_frames

GIB = 2**30
USED_SHARE = 0.8
"""Of the free memory. The rest is for what the allocator loses between blocks, a kernel's workspace, the desktop."""
MAX_TOKENS = 512
"""Of a prompt, which is padded or cut to as many."""
OVERLAP = 8
"""Of two tiles, in latents: 64 pixels."""
SMALLEST_SPLIT = 24
"""Latents. A shorter side is not cut: its parts would be little but overlap."""
MOST_TILES = 8
"""In a row or a column."""


@dataclass(frozen=True)
class Chunks:
    """How many tokens go through the transformer's layers at once, and how many queries through self-attention.

    `queries`: None for all of them. A matrix product of 8192 rows keeps a GPU as busy as one of 84480.
    """

    tokens: int = 8192
    queries: int | None = None


CHUNKS = (Chunks(), Chunks(queries=8192), Chunks(2048, 2048))
"""The first that fits is taken."""


@dataclass(frozen=True)
class DeviceMemory:
    """What a placement has to give, in bytes.

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
    """What the memory for a checkpoint depends on. The item sizes are those of what is computed, in bytes."""

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


@dataclass(frozen=True)
class Stage:
    """Bytes on the device in one stage: of the part's weights, those that stay, what streaming needs, and the work."""

    weights: int
    resident: float
    streaming: int
    activations: int

    @property
    def peak(self) -> float:
        return self.resident + self.streaming + self.activations

    @property
    def residency(self) -> str:
        share = self.resident / self.weights
        return "resident" if share == 1 else f"{share:.0%} resident" if share >= 0.01 else "streamed"


@dataclass(frozen=True)
class Plan:
    """How one video is made. `grid`: rows and columns of the tiles that are decoded one after the other.

    `condition`: encoding the frames that the video starts from, None where there are none.
    """

    memory: DeviceMemory
    encode: Stage
    condition: Stage | None
    denoise: Stage
    decode: Stage
    chunks: Chunks
    grid: tuple[int, int]
    attention_parts: int

    @property
    def peak(self) -> float:
        return max(stage.peak for stage in (self.encode, self.condition, self.denoise, self.decode) if stage)

    def memory_required(self, stage: Stage) -> int:
        """Bytes to leave free beside the weights in `stage`: for the work, and what is not to be used."""
        spare = 0 if self.memory == UNLIMITED else self.memory.free - self.memory.usable
        return int(stage.activations + stage.streaming + spare)

    def describe(self) -> str:
        """One line for a person."""
        attention = f" with attention in {self.attention_parts} parts" if self.attention_parts > 1 else ""
        rows, columns = self.grid
        decode = "decode whole" if rows * columns == 1 else f"decode in {rows}x{columns} tiles"
        return (
            f"text encoder {self.encode.residency}, transformer {self.denoise.residency}{attention}, {decode}; "
            f"about {self.peak / GIB:.1f} of {self.memory.free / GIB:.1f} GiB free"
        )


def make_plan(
    sizes: ModelSizes, num_frames: int, height: int, width: int, memory: DeviceMemory, given: int = 0
) -> Plan:
    """The fastest way to make a video of this shape in `memory`, which starts from `given` frames.

    Raises `NotEnoughMemoryError`, with a smaller shape that would fit, where there is none.
    """
    plan = _fitting_plan(sizes, num_frames, height, width, memory, given)
    if plan is None:
        raise _not_enough(sizes, num_frames, height, width, memory, given)
    return plan


def _fitting_plan(
    sizes: ModelSizes, num_frames: int, height: int, width: int, memory: DeviceMemory, given: int
) -> Plan | None:
    if frame_bytes(num_frames, height, width) > memory.ram:
        return None
    tokens = latent_frames(num_frames) * height * width // (SPATIAL_COMPRESSION**2 * sizes.patch)
    encode = _stage(sizes.text_encoder, encode_activation_bytes(sizes), memory)
    condition = _stage(sizes.vae, condition_activation_bytes(sizes, given, height, width), memory)
    denoise = [(c, _stage(sizes.transformer, denoise_activation_bytes(sizes, tokens, c), memory)) for c in CHUNKS]
    decode = [
        (grid, _stage(sizes.vae, decode_activation_bytes(sizes, *largest_tile(height, width, grid)), memory))
        for grid in grids(height, width)
    ]
    chunks, denoise_stage = next((pair for pair in denoise if pair[1]), (CHUNKS[-1], None))
    whole = (pair for pair in decode if pair[1] and pair[1].resident == pair[1].weights)
    grid, decode_stage = next(whole, None) or next((pair for pair in decode if pair[1]), ((1, 1), None))
    if encode is None or denoise_stage is None or decode_stage is None or (given and condition is None):
        return None
    parts = math.ceil(tokens / (chunks.queries or tokens))
    return Plan(memory, encode, condition if given else None, denoise_stage, decode_stage, chunks, grid, parts)


def _stage(part: PartSize, activations: int, memory: DeviceMemory) -> Stage | None:
    """None where the work does not fit, or the weights do not and cannot be streamed."""
    room = memory.usable - activations
    if part.weights <= room and not memory.streams_all:
        return Stage(part.weights, part.weights, 0, activations)
    streaming = max(memory.layers_in_flight * part.largest_layer, part.held)
    if not memory.layers_in_flight or streaming > room:
        return None
    return Stage(part.weights, 0 if memory.streams_all else room - streaming, streaming, activations)


def _not_enough(
    sizes: ModelSizes, num_frames: int, height: int, width: int, memory: DeviceMemory, given: int
) -> NotEnoughMemoryError:
    smaller = next(
        (shape for shape in _smaller(num_frames, height, width) if _fitting_plan(sizes, *shape, memory, given)), None
    )
    asked = f"{width}x{height} with {num_frames} frames does not fit into the memory that is free"
    free = f"{memory.free / GIB:.1f} GiB on the GPU and {memory.ram / GIB:.1f} GiB of RAM"
    if smaller is None:
        return NotEnoughMemoryError(f"{asked} ({free}), nor does any smaller size. Close what else uses them.")
    frames, height, width = smaller
    return NotEnoughMemoryError(f"{asked} ({free}). {width}x{height} with {frames} frames would.")


def _smaller(num_frames: int, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Shapes of the same proportions in steps of 5 %, then with half of the frames and so on."""
    while num_frames >= 1:
        for percent in range(95, 20, -5):
            smaller_height, smaller_width = (max(16, side * percent // 1600 * 16) for side in (height, width))
            yield num_frames, smaller_height, smaller_width
        num_frames //= 2


def frame_bytes(num_frames: int, height: int, width: int) -> int:
    """Of finished frames, RGB in float32."""
    return num_frames * height * width * 3 * 4


def encode_activation_bytes(sizes: ModelSizes) -> int:
    """For one prompt: the hidden states of all layers, and their normalised copies side by side."""
    states = MAX_TOKENS * (sizes.text_layers + 1) * sizes.text_channels * sizes.text_itemsize
    return int(2.1 * states)


def condition_activation_bytes(sizes: ModelSizes, given: int, height: int, width: int) -> int:
    """For encoding `given` frames: the first level's of one frame, and what its convolutions keep of those before."""
    values = 20 if given > 1 else 10.5
    return int(values * height * width * sizes.vae_channels * sizes.vae_itemsize)


def denoise_activation_bytes(sizes: ModelSizes, tokens: int, chunks: Chunks) -> int:
    """For one pass: the residual stream in float32, keys and values, the queries at hand with what becomes of them,
    the rotary table, and a chunk on its way, as tests/ counts it.
    """
    residual = 4 * tokens * sizes.channels
    keys_and_values = 2 * tokens * sizes.channels * sizes.itemsize
    queries = 2 * min(tokens, chunks.queries or tokens) * sizes.channels * sizes.itemsize
    table = 2 * tokens * sizes.head_dim * 4
    chunk_values = 15 if chunks.queries is None else 5
    chunk = chunk_values * min(tokens, chunks.tokens) * sizes.channels * sizes.itemsize
    return residual + keys_and_values + queries + table + chunk


def decode_activation_bytes(sizes: ModelSizes, height: int, width: int) -> int:
    """For one latent frame of a tile of `height` x `width` latents: 56 values per pixel and base channel."""
    return 56 * height * width * SPATIAL_COMPRESSION**2 * sizes.vae_channels * sizes.vae_itemsize


def grids(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of tiles for a picture in pixels, the one with the least work first."""
    rows, columns = (
        [count for count in range(1, MOST_TILES + 1) if count == 1 or _tile_length(side, count) >= 2 * OVERLAP]
        for side in (height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION)
    )

    def work(grid: tuple[int, int]) -> tuple[int, int]:
        tile_height, tile_width = largest_tile(height, width, grid)
        return grid[0] * grid[1] * tile_height * tile_width, grid[0] * grid[1]

    return sorted(((row, column) for row in rows for column in columns), key=work)


def finer_grid(grid: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return a grid with twice the tiles of `grid`, cut across their longer side; `grid` where none is that fine."""
    tile_height, tile_width = largest_tile(height, width, grid)
    rows, columns = grid
    finer = (2 * rows, columns) if tile_height > tile_width else (rows, 2 * columns)
    return finer if finer in grids(height, width) else grid


def largest_tile(height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width, in latents, of the largest tile of a picture in pixels."""
    tile_height, tile_width = (
        _tile_length(side // SPATIAL_COMPRESSION, count) for side, count in zip((height, width), grid, strict=True)
    )
    return tile_height, tile_width


def _tile_length(length: int, count: int) -> int:
    return math.ceil((length + (count - 1) * OVERLAP) / count)


def spans(length: int, count: int) -> list[slice]:
    """`length` latents in `count` parts of about one size, each of which shares OVERLAP latents with the next."""
    total = length + (count - 1) * OVERLAP
    parts, start = [], 0
    for index in range(count):
        stop = start + total // count + (index < total % count)
        parts.append(slice(start, stop))
        start = stop - OVERLAP
    return parts
