"""Run by tests/test_lora.py in a process of its own, which imports the ComfyUI that TESTED_COMFYUI names.

    python lora_worker.py CHECKPOINT FOLDER

Writes LoRAs into FOLDER and prints as JSON how far what the model makes with each is from what it makes with the same
numbers merged into its weights by hand.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosmos_predict25.devtools import comfy_on_cpu  # noqa: F401

# isort: split
import comfy.sd
from comfy import model_management
from diffusers import Cosmos2_5_PredictBasePipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from cosmos_predict25.nodes.host.lora import with_lora
from cosmos_predict25.nodes.host.memory import HostedModel
from cosmos_predict25.nodes.native.clip import load_clip
from cosmos_predict25.nodes.native.model import load_transformer
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocity
from cosmos_predict25.pipeline.local.encode import encode_prompt
from cosmos_predict25.pipeline.local.load.checkpoint import load_pipeline_folder
from cosmos_predict25.pipeline.local.load.original_names import diffusers_name
from cosmos_predict25.pipeline.local.load.parts import folder_parts
from cosmos_predict25.tests.lora import ALPHA, NAMINGS, RANK, TARGETS, Pairs, merged, random_pairs, write_lora

LATENTS = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
EMBEDS = torch.randn(1, 512, 96, generator=torch.Generator().manual_seed(2))
SIGMA = torch.tensor([0.7])
PEFT_CONFIGS = {
    "plain": {},
    "dora": {"use_dora": True},
    "rank-stabilised, another alpha": {"use_rslora": True, "alpha_pattern": {"attn1.to_q": 3.0}},
}


def velocity(transformer: nn.Module) -> Tensor:
    return predict_velocity(transformer, LATENTS, SIGMA, EMBEDS, condition_mask(LATENTS))  # pyright: ignore[reportArgumentType]


def hosted_velocity(model: HostedModel, streamed: bool) -> Tensor:
    load(model.patcher, streamed)
    return velocity(model.model.transformer)


@torch.inference_mode()
def native_velocity(network: nn.Module) -> Tensor:
    return network(torch.cat([LATENTS, condition_mask(LATENTS)], 1), SIGMA, EMBEDS)


def layer_name(name: str) -> str:
    """diffusers' name of a layer, for that or for ComfyUI's."""
    return (diffusers_name(f"{name}.weight") or "").removesuffix(".weight")


def load(patcher: Any, streamed: bool) -> None:
    """All of the weights, or none of them, as on a GPU that has no room."""
    patcher.detach()
    patcher.partially_load(patcher.load_device, 1 if streamed else 1e32)
    assert (patcher.model.lowvram_patch_counter > 0) == (streamed and len(patcher.patches) > 0)


Change = Callable[[str, Tensor], Tensor]
"""What a LoRA makes of the weight of the layer of that name in diffusers."""


def by_hand(transformer: nn.Module, change: Change, velocity: Callable[[nn.Module], Tensor] = velocity) -> Tensor:
    """What `transformer`, diffusers' or ComfyUI's own, makes with its layers' weights changed."""
    layers = {layer_name(name): layer for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear)}
    before = {name: layer.weight.data for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.weight.data = change(name, before[name])
    changed = velocity(transformer)
    for name, layer in layers.items():
        layer.weight.data = before[name]
    return changed


def merge(*loras: tuple[Pairs, float]) -> Change:
    def change(name: str, weight: Tensor) -> Tensor:
        for pairs, strength in loras:
            if name in pairs:
                weight = merged(weight, *pairs[name], strength)
        return weight

    return change


def decompose(pairs: Pairs, magnitudes: dict[str, Tensor]) -> Change:
    def change(name: str, weight: Tensor) -> Tensor:
        if name not in pairs:
            return weight
        weight = merged(weight, *pairs[name])
        return magnitudes[name][:, None] * weight / weight.norm(dim=1, keepdim=True)

    return change


def train_with_peft(checkpoint: Path, folder: Path, name: str, **config: Any) -> tuple[Path, Tensor]:
    """A LoRA of random numbers that PEFT makes and diffusers saves, and what the model makes with it under PEFT."""
    transformer = load_pipeline_folder(checkpoint).transformer
    torch.manual_seed(0)
    transformer.add_adapter(
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), init_lora_weights=False, **config)
    )
    for parameter_name, parameter in transformer.named_parameters():
        if "lora_magnitude_vector" in parameter_name:  # which PEFT starts with the norm, as if there were no DoRA
            parameter.data *= 0.5 + torch.rand_like(parameter)
    layers = get_peft_model_state_dict(transformer)
    about = transformer.peft_config["default"].to_dict()
    Cosmos2_5_PredictBasePipeline.save_lora_weights(
        folder, layers, weight_name=f"{name}.safetensors", transformer_lora_adapter_metadata=about
    )
    return folder / f"{name}.safetensors", velocity(transformer)


FACTORS = {
    "LoKr": {"lokr_w1": (2, 4), "lokr_w2_a": (64, 3), "lokr_w2_b": (3, 32)},
    "LoHa": {"hada_w1_a": (128, 3), "hada_w1_b": (3, 128), "hada_w2_a": (128, 3), "hada_w2_b": (3, 128)},
}
"""For the demo's attention, (128, 128)."""


def factors(model: HostedModel, folder: Path) -> dict[str, float]:
    """How far a LoKr's and a LoHa's weight is from their papers' formula, alpha 6 of rank 3."""
    name, layer = next(
        (name, layer) for name, layer in model.model.transformer.named_modules() if name.endswith("attn1.to_q")
    )
    load(model.patcher, streamed=False)  # takes another's patches off
    found = {}
    for kind, shapes in FACTORS.items():
        parts = {part: torch.randn(shape) for part, shape in shapes.items()}
        tensors = {f"lycoris_{name.replace('.', '_')}.{part}": value for part, value in parts.items()}
        tensors[f"lycoris_{name.replace('.', '_')}.alpha"] = torch.tensor(6.0)
        save_file(tensors, folder / f"{kind}.safetensors")
        changed, _, count, _ = with_lora(model, None, folder / f"{kind}.safetensors", 1)
        if kind == "LoKr":
            change = torch.kron(parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"])
        else:
            change = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
        before = layer.weight.data.clone()
        load(changed.patcher, streamed=False)
        assert count == 1
        found[kind] = apart(layer.weight.data, before + 2 * change)
        changed.patcher.detach()
    return found


PROJECTION_STRENGTH = 0.5


def projection(model: HostedModel, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """What a LoRA of the text projection makes of a prompt, against the same merged by hand, in both engines."""
    linear: Any = model.model.text_encoder.crossattn_proj[0]
    up, down = torch.randn(linear.out_features, 2) * 0.05, torch.randn(2, linear.in_features) * 0.05
    bias = torch.randn(linear.out_features)

    def encode() -> Tensor:
        return encode_prompt(model.model.text_encoder, model.model.tokenizer, "a red circle")

    before, weights = encode(), (linear.weight.data, linear.bias.data)
    linear.weight.data = weights[0] + PROJECTION_STRENGTH * up @ down
    linear.bias.data = weights[1] + PROJECTION_STRENGTH * bias
    wanted = encode()
    linear.weight.data, linear.bias.data = weights
    parts = folder_parts(checkpoint)
    native, tensors = load_transformer(parts)
    clip = load_clip(parts, tensors)
    distances, layers, left_out = [], [], []
    for prefix in ("net", "diffusion_model", "transformer"):
        names = (f"{prefix}.crossattn_proj.0.{kind}" for kind in ("lora_A.weight", "lora_B.weight", "diff_b"))
        file = folder / f"{prefix} distilled.safetensors"
        save_file(dict(zip(names, (down, up, bias), strict=True)), file)
        changed, _, count, lora = with_lora(model, None, file, PROJECTION_STRENGTH)
        load(changed.text_patcher, streamed=False)
        distances.append(apart(encode(), wanted))
        changed.text_patcher.detach()
        _, patched, native_count, _ = with_lora(native, clip, file, PROJECTION_STRENGTH)
        distances.append(apart(patched.encode_from_tokens(patched.tokenize("a red circle")), wanted))
        layers += [count, native_count]
        left_out += lora.left_out
    lora_of_it = {"net.crossattn_proj.0.lora_A.weight": down, "net.crossattn_proj.0.lora_B.weight": up}
    (folder / "both").mkdir()
    by_core, clip_by_core = comfy.sd.load_lora_for_models(native, clip, load_file(file), 1, 1)
    both = write_lora(folder / "both", "NVIDIA", random_pairs(model.model.transformer, 1), lora_of_it)
    *_, without = with_lora(native, None, both, 1)
    return {
        "effect": apart(wanted, before),
        "distances": distances,
        "layers": layers,
        "left out": [left_out, without.left_out],
        "prompts of its own": changed.prompts is not model.prompts,
        "patches of ComfyUI's own loader": [len(by_core.patches), len(clip_by_core.patcher.patches)],
        "kept": kept_prompts(model, file),
        "schedules": [changed.model.variant.schedule, model.model.variant.schedule],
        "without it": apart(encode(), before),
    }


def kept_prompts(model: HostedModel, file: Path) -> list[list[str]]:
    """Of one prompt without a LoRA, with `file` at two strengths, and at the first one again."""
    names = []
    for strength in (0, 0.5, 1, 0.5):
        changed = with_lora(model, None, file, strength)[0] if strength else model
        assert isinstance(changed, HostedModel)
        changed.prompts.get_or_encode("a blue square", lambda text: EMBEDS)
        names.append(sorted(path.name for path in (file.parent / "prompts").iterdir()))
    return names


def apart(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def main() -> None:
    checkpoint, folder = map(Path, sys.argv[1:])
    plain = load_pipeline_folder(checkpoint)
    transformer = plain.transformer
    first, second = random_pairs(transformer, 1), random_pairs(transformer, 2)
    magnitudes = {name: 1 + layer.weight.norm(dim=1) for name, layer in transformer.named_modules() if name in first}

    # Before ComfyUI has the weights.
    truths = {
        "all": by_hand(transformer, merge((first, 1))),
        "none": velocity(transformer),
        "one": by_hand(transformer, merge((first, 0.75))),
        "two": by_hand(transformer, merge((first, 0.75), (second, -0.5))),
        "dora": by_hand(transformer, decompose(first, magnitudes)),
    }
    from_disk = [parameter.data_ptr() for parameter in transformer.parameters()]
    model = HostedModel(plain, guardrail=False, prompt_folder=folder / "prompts")
    report: dict[str, Any] = {"effects": {name: apart(truth, truths["none"]) for name, truth in truths.items()}}
    native, _ = load_transformer(folder_parts(checkpoint))
    network = native.model.diffusion_model
    native_base = native_velocity(network)
    native_truth = by_hand(network, merge((first, 1)), native_velocity)
    report["effects"]["MODEL"] = apart(native_truth, native_base)
    report["namings"], report["peft"], report["MODEL"] = {}, {}, {}
    for naming in NAMINGS:
        file = write_lora(folder, naming, first)
        changed, _, count, lora = with_lora(model, None, file, 1)
        distances = [apart(hosted_velocity(changed, streamed), truths["all"]) for streamed in (False, True)]
        report["namings"][naming] = [count, lora.left_out, *distances]
        patched, _, count, lora = with_lora(native, None, file, 1)
        distances = []
        for streamed in (False, True):
            load(patched, streamed)
            distances.append(apart(native_velocity(network), native_truth))
        patched.detach()
        report["MODEL"][naming] = [count, lora.left_out, *distances]
    report["MODEL bit-equal"] = native_velocity(network).equal(native_base)

    one, *_ = with_lora(model, None, write_lora(folder, "kohya", first), 0.75)
    two, *_ = with_lora(one, None, write_lora(folder, "NVIDIA", second), -0.5)
    scales = {f"transformer.{name}.lora_magnitude_vector": value for name, value in magnitudes.items()}
    dora, *_ = with_lora(model, None, write_lora(folder, "diffusers", first, scales), 1)
    for name, config in PEFT_CONFIGS.items():
        file, truth = train_with_peft(checkpoint, folder, f"PEFT {name}", **config)
        changed, _, count, lora = with_lora(model, None, file, 1)
        report["effects"][f"PEFT {name}"] = apart(truth, truths["none"])
        report["peft"][name] = [count, lora.left_out, apart(hosted_velocity(changed, streamed=False), truth)]
    report["factors"] = factors(model, folder)
    report["projection"] = projection(model, checkpoint, folder)
    variants = {"none": model, "one": one, "two": two, "dora": dora}
    report["streamed"] = {
        name: apart(hosted_velocity(variant, streamed=True), truths[name]) for name, variant in variants.items()
    }
    report["in turn"] = []  # as branches of a graph take them
    for name, variant in (*variants.items(), *variants.items()):
        variant.use(transformer, 0)
        report["in turn"].append([name, apart(velocity(transformer), truths[name])])
    model_management.unload_all_models()
    report["base bit-equal"] = velocity(transformer).equal(truths["none"])
    report["from disk again"] = [parameter.data_ptr() for parameter in transformer.parameters()] == from_disk
    report["one's own latents"] = len({id(host.unfinished) for host in (model, one, two)}) == 3
    report["the same prompts"] = model.prompts is one.prompts is two.prompts
    print(json.dumps(report))


if __name__ == "__main__":
    main()
