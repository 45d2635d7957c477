"""The implementation of each part of local generation: ours, or the one of diffusers or transformers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ways:
    """True: our implementation, which needs less memory. False: the library's own, called by `library`."""

    transformer: bool = True
    vae: bool = True
    text_encoder: bool = True
    solver: bool = True


OURS = Ways()
