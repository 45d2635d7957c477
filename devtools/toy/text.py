"""The tokenizer, and the text encoder: a Qwen2.5-VL language model that learns to read what a sentence says.

It is trained alone: linear heads on the last layer's padding tokens, which come after the prompt and see all of it,
must name each attribute. Then the heads are thrown away and the encoder is frozen.
"""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import Linear, functional
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from ...pipeline.local.encode import SYSTEM_PROMPT, layer_features, tokenize
from ...pipeline.local.sizes import MAX_TOKENS
from ...pipeline.request import DEFAULT_NEGATIVE_PROMPT
from ..random_checkpoint import as_qwens, random_text_encoder
from .log import Log
from .prompts import Caption, all_words, caption_attributes, describe
from .state import Resumable
from .vae import learning_rate_factor
from .world import BACKGROUNDS, MOTIONS, SHAPE_COLORS, SHAPES, SIZES, SPEEDS, TEXTURES, random_scene

HIDDEN_SIZE = 64
NUM_LAYERS = 3
BATCH = 64
NUM_STEPS = 2400
LEARNING_RATE = 2e-3
MAX_PROMPT_LENGTH, SHORTEST = 64, 72
"""Tokens of the longest sentence about a scene, with the chat template, and of the shortest padded one."""
KEPT_TOKENS = 64
KEPT_PADS = 8

VALUES: dict[str, tuple[str, ...]] = {
    "color 1": SHAPE_COLORS, "shape 1": SHAPES, "color 2": SHAPE_COLORS, "shape 2": SHAPES, "motion": MOTIONS,
    "background": BACKGROUNDS, "texture": TEXTURES, "speed": SPEEDS, "size": SIZES,
}  # fmt: skip


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen2.5's, with merges for the words of the toy world; any other text becomes bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([*all_words(), SYSTEM_PROMPT, DEFAULT_NEGATIVE_PROMPT, "system user\n"], trainer)
    return as_qwens(tokenizer)


def new_text_encoder(vocab_size: int) -> Qwen2_5_VLForConditionalGeneration:
    """Its head over the vocabulary is never used: it is there because the class has it, and tied to save its bytes."""
    return random_text_encoder(
        vocab_size, HIDDEN_SIZE, NUM_LAYERS, num_key_value_heads=HIDDEN_SIZE // 16, tie_word_embeddings=True
    )


def caption(step: int, index: int) -> Caption:
    """Sentence `index` of a step. Only at the steps with all tokens is there room for the default negative prompt."""
    rng = random.Random(f"text {step} {index}")
    if rng.random() < 0.04:
        text = DEFAULT_NEGATIVE_PROMPT if all_tokens(step) else ""
        return Caption(text, dict.fromkeys(caption_attributes()))
    return describe(random_scene(rng, held_out=False, two=0.4), rng, partial=0.3)


def all_tokens(step: int) -> bool:
    """Whether a step reads all 512 tokens; the others read no more padding than it takes to learn from."""
    return step % 4 == 3


def train_text_encoder(state_file: Path, log: Log) -> Qwen2_5_VLForConditionalGeneration:
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(len(tokenizer))
    heads = nn.ModuleDict({name: Linear(HIDDEN_SIZE, len(VALUES[name]) + 1) for name in VALUES})
    parameters = [*encoder.model.language_model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    for step in (steps := Resumable(state_file, NUM_STEPS, 100, encoder=encoder, heads=heads, optimizer=optimizer)):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * learning_rate_factor(step, NUM_STEPS)
        captions = [caption(step, index) for index in range(BATCH)]
        rng = random.Random(step)
        length = MAX_TOKENS if all_tokens(step) else rng.randint(SHORTEST, 2 * SHORTEST)
        token_ids = torch.cat([tokenize(tokenizer, caption.text) for caption in captions])[:, :length]
        states = encoder.model.language_model(input_ids=token_ids, use_cache=False).last_hidden_state
        first_pad = 2 * SHORTEST if all_tokens(step) else MAX_PROMPT_LENGTH
        pads = states[:, rng.sample(range(first_pad, length), 4)]
        loss, right = read_attributes(heads, pads, captions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0:
            log(f"text step {step}: loss {loss.item():.4f}, attributes right {right:.4f}, {steps.seconds:.0f} s")
    return encoder


def read_attributes(heads: nn.ModuleDict, states: Tensor, captions: list[Caption]) -> tuple[Tensor, float]:
    """The loss of naming each attribute from each of `states`, (N, tokens, HIDDEN_SIZE), and the share named right."""
    losses, right = [], []
    for name, head in heads.items():
        values = [None, *VALUES[name]]
        wanted = torch.tensor([values.index(caption.attributes[name]) for caption in captions])
        wanted = wanted[:, None].expand(-1, states.shape[1]).flatten()
        logits = head(states).flatten(0, 1)
        losses.append(functional.cross_entropy(logits, wanted))
        right.append((logits.argmax(-1) == wanted).float().mean())
    return torch.stack(losses).mean(), torch.stack(right).mean().item()


@torch.inference_mode()
def kept_features(
    encoder: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> tuple[Tensor, Tensor]:
    """Features of a few of the 512 tokens of each text, and the log of how many tokens each stands for.

    (N, KEPT_TOKENS, layers * HIDDEN_SIZE) and (N, KEPT_TOKENS), float16. Added to the scores of cross-attention, the
    second makes a softmax over the kept tokens stand for the one over all 512: the padding tokens after a prompt are
    nearly equal, so a few of them do for all. Of a long text, tokens are drawn at random.
    """
    token_ids = torch.cat([tokenize(tokenizer, text) for text in texts])
    language_model = encoder.model.language_model
    features = layer_features(language_model, language_model.embed_tokens(token_ids))
    kept, weights = [], []
    for number, ids in enumerate(token_ids):
        rng = random.Random(texts[number])
        length = int((ids != tokenizer.pad_token_id).sum())
        from_text = min(length, KEPT_TOKENS - KEPT_PADS)
        from_pads = KEPT_TOKENS - from_text
        positions = sorted(rng.sample(range(length), from_text)) + sorted(
            rng.sample(range(length, MAX_TOKENS), from_pads)
        )
        kept.append(features[number, positions])
        shares = [length / from_text] * from_text + [(MAX_TOKENS - length) / from_pads] * from_pads
        weights.append(torch.tensor(shares).log())
    return torch.stack(kept).half(), torch.stack(weights).half()
