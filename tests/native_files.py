"""Single files for ComfyUI's own MODEL and CLIP: scaled float8, and a text encoder alone, for native_worker.py."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from comfy.text_encoders.llama import Llama2_, Qwen25_7BVLI_Config
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLTextModel

from cosmos_predict25.devtools.random_checkpoint import random_transformer
from cosmos_predict25.nodes.native.clip import load_clip
from cosmos_predict25.nodes.native.model import load_transformer
from cosmos_predict25.nodes.native.tokenizer import COMFYUIS_TOKENIZER
from cosmos_predict25.pipeline.errors import WrongCheckpointError
from cosmos_predict25.pipeline.local.encode import encode_prompt, tokenize
from cosmos_predict25.pipeline.local.load.original_names import diffusers_name
from cosmos_predict25.pipeline.local.load.parts import Parts, transformer_config
from cosmos_predict25.pipeline.local.load.tokenizer import CHAT_TEMPLATE
from cosmos_predict25.pipeline.local.load.weights import index_tensors
from cosmos_predict25.pipeline.local.model import TextEncoder

Weights = dict[str, Tensor]
PROMPT = "A red circle moves over the caf\u00e9's table. \u5706 \U0001f642"
HIDDEN, LAYERS, VOCABULARY = 128, 2, 151665


def in_float8(weights: Weights) -> tuple[Weights, Weights]:
    """The layers of the blocks in float8 with their scales, and what they stand for."""
    stored, meant = {}, dict(weights)
    for name, weight in weights.items():
        stored[name] = weight
        if (".layers." in name or name.startswith("blocks.")) and weight.ndim == 2:
            scale = weight.abs().max() / 448
            stored[name] = (weight / scale).to(torch.float8_e4m3fn)
            stored[name.replace(".weight", ".weight_scale")] = scale
            meant[name] = stored[name].float() * scale
    return stored, meant


def as_comfyui_writes(weights: Weights) -> Weights:
    quant = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    scaled = [name for name in weights if name.endswith(".weight_scale")]
    return {**weights, **{name.replace(".weight_scale", ".comfy_quant"): quant.clone() for name in scaled}}


def as_older_files_are(weights: Weights) -> Weights:
    renamed = {name.replace(".weight_scale", ".scale_weight"): value for name, value in weights.items()}
    return {**renamed, "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}


def load_model(folder: Path, weights: Weights, prefix: str = "") -> Any:
    file = folder / "transformer.safetensors"
    save_file({prefix + name: value.contiguous() for name, value in weights.items()}, file)
    sources = index_tensors([file], diffusers_name)
    parts = Parts("random", transformer_config(file, sources), sources, {}, {}, folder, folder)
    return load_transformer(parts)


def plain_types(weights: Weights) -> dict[str, Weights]:
    """Without scales, and with two types in a file."""
    small = {name: value.to(torch.bfloat16) for name, value in weights.items() if "norm" not in name}
    return {
        "plain float8": {name: value.to(torch.float8_e4m3fn) for name, value in weights.items()},
        "bfloat16 and float32": {**weights, **small},
    }


def transformer_report(folder: Path) -> dict[str, float]:
    """The largest difference of a pass in float8 from one with the weights that are meant."""
    torch.manual_seed(1)
    model, projection = load_model(folder, random_transformer(256).state_dict())
    weights = {**model.model.diffusion_model.state_dict(), **projection}
    stored, meant = in_float8(weights)
    inputs = torch.randn(1, 17, 3, 8, 8), torch.tensor([0.7]), torch.randn(1, 512, 64)
    expected = load_model(folder, meant)[0].model.diffusion_model(*inputs)
    files = {
        "as ComfyUI writes it": (as_comfyui_writes(stored), "model.diffusion_model."),
        "as older files are": (as_older_files_are(stored), "net."),
    }
    found = {}
    for kind, stored in plain_types(weights).items():
        loaded = load_model(folder, stored, "net.")[0].model.diffusion_model
        plainly = load_model(folder, {name: value.float() for name, value in stored.items()})[0].model.diffusion_model
        found[kind] = (loaded(*inputs) - plainly(*inputs)).abs().max().item()
    for kind, file in files.items():
        loaded = load_model(folder, *file)[0].model.diffusion_model
        assert loaded.blocks[0].mlp.layer1.weight.dtype == torch.float8_e4m3fn or "Quantized" in str(
            type(loaded.blocks[0].mlp.layer1.weight.data)
        )
        found[kind] = (loaded(*inputs) - expected).abs().max().item()
    return found


def random_language_model() -> Weights:
    config = Qwen25_7BVLI_Config(VOCABULARY, HIDDEN, 2 * HIDDEN, LAYERS, 1, 1)
    torch.manual_seed(2)
    with torch.device("meta"):
        shapes = Llama2_(config, ops=torch.nn).state_dict(prefix="model.")
    return {name: torch.randn(value.shape) * 0.1 + (value.ndim == 1) for name, value in shapes.items()}


def load_text_encoder(folder: Path, weights: Weights, projection: Weights, **options: Any) -> Any:
    file = folder / "text_encoder.safetensors"
    save_file(weights, file)
    config = {"crossattn_proj_in_channels": HIDDEN * LAYERS, "encoder_hidden_states_channels": 64}
    return load_clip(Parts("one file", config, {}, {}, {}, file, file), projection, **options)


def reference(folder: Path, weights: Weights, projection: Weights) -> tuple[TextEncoder, Any]:
    """The same as a transformers folder would give."""
    tokenizer = AutoTokenizer.from_pretrained(COMFYUIS_TOKENIZER)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "tokenizer")
    sizes = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN}
    heads = {"num_hidden_layers": LAYERS, "num_attention_heads": 1, "num_key_value_heads": 1}
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
    model = Qwen2_5_VLTextModel(Qwen2_5_VLConfig(text_config={**sizes, **heads, **rope}).text_config).eval()
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    linear = torch.nn.Linear(HIDDEN * LAYERS, 64)
    linear.load_state_dict({name.removeprefix("crossattn_proj.0."): value for name, value in projection.items()})
    encoder = TextEncoder(model, torch.nn.Sequential(linear, torch.nn.GELU()))
    return encoder, AutoTokenizer.from_pretrained(folder / "tokenizer")


def text_encoder_report(folder: Path) -> dict[str, Any]:
    projection = {"crossattn_proj.0.weight": torch.randn(64, HIDDEN * LAYERS), "crossattn_proj.0.bias": torch.randn(64)}
    weights = random_language_model()
    encoder, tokenizer = reference(folder, weights, projection)
    clip = load_text_encoder(folder, weights, projection)
    tokens = [token for token, _ in clip.tokenize(PROMPT)["reason1"][0]]
    expected = encode_prompt(encoder, tokenizer, PROMPT)
    found = {
        "same tokens": tokens == tokenize(tokenizer, PROMPT)[0].tolist(),
        "embedding": (clip.encode_from_tokens(clip.tokenize(PROMPT)) - expected).abs().max().item(),
    }
    stored, meant = in_float8(weights)
    embeds = [load_text_encoder(folder, each, projection).encode_from_tokens(clip.tokenize(PROMPT))
              for each in (as_comfyui_writes(stored), meant)]  # fmt: skip
    found["float8"] = (embeds[0] - embeds[1]).abs().max().item()
    found["rounding"] = (embeds[0] - expected).abs().max().item()
    several = {f"cond_stage_model.{name}": value for name, value in weights.items()}
    others = {name: torch.zeros(2) for name in ("model.diffusion_model.x_embedder.a", "first_stage_model.decoder.b")}
    loaded = load_text_encoder(folder, {**several, **others}, projection)
    found["of several parts"] = (loaded.encode_from_tokens(clip.tokenize(PROMPT)) - expected).abs().max().item()
    found["no writer"] = refusal(lambda: load_text_encoder(folder, weights, projection, writer=True))
    found["another model"] = refusal(lambda: load_text_encoder(folder, {"decoder.a": torch.zeros(1)}, projection))
    return found


def refusal(load: Callable[[], Any]) -> str:
    try:
        load()
    except WrongCheckpointError as error:
        return str(error)
    return ""


def files_report() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {"transformer": transformer_report(folder), "text encoder": text_encoder_report(folder)}
