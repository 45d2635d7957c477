"""Train the demo's LoRA: the demo checkpoint, which knows black as a background alone, learns to draw black shapes.

    python demo/training/lora.py [FILE] [--steps 500]

It takes the checkpoint in demo/moving-shapes as it is, so run it again whenever that was trained anew. One core,
without other work, needs about ten minutes.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch import nn
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from cosmos_predict25.devtools.toy import text, vae
from cosmos_predict25.devtools.toy.flow import Samples, batch_sigma, in_bfloat16, velocity_loss
from cosmos_predict25.devtools.toy.low_rank import add_low_rank, save_lora
from cosmos_predict25.devtools.toy.prompts import describe
from cosmos_predict25.devtools.toy.world import Scene, lora_scene, random_scene
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.local.load.find import DEMO_FOLDER, DEMO_LORA_FILE
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT

RANK = 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""The layers that diffusers' training script for Cosmos-Predict2.5 adapts."""
NUM_SCENES, CAPTIONS = 512, 2
CHUNK = 16
OLD_COLORS = 0.4
"""Share of the scenes with the colours that the checkpoint knows, so that it does not forget them."""
LEARNING_RATE = 4e-3


def training_scenes() -> list[tuple[Scene, random.Random]]:
    rngs = [random.Random(f"lora {index}") for index in range(NUM_SCENES)]
    return [
        (random_scene(rng, held_out=False) if rng.random() < OLD_COLORS else lora_scene(rng, held_out=False), rng)
        for rng in rngs
    ]


@torch.inference_mode()
def make_samples() -> Samples:
    autoencoder = AutoencoderKLWan.from_pretrained(DEMO_FOLDER / "vae", torch_dtype=torch.float32)
    encoder: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(DEMO_FOLDER / "text_encoder", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER / "tokenizer")
    scenes = training_scenes()
    latents, features, log_counts = [], [], []
    for first in range(0, NUM_SCENES, CHUNK):
        chunk = scenes[first : first + CHUNK]
        clips = torch.stack([vae.clip(scene, rng) for scene, rng in chunk])
        latents.append(normalize(autoencoder, vae.encode(autoencoder, clips)))
        captions = [describe(scene, rng).text for scene, rng in chunk for _ in range(CAPTIONS)]
        for values, kept in zip((features, log_counts), text.kept_features(encoder, tokenizer, captions), strict=True):
            values.append(kept.unflatten(0, (len(chunk), CAPTIONS)))
    blank = text.kept_features(encoder, tokenizer, ["", DEFAULT_NEGATIVE_PROMPT])
    return Samples(torch.cat(latents), torch.cat(features), torch.cat(log_counts), blank, [range(NUM_SCENES)])


def train_lora(samples: Samples, num_steps: int) -> nn.ModuleDict:
    torch.manual_seed(0)
    transformer = CosmosTransformer3DModel.from_pretrained(DEMO_FOLDER / "transformer", torch_dtype=torch.float32)
    lora = add_low_rank(transformer, TARGETS, RANK)
    parameters = list(lora.parameters())
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    recent, start = None, time.monotonic()
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * vae.learning_rate_factor(step, num_steps)
        latents, features, log_counts = samples.batch(step, given=0)
        with in_bfloat16():
            loss = velocity_loss(transformer, latents, batch_sigma(), features, log_counts, given=0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = loss.item() if recent is None else 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"lora step {step}: loss {recent:.4f}, {time.monotonic() - start:.0f} s", flush=True)
    return lora


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=DEMO_LORA_FILE)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    save_lora(options.file, train_lora(make_samples(), options.steps), RANK)


if __name__ == "__main__":
    main()
