"""The private names of diffusers and transformers that local generation uses. Only this file imports them.

If a release no longer has a name, it becomes an empty class without instances. `canary` then finds that the part does
not work, and the library's own version runs.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from ..lazy import lazy

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        CACHE_T as CACHE_T,
    )
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        WanCausalConv3d as WanCausalConv3d,
    )
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        WanMidBlock as WanMidBlock,
    )
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        WanResample as WanResample,
    )
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        WanResidualBlock as WanResidualBlock,
    )
    from diffusers.models.autoencoders.autoencoder_kl_wan import (
        WanRMS_norm as WanRMS_norm,
    )
    from diffusers.models.embeddings import apply_rotary_emb as apply_rotary_emb
    from diffusers.models.transformers.transformer_cosmos import CosmosTransformerBlock as CosmosTransformerBlock
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
        Qwen2_5_VLRotaryEmbedding as Qwen2_5_VLRotaryEmbedding,
    )

TESTED: Mapping[str, tuple[str, ...]] = {
    "torch": ("2.11.0",),
    "diffusers": ("0.37.1", "0.39.0", "0.42.1"),
    "transformers": ("4.57.6", "5.24.0"),
}
"""The releases that the tests have run with, the newest last."""

WAN = "diffusers.models.autoencoders.autoencoder_kl_wan"
PRIVATE = {
    # How many frames a convolution remembers. Without it the VAE cannot go on from one latent frame to the next.
    "CACHE_T": WAN,
    # The convolutions that remember. Without it nothing counts them, and nothing makes them fast on a CPU.
    "WanCausalConv3d": WAN,
    # The norm that is made fast on a CPU. Without it it is as slow as diffusers' own.
    "WanRMS_norm": WAN,
    # The layers that hand on what convolutions remember. Without one of them a start is not encoded frame by frame.
    "WanMidBlock": WAN,
    "WanResample": WAN,
    "WanResidualBlock": WAN,
    # Turns queries and keys. Without it the transformer does not know where a token is.
    "apply_rotary_emb": "diffusers.models.embeddings",
    # The block whose forward is done anew, in pieces. Without it the transformer takes all tokens at once.
    "CosmosTransformerBlock": "diffusers.models.transformers.transformer_cosmos",
    # Has its frequencies computed when a model was made without memory. Without it these stay empty.
    "Qwen2_5_VLRotaryEmbedding": "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
}
"""Name -> the module it is imported from."""


__getattr__ = lazy(__name__, PRIVATE, missing=lambda name: type(name, (), {}))


class Release(NamedTuple):
    """A package's installed release, and the newest tested one."""

    installed: str
    tested: str


def untested() -> dict[str, Release]:
    """Return the packages whose installed release is not in `TESTED`."""
    installed = {package: version(package).split("+")[0] for package in TESTED}
    return {
        package: Release(installed[package], releases[-1])
        for package, releases in TESTED.items()
        if installed[package] not in releases
    }
