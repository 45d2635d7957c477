"""Plan the memory of a video from sizes alone, before anything runs: resident weights, chunks and tiles.

ComfyUI streams weights that do not fit, but activations must fit. Each step reports the bytes it takes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import NotEnoughMemoryError
from .condition import condition_activation_bytes
from .decode import decode_activation_bytes
from .denoise import denoise_activation_bytes, kept_bytes
from .encode import encode_activation_bytes
from .latents import SPATIAL_COMPRESSION, latent_frames
from .sizes import GIB, UNLIMITED, Chunks, DeviceMemory, ModelSizes, PartSize, frame_bytes
from .tiles import grids, largest_tile

CHUNKS = (Chunks(), Chunks(queries=8192), Chunks(2048, 2048))
"""The plan uses the first that fits."""


@dataclass(frozen=True)
class Stage:
    """Bytes in one stage: all weights of the part, the resident ones, a streaming buffer, and the activations.

    `kept`: the part of the activations that stays in memory between passes.
    """

    weights: int
    resident: float
    streaming: int
    activations: int
    kept: int = 0

    @property
    def peak(self) -> float:
        return self.resident + self.streaming + self.activations

    @property
    def residency(self) -> str:
        share = self.resident / self.weights
        return "resident" if share == 1 else f"{share:.0%} resident" if share >= 0.01 else "streamed"


@dataclass(frozen=True)
class Plan:
    """The plan for one video.

    `grid`: rows and columns of the tiles, which are decoded one after the other. `condition`: the stage that encodes
    the frames the video starts from, or None.
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

    def memory_required(self, stage: Stage, *, begun: bool = False) -> int:
        """Return the bytes to leave free beside the weights in `stage`: activations and the unused share.

        `begun`: after its first pass, when what it keeps is there.
        """
        spare = 0 if self.memory == UNLIMITED else self.memory.free - self.memory.usable
        return int(stage.activations + stage.streaming + spare - (stage.kept if begun else 0))

    def describe(self) -> str:
        """Return the plan as one line for the user."""
        transformer = self.denoise.residency
        if self.attention_parts > 1:
            transformer = f"{transformer} with attention in {self.attention_parts} chunks"
        rows, columns = self.grid
        decode = "decode whole" if rows * columns == 1 else f"decode in {rows}x{columns} tiles"
        return (
            f"text encoder {self.encode.residency}, transformer {transformer}, {decode}; "
            f"about {self.peak / GIB:.1f} of {self.memory.free / GIB:.1f} GiB of free VRAM"
        )


def make_plan(
    sizes: ModelSizes, num_frames: int, height: int, width: int, memory: DeviceMemory, num_conditioning_frames: int = 0
) -> Plan:
    """Return the fastest way to make a video of this shape in `memory`.

    `num_conditioning_frames`: the number of frames it starts from, 0, 1 or 5. Raises `NotEnoughMemoryError`, which
    names a smaller shape that fits, if this one does not.
    """
    plan = _fitting_plan(sizes, num_frames, height, width, memory, num_conditioning_frames)
    if plan is None:
        raise _not_enough(sizes, num_frames, height, width, memory, num_conditioning_frames)
    return plan


def _fitting_plan(
    sizes: ModelSizes, num_frames: int, height: int, width: int, memory: DeviceMemory, num_conditioning_frames: int
) -> Plan | None:
    if frame_bytes(num_frames, height, width) > memory.ram:
        return None
    tokens = latent_frames(num_frames) * height * width // (SPATIAL_COMPRESSION**2 * sizes.patch)
    kept = kept_bytes(sizes, tokens)
    tokens = math.ceil(tokens / memory.ranks)
    encode = _stage(sizes.text_encoder, encode_activation_bytes(sizes), memory)
    condition = _stage(sizes.vae, condition_activation_bytes(sizes, num_conditioning_frames, height, width), memory)
    denoise = [
        (c, _stage(sizes.transformer, denoise_activation_bytes(sizes, tokens, c) + kept, memory, kept)) for c in CHUNKS
    ]
    decode = [
        (grid, _stage(sizes.vae, decode_activation_bytes(sizes, *largest_tile(height, width, grid)), memory))
        for grid in grids(height, width)
    ]
    chunks, denoise_stage = next((pair for pair in denoise if pair[1]), (CHUNKS[-1], None))
    whole = (pair for pair in decode if pair[1] and pair[1].resident == pair[1].weights)
    grid, decode_stage = next(whole, None) or next((pair for pair in decode if pair[1]), ((1, 1), None))
    if (
        encode is None
        or denoise_stage is None
        or decode_stage is None
        or (num_conditioning_frames and condition is None)
    ):
        return None
    parts = math.ceil(tokens / (chunks.queries or tokens))
    return Plan(
        memory, encode, condition if num_conditioning_frames else None, denoise_stage, decode_stage, chunks, grid, parts
    )


def _stage(part: PartSize, activations: int, memory: DeviceMemory, kept: int = 0) -> Stage | None:
    """Return None if the activations do not fit, or if the weights neither fit nor can be streamed."""
    room = memory.usable - activations
    if part.weights <= room and not memory.streams_all:
        return Stage(part.weights, part.weights, 0, activations, kept)
    streaming = max(memory.layers_in_flight * part.largest_layer, part.held)
    if not memory.layers_in_flight or streaming > room:
        return None
    return Stage(part.weights, 0 if memory.streams_all else room - streaming, streaming, activations, kept)


def _not_enough(
    sizes: ModelSizes, num_frames: int, height: int, width: int, memory: DeviceMemory, num_conditioning_frames: int
) -> NotEnoughMemoryError:
    smaller = next(
        (
            shape
            for shape in _smaller(num_frames, height, width)
            if _fitting_plan(sizes, *shape, memory, num_conditioning_frames)
        ),
        None,
    )
    asked = f"{width}x{height} with {num_frames} frames does not fit into the free memory"
    free = f"{memory.free / GIB:.1f} GiB on the GPU and {memory.ram / GIB:.1f} GiB of RAM"
    if smaller is None:
        return NotEnoughMemoryError(
            f"{asked} ({free}), and neither does any smaller size. Close other programs that use it."
        )
    frames, height, width = smaller
    return NotEnoughMemoryError(f"{asked} ({free}). {width}x{height} with {frames} frames would.")


def _smaller(num_frames: int, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield shapes of the same proportions in steps of 5 %, then again with half of the frames, and so on."""
    while num_frames >= 1:
        for percent in range(95, 20, -5):
            smaller_height, smaller_width = (max(16, side * percent // 1600 * 16) for side in (height, width))
            yield num_frames, smaller_height, smaller_width
        num_frames //= 2
