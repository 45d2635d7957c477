"""Sentences about a scene: synonyms, free order of the parts, and parts left out."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .world import Scene

WORDS = {
    "red": ("red", "red", "crimson", "scarlet"),
    "green": ("green", "green", "emerald"),
    "blue": ("blue", "blue", "azure"),
    "yellow": ("yellow", "yellow", "golden"),
    "purple": ("purple", "purple", "violet"),
    "white": ("white", "white", "snow-white"),
    "black": ("black", "black", "pitch-black"),
    "gray": ("gray", "grey"),
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle", "triangle", "pyramid"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "slow": ("slowly", "gently"),
    "fast": ("quickly", "fast"),
    "plain": ("plain", "uniform"),
    "striped": ("striped", "banded"),
    "checkered": ("checkered", "chequered"),
}
MOTIONS = {
    "left": ("moves left", "moves to the left", "slides leftward", "drifts left", "travels from right to left"),
    "right": ("moves right", "moves to the right", "slides rightward", "drifts right", "travels from left to right"),
    "up": ("moves up", "rises", "floats upward", "goes up", "climbs to the top"),
    "down": ("moves down", "falls", "sinks downward", "goes down", "drops to the bottom"),
    "bounce": ("falls and bounces", "bounces", "drops and bounces back", "bounces off the floor"),
}
MOVING = {
    "left": ("moving left", "sliding leftward", "drifting to the left"),
    "right": ("moving right", "sliding rightward", "drifting to the right"),
    "up": ("moving up", "rising", "floating upward"),
    "down": ("moving down", "falling", "sinking downward"),
    "bounce": ("falling and bouncing", "bouncing", "bouncing off the floor"),
}
TEMPLATES = (
    "A {things} {moves} over a {ground} background.",
    "a {things} {moves} over {ground}",
    "a {things} {moves} on {ground}",
    "a {things} {moving} on a {ground} background",
    "On a {ground} background, a {things} {moves}.",
    "The background is {ground}. A {things} {moves}.",
    "{moving}: a {things}, {ground} background",
    "A video of a {things} that {moves} in front of a {ground} wall.",
    "{ground} background, {things}, {moving}",
    "We see a {things}. It {moves}. Behind it everything is {ground}.",
)
HELD_OUT_TEMPLATES = (
    "In front of a {ground} background, a {things} {moves}.",
    "{things} {moving}, {ground} background",
    "A {things} {moves}. The background is {ground}.",
    "Over {ground}, a {things} {moves}.",
    "a video of a {things} {moving} over a {ground} wall",
)
PARTIAL = 0.25
"""Share of the training sentences that say only a part of what there is to see."""
PARTIAL_TEMPLATES = (
    "{things}",
    "a {things}",
    "a {things} {moves}",
    "{moving} {things}",
    "a {things} on a {ground} background",
    "{ground} background",
    "{color}",
    "{shape}",
    "{moving}",
    "something {color} {moves}",
    "a {color} thing",
    "{shape} {moving}",
    "something {moves} over {ground}",
)


@dataclass(frozen=True)
class Caption:
    """A text and what it says of each attribute; None where it says nothing."""

    text: str
    attributes: dict[str, str | None]


def describe(scene: Scene, rng: random.Random, *, held_out: bool = False, partial: float = 0.0) -> Caption:
    """A sentence about `scene`, in one of the held-out forms or of the others. `partial`: the share of short ones."""
    short = rng.random() < partial
    template = rng.choice(PARTIAL_TEMPLATES if short else HELD_OUT_TEMPLATES if held_out else TEMPLATES)
    if len(scene.objects) == 2 and "{things}" not in template:
        template = "{ground} background"
    words = _CaptionWords(scene, rng)
    text = template.format_map(words)
    return Caption(text, words.attributes)


class _CaptionWords:
    """The words for the parts that a template asks for; notes in `attributes` what they say."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng
        self.attributes: dict[str, str | None] = dict.fromkeys(caption_attributes())

    def __getitem__(self, part: str) -> str:
        return getattr(self, part)()

    def word(self, value: str) -> str:
        return self.rng.choice(WORDS[value])

    def things(self) -> str:
        size = self.scene.size if self.rng.random() < 0.8 else None
        self.attributes["size"] = size
        names = []
        for number, scene_object in enumerate(self.scene.objects, start=1):
            self.attributes[f"color {number}"] = scene_object.color
            self.attributes[f"shape {number}"] = scene_object.shape
            words = [self.word(scene_object.color), self.word(scene_object.shape)]
            names.append(" ".join([self.word(size), *words] if size else words))
        return self.rng.choice((" and a ", " and a ", " next to a ")).join(names)

    def color(self) -> str:
        self.attributes["color 1"] = self.scene.objects[0].color
        return self.word(self.scene.objects[0].color)

    def shape(self) -> str:
        self.attributes["shape 1"] = self.scene.objects[0].shape
        return self.word(self.scene.objects[0].shape)

    def moves(self) -> str:
        return self._motion(MOTIONS)

    def moving(self) -> str:
        return self._motion(MOVING)

    def _motion(self, words: dict[str, tuple[str, ...]]) -> str:
        self.attributes["motion"] = self.scene.motion
        text = self.rng.choice(words[self.scene.motion])
        if self.scene.speed and self.rng.random() < 0.8:
            self.attributes["speed"] = self.scene.speed
            text += " " + self.word(self.scene.speed)
        return text

    def ground(self) -> str:
        self.attributes["background"] = self.scene.background
        color = self.word(self.scene.background)
        if self.rng.random() < (0.3 if self.scene.texture == "plain" else 0.8):
            self.attributes["texture"] = self.scene.texture
            return f"{self.word(self.scene.texture)} {color}"
        return color


def caption_attributes() -> tuple[str, ...]:
    return ("color 1", "shape 1", "color 2", "shape 2", "motion", "background", "texture", "speed", "size")


def all_words() -> Iterator[str]:
    """Every text of the closed world, for the tokenizer to learn its words from.

    The placeholders' names are among them, so that other names would give another tokenizer.
    """
    for words in (*WORDS.values(), *MOTIONS.values(), *MOVING.values()):
        for word in words:
            yield from (word, f"a {word} a", word.capitalize())
    for template in (*TEMPLATES, *HELD_OUT_TEMPLATES, *PARTIAL_TEMPLATES):
        yield template.replace("{", "").replace("}", "")
    yield "a red circle and a blue square next to a green one"
