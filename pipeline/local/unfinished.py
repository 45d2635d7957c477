"""A video that was denoised and could not be decoded."""

from torch import Tensor

from ..request import GenerationRequest


class UnfinishedVideo:
    """Keeps the latents of the last request until they are decoded, so that the same request goes on from there.

    `grid`: of the tiles to decode in, finer than planned where memory has not sufficed; None where it was not tried.
    """

    def __init__(self) -> None:
        self.grid: tuple[int, int] | None = None
        self._kept: tuple[GenerationRequest, Tensor, Tensor] | None = None

    def keep(self, request: GenerationRequest, given: Tensor, latents: Tensor) -> None:
        """`latents`: (1, 16, T, H/8, W/8), what `request`, with its seed, was denoised to from the frames `given`."""
        self._kept = request, given, latents.cpu()
        self.grid = None

    def latents_of(self, request: GenerationRequest, given: Tensor) -> Tensor | None:
        if self._kept is None or self._kept[0] != request or not self._kept[1].equal(given):
            return None
        return self._kept[2]

    def clear(self) -> None:
        self._kept = None
