"""The parts as diffusers and transformers compute them: `canary`'s reference, and the fallback for ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import CosmosTransformer3DModel
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from .latents import normalize

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan
    from transformers.models.qwen2_5_vl import Qwen2_5_VLTextModel

    from .decode import Report


class LibraryTransformer(CosmosTransformer3DModel):
    """diffusers' own transformer, with the interface of `CosmosTransformer`. `kernels` and `chunks` do nothing."""

    kernels: Any = None
    chunks: Any = None
    compute_dtype: torch.dtype | None = None
    fps: int | None = None

    def at(self, latents: Tensor, timestep: Tensor) -> Tensor:
        return timestep if len(timestep) == 1 else timestep.view(1, 1, -1, 1, 1)

    def prompt(self, prompt_embeds: Tensor, latents: Tensor) -> Tensor:
        return prompt_embeds.to(self.compute_dtype or self.dtype)

    def forward(self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor, condition_mask: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(
            hidden_states=latents,
            timestep=timestep,
            encoder_hidden_states=prompt_embeds,
            condition_mask=condition_mask,
            padding_mask=latents.new_zeros(1, 1, *latents.shape[-2:]),
            fps=self.fps,
            return_dict=False,
        )[0]  # pyright: ignore[reportReturnType]


def use_librarys(transformer: CosmosTransformer3DModel) -> Any:
    """Turn `transformer` into a `LibraryTransformer`, and return it."""
    transformer.__class__ = LibraryTransformer
    return transformer


@torch.inference_mode()
def encode_frames(vae: "AutoencoderKLWan", frames: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Do the work of `condition.encode_frames`, with all frames at once."""
    pixels = (frames.to(device, vae.dtype) * 2 - 1).permute(3, 0, 1, 2)[None]
    posterior: Any = vae.encode(pixels, return_dict=False)
    return normalize(vae, posterior[0].mode().float())


@torch.inference_mode()
def decode(vae: "AutoencoderKLWan", latents: Tensor, num_frames: int, report: "Report") -> Tensor:
    """Do the work of `decode.decode`, with the whole video on the device at once."""
    video: Any = vae.decode(latents.to(vae.dtype), return_dict=False)
    frames = (video[0][0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)[:num_frames].cpu()
    report(1, 1, num_frames)
    return frames


def load_language_model(folder: Path, dtype: torch.dtype | None) -> "Qwen2_5_VLTextModel":
    """Read a folder as transformers does, which copies the weights."""
    from transformers.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

    whole: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype or "auto", local_files_only=True
    )
    return whole.model.language_model.eval().requires_grad_(False)


class LibraryUniPC:
    """diffusers' UniPC, with the sigmas passed through its own argument."""

    def __init__(self, config: Mapping[str, Any], sigmas: Tensor) -> None:
        self.sigmas = sigmas.cpu()
        self._scheduler: Any = UniPCMultistepScheduler.from_config({**config, "use_karras_sigmas": False})
        self._scheduler.set_timesteps(sigmas=self.sigmas[:-1].numpy())

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        denoised = latents - self.sigmas[index].item() * velocity
        timestep = self._scheduler.timesteps[index]
        return self._scheduler.step(velocity, timestep, latents, return_dict=False)[0], denoised
