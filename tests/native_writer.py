"""The writer of prompts against transformers' own generation, for native_worker.py."""

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from comfy_extras.nodes_textgen import TextGenerate
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from cosmos_predict25.devtools.random_checkpoint import random_text_encoder, random_tokenizer
from cosmos_predict25.nodes.native.clip import load_clip
from cosmos_predict25.nodes.native.tokenizer import PICTURE_TOKENS, conversation
from cosmos_predict25.nodes.native.writer import patches_of, positions
from cosmos_predict25.pipeline.errors import CosmosError
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER
from cosmos_predict25.pipeline.local.load.parts import Parts, folder_parts

IDEA = "A cat jumps."
HIDDEN, LAYERS, TOKENS = 64, 3, 20
PICTURE = (torch.rand(1, 140, 196, 3, generator=torch.Generator().manual_seed(3)) * 255).round() / 255
"""5 x 7 tokens: its windows of 4 x 4 are not all whole."""


def random_writer(folder: Path) -> tuple[Any, Any]:
    """A small Qwen2.5-VL with a vision tower that has both kinds of attention, and its tokenizer."""
    tokenizer = random_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *PICTURE_TOKENS]})
    start, image, end = tokenizer.convert_tokens_to_ids(list(PICTURE_TOKENS))
    ids = {"image_token_id": image, "vision_start_token_id": start, "vision_end_token_id": end}
    torch.manual_seed(5)
    config = random_text_encoder(len(tokenizer), HIDDEN, LAYERS, 2, tie_word_embeddings=False, **ids).config
    config.vision_config.depth, config.vision_config.fullatt_block_indexes = 3, [1]
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def parts_of(folder: Path) -> tuple[Parts, dict[str, torch.Tensor]]:
    """With a random projection. The transformer and the VAE are not read."""
    features = HIDDEN * LAYERS
    config = {"crossattn_proj_in_channels": features, "encoder_hidden_states_channels": 32}
    projection = {"crossattn_proj.0.weight": torch.randn(32, features), "crossattn_proj.0.bias": torch.randn(32)}
    return Parts("writer", config, {}, {}, {}, folder, folder), projection


def seen_difference(model: Any, clip: Any) -> float:
    """Between the two vision towers: what is written hardly depends on the order of what is seen."""
    patches, grid = patches_of(PICTURE)
    seen = model.model.visual(patches, grid_thw=grid).pooler_output
    return (clip.cond_stage_model.visual(patches, grid) - seen).abs().max().item()


def same_positions(model: Any) -> bool:
    """For a picture of 5 x 7 tokens after 4 others and before 6."""
    kinds = torch.tensor([[0] * 4 + [1] * 35 + [0] * 6])
    ids = torch.where(kinds == 1, model.config.image_token_id, 5)
    grid = torch.tensor([[1, 10, 14]])
    places, _ = model.model.get_rope_index(ids, kinds, image_grid_thw=grid)
    return positions(45, 4, grid[0].tolist()).equal(places[:, 0])


def transformers_tokens(model: Any, tokenizer: Any, picture: torch.Tensor | None) -> list[int]:
    text, inputs = conversation(IDEA, picture is not None), {}
    if picture is not None:
        processor = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 10**7})
        inputs = dict(processor(images=(picture[0] * 255).byte().numpy(), return_tensors="pt"))
        text = text.replace(PICTURE_TOKENS[1], PICTURE_TOKENS[1] * (5 * 7))
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    if inputs:
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, max_new_tokens=TOKENS, do_sample=False
    )
    return made[0, ids.shape[1] :].tolist()


def stream_all(clip: Any) -> int:
    """Keeps every layer off the device from now on; how many there are."""
    clip.patcher.detach()
    clip.patcher.partially_load(clip.patcher.load_device, 0)
    clip.load_model = lambda tokens: None
    return sum(hasattr(layer, "prev_comfy_cast_weights") for layer in clip.cond_stage_model.modules())


def written(clip: Any, picture: torch.Tensor | None) -> list[int]:
    """As Generate Text calls it."""
    tokens = clip.tokenize(IDEA, image=picture, skip_template=False, min_length=1)
    return clip.generate(tokens, do_sample=False, max_length=TOKENS)


def written_with_mtp(clip: Any) -> list[int]:
    """As `CLIP.generate` of ComfyUI 0.38 calls the text encoder: with a number that this pack does not know."""
    encoder, generate = clip.cond_stage_model, clip.cond_stage_model.generate
    with mock.patch.object(encoder, "generate", lambda *tokens, **names: generate(*tokens, **names, mtp=4)):
        return written(clip, None)


def refusal(parts: Parts, projection: dict[str, torch.Tensor]) -> str:
    try:
        load_clip(parts, projection, writer=True)
    except CosmosError as error:
        return str(error)
    return ""


def refusal_to_write(clip: Any) -> str:
    try:
        written(clip, None)
    except CosmosError as error:
        return str(error)
    return ""


def writer_report(demo_projection: dict[str, torch.Tensor]) -> dict[str, Any]:
    pictures = {"text": None, "picture": PICTURE}
    with tempfile.TemporaryDirectory() as name:
        model, tokenizer = random_writer(Path(name))
        parts, projection = parts_of(Path(name))
        clip, plain = load_clip(parts, projection, writer=True), load_clip(parts, projection)
        embeds = [each.encode_from_tokens(each.tokenize(IDEA)) for each in (clip, plain)]
        clip.cond_stage_model.stop_tokens = ()
        report = {
            "transformers": {
                kind: transformers_tokens(model, tokenizer, picture) for kind, picture in pictures.items()
            },
            "loaded": {kind: written(clip, picture) for kind, picture in pictures.items()},
            "with mtp": written_with_mtp(clip),
            "sampled": clip.generate(
                clip.tokenize(IDEA, skip_template=False), seed=1, max_length=TOKENS, repetition_penalty=1.05
            ),
            "Generate Text": {
                kind: TextGenerate.execute(clip, IDEA, TOKENS, {"sampling_mode": "off"}, image=picture)[0]
                for kind, picture in pictures.items()
            },
            "vision": seen_difference(model, clip),
            "same positions": same_positions(model),
            "streamed layers": stream_all(clip),
            "streamed": {kind: written(clip, picture) for kind, picture in pictures.items()},
            "same embedding": embeds[0].equal(embeds[1]),
            "only the encoder": not any(
                part in key for key in plain.cond_stage_model.state_dict() for part in ("visual", "lm_head")
            ),
            "not switched on": refusal_to_write(plain),
            "demo": refusal(folder_parts(DEMO_FOLDER), demo_projection),
        }
        patches = Qwen2VLImageProcessor()(images=(PICTURE[0] * 255).byte().numpy(), return_tensors="pt")
        report["patches"] = (patches_of(PICTURE)[0] - patches["pixel_values"]).abs().max().item()
        report["texts"] = {kind: clip.decode(ids) for kind, ids in report["transformers"].items()}
        report["decoded"] = clip.decode(tokenizer(" a cat<|im_end|>")["input_ids"])
    return report
