"""Overlapping tiles of a picture, and their blending."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .latents import SPATIAL_COMPRESSION

OVERLAP = 8
"""Latents shared by two tiles: 64 pixels."""
SMALLEST_SPLIT = 24
"""In latents. A shorter side is not split, since its parts would be mostly overlap."""
MAX_TILES = 8
"""Per row and per column."""


@dataclass(frozen=True)
class Tile:
    """A part of the picture, in latents, with a weight per row and column of pixels where tiles overlap.

    At each pixel, the weights of all tiles add up to 1.
    """

    rows: slice
    columns: slice
    row_weights: Tensor
    column_weights: Tensor

    @property
    def weights(self) -> Tensor:
        """Return the weight of each pixel: (8h, 8w, 1)."""
        return (self.row_weights[:, None] * self.column_weights)[..., None]

    def pixels(self) -> tuple[slice, slice]:
        rows, columns = (
            slice(span.start * SPATIAL_COMPRESSION, span.stop * SPATIAL_COMPRESSION)
            for span in (self.rows, self.columns)
        )
        return rows, columns

    def split(self, grid: tuple[int, int]) -> list["Tile"]:
        """Split this tile into the overlapping tiles of `grid`, row by row."""
        rows, columns = (
            blended_spans(span, weights, count)
            for span, weights, count in zip(
                (self.rows, self.columns), (self.row_weights, self.column_weights), grid, strict=True
            )
        )
        return [Tile(row, column, *weights) for row, *a in rows for column, *b in columns for weights in ((*a, *b),)]


def blended_spans(span: slice, weights: Tensor, count: int) -> list[tuple[slice, Tensor]]:
    """Split `span`, in latents, into `count` overlapping parts, and share `weights`, one per pixel, among them."""
    rising, parts = ramp(), []
    for index, part in enumerate(spans(span.stop - span.start, count)):
        own = weights[part.start * SPATIAL_COMPRESSION : part.stop * SPATIAL_COMPRESSION].clone()
        if index > 0:
            own[: len(rising)] *= rising
        if index < count - 1:
            own[-len(rising) :] *= 1 - rising
        parts.append((slice(span.start + part.start, span.start + part.stop), own))
    return parts


def ramp() -> Tensor:
    """Return the weight of the later one of two overlapping tiles, from 0 to 1, per pixel."""
    pixels = OVERLAP * SPATIAL_COMPRESSION
    return (torch.arange(pixels) + 0.5) / pixels


def whole(latents: Tensor) -> Tile:
    """Return one tile that covers the whole picture."""
    height, width = latents.shape[-2:]
    weights = (torch.ones(side * SPATIAL_COMPRESSION) for side in (height, width))
    return Tile(slice(0, height), slice(0, width), *weights)


def grids(height: int, width: int) -> list[tuple[int, int]]:
    """Return the grids (rows, columns) for a picture in pixels, the one with the least work first."""
    rows, columns = (
        [count for count in range(1, MAX_TILES + 1) if count == 1 or _tile_length(side, count) >= 2 * OVERLAP]
        for side in (height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION)
    )

    def work(grid: tuple[int, int]) -> tuple[int, int]:
        tile_height, tile_width = largest_tile(height, width, grid)
        return grid[0] * grid[1] * tile_height * tile_width, grid[0] * grid[1]

    return sorted(((row, column) for row in rows for column in columns), key=work)


def finer_grid(grid: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return a grid with each tile of `grid` cut across its longer side, or `grid` if that is too fine."""
    tile_height, tile_width = largest_tile(height, width, grid)
    rows, columns = grid
    finer = (2 * rows, columns) if tile_height > tile_width else (rows, 2 * columns)
    return finer if finer in grids(height, width) else grid


def largest_tile(height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width, in latents, of the largest tile of a picture in pixels."""
    tile_height, tile_width = (
        _tile_length(side // SPATIAL_COMPRESSION, count) for side, count in zip((height, width), grid, strict=True)
    )
    return tile_height, tile_width


def _tile_length(length: int, count: int) -> int:
    return math.ceil((length + (count - 1) * OVERLAP) / count)


def spans(length: int, count: int) -> list[slice]:
    """Split `length` latents into `count` parts of about equal size that overlap by OVERLAP latents."""
    total = length + (count - 1) * OVERLAP
    parts, start = [], 0
    for index in range(count):
        stop = start + total // count + (index < total % count)
        parts.append(slice(start, stop))
        start = stop - OVERLAP
    return parts
