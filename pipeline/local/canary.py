"""Check that untested releases compute the same: two random blocks, ours against the library's."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch import Tensor, nn
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLTextModel

from ..errors import MissingDependencyError
from . import library
from .compat import Release, untested
from .condition import encode_frames
from .decode import decode
from .denoise import condition_mask, predict_velocity
from .encode import layer_features
from .latents import denormalize
from .load.checkpoint import empty_language_model
from .model import TextEncoder
from .schedule import UniPC, standard_sigmas
from .transformer import use_less_memory
from .variant import KARRAS_CONFIG
from .ways import OURS, Ways

TRANSFORMER: Mapping[str, Any] = {
    "in_channels": 17,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "num_layers": 2,
    "text_embed_dim": 32,
    "adaln_lora_dim": 16,
    "rope_scale": (1.0, 3.0, 3.0),
    "extra_pos_embed_type": None,
    "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 32,
    "encoder_hidden_states_channels": 32,
}
VAE: Mapping[str, Any] = {"base_dim": 4, "num_res_blocks": 1}
TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "bos_token_id": None,
    "eos_token_id": None,
}
FRAMES, STEPS = 5, 4
COMFYUI = "ComfyUI"
"""The one that pip does not install."""
MAX_ON_A_CPU = 1e-5
"""Of the values' size, in float32."""


@dataclass(frozen=True)
class Trial:
    """Two ways to the same values."""

    ours: Callable[[], Tensor]
    library: Callable[[], Tensor]


@dataclass(frozen=True)
class Part:
    """A part of the model to check. `package`: its owner. `loss`: the cost of running the library's own version.

    `elsewhere`: the allowed relative difference on a GPU, which rounds factors to 10 bits in float32.
    """

    package: str
    loss: str
    trial: Callable[[torch.device, torch.dtype], Trial]
    elsewhere: float = 1e-3


@torch.inference_mode()
def agrees(part: Part, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether ours is as close to the library's float32 result as the library's own in `dtype` is.

    Raises whatever the library raises.
    """
    most_rounding = MAX_ON_A_CPU if device.type == "cpu" else part.elsewhere
    exact = part.trial(device, torch.float32).library()
    for each in dict.fromkeys((torch.float32, dtype)):
        trial = part.trial(device, each)
        most = 2 * _difference(trial.library(), exact) + most_rounding
        try:
            difference = _difference(trial.ours(), exact)
        except Exception:
            logging.warning(f"Cosmos Predict2.5: {part.package} is another than expected.", exc_info=True)
            return False
        if not difference <= most:
            logging.warning(f"Cosmos Predict2.5: {part.package} differs by {difference:.1e}, {most:.1e} is expected.")
            return False
    return True


def _difference(values: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference, relative to that of `exact`."""
    return ((values.float() - exact).square().mean() / exact.square().mean()).sqrt().item()


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(make: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Any:
    """Return a network with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Not the network's own `to`, by which diffusers warns of a type that its training would not have.
        return nn.Module.to(make().eval().requires_grad_(False), device, dtype)


def transformer_and_pass(device: torch.device, dtype: torch.dtype) -> tuple[Any, Callable[[Any], Tensor]]:
    """Return diffusers' transformer, and a function that computes a velocity with a known first latent frame."""
    transformer = made(lambda: CosmosTransformer3DModel(**TRANSFORMER), device, dtype)
    transformer.crossattn_proj = nn.Identity()
    latents, embeds = random(1, 16, 2, 8, 6).to(device), random(1, 512, 32, seed=2).to(device)
    timestep = torch.tensor([0.0001, 0.7], device=device)

    def velocity(used: Any) -> Tensor:
        return predict_velocity(used, latents, timestep, embeds, condition_mask(latents, 1))

    return transformer, velocity


def transformer_trial(device: torch.device, dtype: torch.dtype) -> Trial:
    transformer, velocity = transformer_and_pass(device, dtype)
    return Trial(
        lambda: velocity(use_less_memory(copy.deepcopy(transformer))),
        lambda: velocity(library.use_librarys(copy.deepcopy(transformer))),
    )


def vae_trial(device: torch.device, dtype: torch.dtype) -> Trial:
    """Frames to latents, and other latents to frames."""
    vae: Any = made(lambda: AutoencoderKLWan(**VAE), device, dtype)
    frames, latents = random(FRAMES, 32, 32, 3).sigmoid(), denormalize(vae, random(1, 16, 2, 4, 4).to(device))

    def ours() -> Tensor:
        decoded = decode(vae, latents, FRAMES, (1, 1), lambda *_: None)
        return torch.cat([encode_frames(vae, frames, device).flatten(), decoded.flatten().to(device)])

    def librarys() -> Tensor:
        decoded = library.decode(vae, latents, FRAMES, lambda *_: None)
        return torch.cat([library.encode_frames(vae, frames, device).flatten(), decoded.flatten().to(device)])

    return Trial(ours, librarys)


def text_trial(device: torch.device, dtype: torch.dtype) -> Trial:
    config: Any = Qwen2_5_VLConfig(text_config=TEXT).text_config
    model: Any = made(lambda: Qwen2_5_VLTextModel(config), device, dtype)
    ids = torch.arange(24, device=device)[None]

    def ours() -> Tensor:
        empty: Any = empty_language_model(config)
        empty.load_state_dict(model.state_dict(), assign=True)
        encoder = TextEncoder(empty.to(device).eval(), nn.Identity())
        return layer_features(encoder.language_model, encoder.token_embeddings[ids])

    return Trial(ours, lambda: layer_features(model, input_ids=ids))


def solver_trial(device: torch.device, dtype: torch.dtype) -> Trial:
    """`dtype` is not used: the sampler computes in float32."""
    sigmas = standard_sigmas(KARRAS_CONFIG, STEPS)

    def last(solver: Any) -> Tensor:
        latents, states = random(1, 16, 2, 4, 4).to(device), []
        for index in range(STEPS):
            velocity = random(1, 16, 2, 4, 4, seed=index + 2).to(device) - latents
            latents, denoised = solver.step(index, velocity, latents)
            states += [latents, denoised]
        return torch.stack(states)

    return Trial(lambda: last(UniPC(KARRAS_CONFIG, sigmas)), lambda: last(library.LibraryUniPC(KARRAS_CONFIG, sigmas)))


PARTS: Mapping[str, Part] = {
    "transformer": Part("diffusers", "the transformer takes all tokens at once: more memory", transformer_trial),
    "vae": Part("diffusers", "the VAE takes the whole picture at once: more memory", vae_trial),
    "text_encoder": Part("transformers", "the text encoder is copied into memory: a slower start", text_trial),
    "solver": Part("diffusers", "the sampler is the one of diffusers", solver_trial),
}
"""By the names of `Ways`."""


@cache
def check(
    device: torch.device, dtype: torch.dtype, text_dtype: torch.dtype, vae_dtype: torch.dtype | None = None
) -> tuple[Ways, tuple[str, ...]]:
    """Return the implementation to use for each part, and a line for each part that runs the library's own.

    Nothing is computed if all installed releases were tested. `vae_dtype`: None for `dtype`.
    Raises `MissingDependencyError`, which names the package to install, if the library cannot compute a part either.
    """
    packages = untested()
    return check_parts(packages, device, dtype, text_dtype, vae_dtype) if packages else (OURS, ())


def check_parts(
    packages: Mapping[str, Release],
    device: torch.device,
    dtype: torch.dtype,
    text_dtype: torch.dtype,
    vae_dtype: torch.dtype | None = None,
) -> tuple[Ways, tuple[str, ...]]:
    """Do the work of `check` for `packages`, whose releases are untested."""
    others = {"text_encoder": text_dtype, "vae": vae_dtype or dtype}
    found = {name: _agrees_or_refuses(name, packages, device, others.get(name, dtype)) for name in PARTS}
    return Ways(**found), tuple(described(PARTS[name], packages) for name, same in found.items() if not same)


def _agrees_or_refuses(name: str, packages: Mapping[str, Release], device: torch.device, dtype: torch.dtype) -> bool:
    try:
        return agrees(PARTS[name], device, dtype)
    except Exception as error:
        releases, remedy = _releases(PARTS[name], packages)
        raise MissingDependencyError(
            f"The {name.replace('_', ' ')} does not run with {releases}, which was not tested: {error}. {remedy}"
        ) from error


def described(part: Part, packages: Mapping[str, Release]) -> str:
    """Return a line for the user: the release, the loss, and the package to install instead."""
    releases, remedy = _releases(part, packages)
    return f"With {releases}, which was not tested, {part.loss}. {remedy}"


def _releases(part: Part, packages: Mapping[str, Release]) -> tuple[str, str]:
    """Return the untested releases that may be the cause, and the packages to install instead."""
    blamed = {part.package: packages[part.package]} if part.package in packages else packages
    names = " and ".join(f"{package} {release.installed}" for package, release in blamed.items())
    by_pip = " ".join(f"{package}=={release.tested}" for package, release in blamed.items() if package != COMFYUI)
    others = [f"{COMFYUI} {blamed[COMFYUI].tested}"] if COMFYUI in blamed else []
    return names, f"Tested: {', '.join([*([f'pip install {by_pip}'] if by_pip else []), *others])}"
