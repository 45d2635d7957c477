"""Run by tests/test_memory.py in a process of its own, which imports the ComfyUI that TESTED_COMFYUI names.

    python memory_worker.py CHECKPOINT

For each part of the checkpoint and each budget for its weights, and for a whole generation, prints as JSON whether the
result is that of the same weights without ComfyUI.
"""

import json
import sys
from pathlib import Path

import torch

from cosmos_predict25.devtools import comfy_on_cpu  # noqa: F401

# isort: split
from comfy import model_management

from cosmos_predict25.nodes.host.memory import HostedModel
from cosmos_predict25.pipeline.local.decode import decode_chunks
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.generate import generate
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.model import LocalModel
from cosmos_predict25.pipeline.request import GenerationRequest

BUDGETS = {"zero": 0.0, "half": 0.5, "full": 1.0}
REQUEST = GenerationRequest(
    prompt="A red circle.", seed=3, num_frames=9, num_inference_steps=2, width=64, height=64, guidance_scale=3
)


class LimitedHost(HostedModel):
    """Gives each part a share of its size for its weights, as a small GPU would."""

    share = 1.0

    def use(self, module, memory_required):
        super().use(module, memory_required)
        patcher = self._patchers[module]
        patcher.detach()
        # More than its size is what ComfyUI takes for "all of it".
        patcher.partially_load(self.device, patcher.model_size() * (self.share if self.share < 1 else 2))
        return self.device


def outputs(model: LocalModel) -> dict[str, torch.Tensor]:
    """What each part makes of the same input."""
    latents = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    embeds = encode_prompt(model.text_encoder, model.tokenizer, "A red circle.")
    velocity = predict_velocity(model.transformer, latents, torch.tensor([0.7]), embeds, condition_mask(latents))
    return {"text_encoder": embeds, "transformer": velocity, "vae": torch.cat(list(decode_chunks(model.vae, latents)))}


def streamed_layers(part: torch.nn.Module) -> int:
    return sum(hasattr(layer, "prev_comfy_cast_weights") for layer in part.modules())


def addresses(model: LocalModel) -> list[int]:
    parts = (model.text_encoder, model.transformer, model.vae)
    return [parameter.data_ptr() for part in parts for parameter in part.parameters()]


def main() -> None:
    plain = load_pipeline_folder(Path(sys.argv[1]))
    # The same buffers: where a weight lies in memory decides its last bit.
    expected, expected_video = outputs(plain), generate(plain, REQUEST)
    from_disk = addresses(plain)
    host = LimitedHost(plain, guardrail=False)
    report: dict = {"parts": {}, "streamed": {}, "videos": {}}
    for name, share in BUDGETS.items():
        host.share = share
        for part in (plain.text_encoder, plain.transformer, plain.vae):
            host.use(part, 0)
        report["streamed"][name] = [streamed_layers(p) for p in (plain.text_encoder, plain.transformer, plain.vae)]
        report["parts"][name] = {key: value.equal(expected[key]) for key, value in outputs(plain).items()}
        video = generate(plain, REQUEST, placement=host)
        report["videos"][name] = video.latents.equal(expected_video.latents) and video.frames.equal(
            expected_video.frames
        )
    model_management.unload_all_models()
    report["from disk again"] = addresses(plain) == from_disk
    classes = [type(layer) for layer in plain.vae.modules()]
    second = HostedModel(plain, guardrail=False)
    report["wrapped once"] = [type(layer) for layer in plain.vae.modules()] == classes
    second.use(plain.vae, 0)
    model_management.unload_all_models()
    report["from disk after the second host"] = addresses(plain) == from_disk
    print(json.dumps(report))


if __name__ == "__main__":
    main()
