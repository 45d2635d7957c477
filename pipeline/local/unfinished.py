"""A video that was denoised and could not be decoded."""

from torch import Tensor

from ..request import GenerationRequest


class UnfinishedVideo:
    """Keeps the latents of the last request until they are decoded, so that the same request goes on from there."""

    def __init__(self) -> None:
        self._request: GenerationRequest | None = None
        self._latents: Tensor | None = None

    def keep(self, request: GenerationRequest, latents: Tensor) -> None:
        """`latents`: (1, 16, T, H/8, W/8), what `request`, with its seed, was denoised to."""
        self._request, self._latents = request, latents.cpu()

    def latents_of(self, request: GenerationRequest) -> Tensor | None:
        return self._latents if self._request == request else None

    def clear(self) -> None:
        self._request = self._latents = None
