"""A video that was denoised but could not be decoded."""

from torch import Tensor

from ..request import GenerationRequest


class UnfinishedVideo:
    """Keeps the latents of the last request until they are decoded, so that the same request continues from there.

    `grid`: the tiles for decoding, finer than planned if memory ran out before, or None.
    """

    def __init__(self) -> None:
        self.grid: tuple[int, int] | None = None
        self._kept: tuple[GenerationRequest, Tensor, Tensor] | None = None

    def keep(self, request: GenerationRequest, conditioning_frames: Tensor, latents: Tensor) -> None:
        """Keep the denoised `latents`, (1, 16, T, H/8, W/8), of `request` with its seed.

        `conditioning_frames`: (0, 1 or 5, H, W, 3), the frames that the video starts from.
        """
        self._kept = request, conditioning_frames, latents.cpu()
        self.grid = None

    def latents_of(self, request: GenerationRequest, conditioning_frames: Tensor) -> Tensor | None:
        if self._kept is None or self._kept[0] != request or not self._kept[1].equal(conditioning_frames):
            return None
        return self._kept[2]

    def clear(self) -> None:
        self._kept = None
