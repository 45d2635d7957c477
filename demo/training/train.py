"""Train the demo checkpoint on generated clips: text encoder, VAE, transformer.

    python demo/training/train.py FOLDER [--state FOLDER] [--steps 14000]
    python demo/training/train.py FOLDER --after CHECKPOINT --steps 2800 --rate 0.4 --own 1024

Writes the checkpoint in diffusers layout into FOLDER, anew every few hundred steps of the transformer, and the log
beside it. Run again after an interruption, it goes on from the files in --state. It uses two cores.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from cosmos_predict25.devtools.random_checkpoint import random_scheduler, write_checkpoint
from cosmos_predict25.devtools.toy import text, vae
from cosmos_predict25.devtools.toy.flow import Samples, flow_losses, new_transformer, train_flow
from cosmos_predict25.devtools.toy.log import Log
from cosmos_predict25.devtools.toy.own_videos import LEAST, Newest, losses_with_own
from cosmos_predict25.devtools.toy.prompts import PARTIAL, describe
from cosmos_predict25.pipeline.disk import atomic_write
from cosmos_predict25.pipeline.local.latents import normalize
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT

CAPTIONS = 4
CHUNK = 64
PREVIEWED = 512
"""Scenes of which the colours of previews are fitted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--state", type=Path, help="folder for what a resumed run needs (default: FOLDER.state)")
    parser.add_argument("--steps", type=int, default=14000, help="steps of the transformer (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=2560, help="clips in the training set (default: %(default)s)")
    parser.add_argument("--after", type=Path, help="checkpoint to train on: its transformer; the rest of it is kept")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the learning rate (default: %(default)s)")
    parser.add_argument(
        "--own",
        type=int,
        default=0,
        help=f"with --after: how many of its own videos the network learns from at a time, at least {LEAST}; "
        f"{LEAST} of them are made anew whenever the checkpoint is written",
    )
    options = parser.parse_args()
    if options.own and not options.after:
        parser.error("--own needs --after: a network without training makes no videos to learn from.")
    if options.own and options.own < LEAST:
        parser.error(f"--own is {options.own}, and the least is {LEAST}: give {LEAST} or more.")
    torch.set_num_threads(2)
    state = options.state or options.folder.with_name(options.folder.name + ".state")
    for folder in (options.folder, state):
        folder.mkdir(parents=True, exist_ok=True)
    train(options.folder, state, options.steps, options.scenes, options.after, options.rate, options.own)


def train(
    folder: Path, state: Path, num_steps: int, num_scenes: int, after: Path | None, rate: float, num_own: int
) -> None:
    log = Log(folder / "training.log")
    counts = {kind: num_scenes if kind == "whole" else num_scenes // 4 for kind in vae.KINDS}
    files = [(kind, first) for kind in vae.KINDS for first in range(0, counts[kind], CHUNK)]
    with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        with stage("text encoder and vae", log):
            list(pool.map(train_one, ("text", "vae"), repeat(state), repeat(log), repeat(after)))
        with stage("latents and captions", log):
            list(pool.map(make_scenes, *zip(*files, strict=True), repeat(state), repeat(log), repeat(after)))
    tokenizer = text.new_tokenizer()
    # Read again: a model of transformers that came back from another process gives no hidden states.
    encoder, autoencoder = (train_one(part, state, log, after) for part in ("text", "vae"))
    chunks = [torch.load(scenes_file(state, *file), weights_only=True) for file in files]
    data = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    if after is None:
        vae.set_latent_scale(autoencoder, data["latents"])
        vae.set_preview_factors(autoencoder, data["latents"][:PREVIEWED])
    # A tokenizer keeps how it was last used to pad and to cut, so the one that is written is a fresh one.
    parts = {"text_encoder": encoder, "vae": autoencoder, "tokenizer": tokenizer, "scheduler": random_scheduler()}
    blank = text.kept_features(encoder, text.new_tokenizer(), ["", DEFAULT_NEGATIVE_PROMPT])
    latents = normalize(autoencoder, data["latents"].float()).half()
    ends = list(accumulate(counts.values(), initial=0))
    kinds = [range(*ends) for ends in pairwise(ends)]
    samples = Samples(latents, data["features"], data["log_counts"], blank, kinds)
    torch.manual_seed(0)
    if after:
        transformer = CosmosTransformer3DModel.from_pretrained(after / "transformer")
    else:
        transformer = new_transformer(samples.features.shape[-1])
    own = Newest(state / "own.pt")
    if after and num_own and not own.made:
        with stage("own videos", log):
            own.make(after, num_own)
    losses = partial(losses_with_own, own=own) if num_own else flow_losses
    losses_at = partial(losses, transformer, samples)
    with stage("transformer", log):
        for done, average in train_flow(transformer, losses_at, state / "flow.pt", num_steps, log, rate):
            write_checkpoint(folder, {**parts, "transformer": average})
            let_transformers_4_read(folder)
            leave_paths_out(folder)
            if num_own and done < num_steps:
                own.make(folder, LEAST)


@contextmanager
def stage(name: str, log: Log) -> Iterator[None]:
    """Log the wall seconds that a stage takes in this run."""
    start = time.monotonic()
    yield
    log(f"{name}: {time.monotonic() - start:.0f} s in this run")


def train_one(part: str, state: Path, log: Log, after: Path | None) -> Any:
    """Train the text encoder or the VAE as far as its file in `state` says that it is not trained yet.

    `after`: instead, that of this checkpoint.
    """
    if after:
        loader, name = {"text": (Qwen2_5_VLForConditionalGeneration, "text_encoder"), "vae": (AutoencoderKLWan, "vae")}[
            part
        ]
        return loader.from_pretrained(after / name).eval()
    train_part = {"text": text.train_text_encoder, "vae": vae.train_vae}[part]
    return train_part(state / f"{part}.pt", log).eval()


def scenes_file(state: Path, kind: str, first: int) -> Path:
    return state / f"scenes_{kind}_{first}.pt"


def make_scenes(kind: str, first: int, state: Path, log: Log, after: Path | None) -> None:
    """Write the latents of CHUNK scenes, and the features of CAPTIONS sentences about each, into a file."""
    file = scenes_file(state, kind, first)
    if file.exists():
        return
    encoder, autoencoder = (train_one(part, state, log, after) for part in ("text", "vae"))
    scenes = {"latents": vae.encode_clips(autoencoder, kind, first, CHUNK), **captions(encoder, kind, first)}
    with atomic_write(file) as temporary:
        torch.save(scenes, temporary)


def captions(encoder: Any, kind: str, first: int) -> dict[str, Tensor]:
    """`features` (CHUNK, CAPTIONS, tokens, features) and `log_counts` (CHUNK, CAPTIONS, tokens)."""
    tokenizer = text.new_tokenizer()
    features, log_counts = [], []
    for index in range(first, first + CHUNK):
        rng = random.Random(f"captions {kind} {index}")
        scene = vae.training_scene(kind, index)[0]
        found = text.kept_features(
            encoder, tokenizer, [describe(scene, rng, partial=PARTIAL).text for _ in range(CAPTIONS)]
        )
        features.append(found[0])
        log_counts.append(found[1])
    return {"features": torch.stack(features), "log_counts": torch.stack(log_counts)}


def let_transformers_4_read(folder: Path) -> None:
    """Name in the files that transformers 5 wrote what it renamed, as older checkpoints do: both read that."""
    with rewritten(folder / "tokenizer" / "tokenizer_config.json") as config:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    with rewritten(folder / "text_encoder" / "config.json") as config:
        rope = config["text_config"].pop("rope_parameters")
        config["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    with rewritten(folder / "model_index.json") as index:
        index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]


def leave_paths_out(folder: Path) -> None:
    """Take out of the files the folder that a part was read from."""
    for name in ("transformer", "vae"):
        with rewritten(folder / name / "config.json") as config:
            config.pop("_name_or_path", None)


@contextmanager
def rewritten(file: Path) -> Iterator[dict[str, Any]]:
    """What a JSON file holds; written back as it is at the end."""
    values = json.loads(file.read_text(encoding="utf-8"))
    yield values
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
