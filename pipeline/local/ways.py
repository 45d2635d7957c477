"""Which parts of local generation are computed as here, and which as diffusers and transformers have them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ways:
    """True: as here, in less memory. False: as the library has it, which `library` calls."""

    transformer: bool = True
    vae: bool = True
    text_encoder: bool = True
    solver: bool = True


OURS = Ways()
