"""The toy world: coloured shapes that move over plain or textured backgrounds, and sentences about them."""

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SIDE = 96
NUM_FRAMES = 25

COLORS = {
    "red": (222, 38, 38),
    "green": (38, 172, 62),
    "blue": (44, 84, 224),
    "yellow": (244, 216, 44),
    "purple": (150, 46, 196),
    "white": (246, 246, 246),
    "black": (16, 16, 16),
    "gray": (128, 128, 128),
}
SHAPE_COLORS = ("red", "green", "blue", "yellow", "purple", "white")
LORA_COLOR = "black"
"""A shape's colour that the demo checkpoint does not know and its LoRA adds."""
BACKGROUNDS = ("black", "gray", "white", "blue", "green")
SHAPES = ("circle", "square", "triangle")
MOTIONS = ("left", "right", "up", "down", "bounce")
SPEEDS = ("slow", "fast")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "checkered")

RADIUS = {"small": 13.5, None: 16.5, "large": 19.5}
"""The radius in pixels of a circle; the other shapes have its area."""
DISTANCE = {"slow": 27.0, None: 39.0, "fast": 51.0}
"""Pixels travelled from the first frame to the last."""
LANES = {1: (SIDE / 2,), 2: (25.5, SIDE - 25.5)}
"""Where the ways of one and of two objects lie, across the direction of motion: that of the first is left or above."""
JITTER = 7.5
"""Pixels by which a way may lie beside its lane, and its middle beside the clip's."""
FLOOR = SIDE - 6
CELL = 16
"""Side of a check and width of a band."""
SHIFTS = tuple(quarter * CELL / 2 for quarter in range(4))
"""Pixels by which checks and bands may be moved."""


@dataclass(frozen=True)
class SceneObject:
    color: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """One or two objects that move the same way. None as a speed or a size is the middle one."""

    objects: tuple[SceneObject, ...]
    motion: str
    background: str
    texture: str = "plain"
    speed: str | None = None
    size: str | None = None

    def held_out(self) -> bool:
        """One in five combinations of colour, shape, motion and background is never trained on."""
        return any(
            (SHAPE_COLORS.index(scene_object.color) + 2 * SHAPES.index(scene_object.shape) + MOTIONS.index(self.motion)
             + 3 * BACKGROUNDS.index(self.background)) % 5 == 0
            for scene_object in self.objects
        )  # fmt: skip


def random_scene(rng: random.Random, *, held_out: bool, two: float = 0.2) -> Scene:
    """A scene out of the part of the world that is held out, or out of the rest. `two`: the share with two objects."""
    while True:
        background = rng.choice(BACKGROUNDS)
        colors = rng.sample([color for color in SHAPE_COLORS if color != background], 2)
        objects = [SceneObject(color, rng.choice(SHAPES)) for color in colors]
        scene = Scene(
            objects=tuple(objects if rng.random() < two else objects[:1]),
            motion=rng.choice(MOTIONS),
            background=background,
            texture=rng.choice(("plain", "plain", "striped", "checkered")),
            speed=rng.choice((None, None, *SPEEDS)),
            size=rng.choice((None, None, *SIZES)),
        )
        if len(scene.objects) == 2:
            scene = replace(scene, size="small" if scene.size == "small" else None)
        if scene.held_out() == held_out:
            return scene


def lora_scene(rng: random.Random, *, held_out: bool) -> Scene:
    """A scene with one object in the new colour."""
    while (scene := random_scene(rng, held_out=held_out, two=0)).background == LORA_COLOR:
        pass
    return replace(scene, objects=(SceneObject(LORA_COLOR, scene.objects[0].shape),))


def shape_distance(shape: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Signed distance in pixels to the outline of a shape around the origin with the area of a circle of `radius`."""
    if shape == "circle":
        return (x.square() + y.square()).sqrt() - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - radius * math.sqrt(math.pi) / 2
    inner = radius * math.sqrt(math.pi / (3 * math.sqrt(3)))
    slope = math.sqrt(3) / 2
    return torch.stack((y, slope * x - y / 2, -slope * x - y / 2)).amax(0) - inner


@dataclass(frozen=True)
class Layout:
    """Where things lie in a clip of a scene, of which no sentence says anything.

    `shift`: pixels by which the checks or bands of the background are moved to the left and up. `places`: for each
    object, pixels by which its way lies beside its lane, and its middle beside the clip's; of one that bounces, instead
    of the latter, the height that it falls from: y of its centre.
    """

    shift: tuple[float, float]
    places: tuple[tuple[float, float], ...]


def random_layout(scene: Scene, rng: random.Random) -> Layout:
    shift = (0.0, 0.0) if scene.texture == "plain" else (rng.choice(SHIFTS), rng.choice(SHIFTS))
    jitter = JITTER if len(scene.objects) == 1 else JITTER / 2
    along = tops(scene) if scene.motion == "bounce" else (-jitter, jitter)
    return Layout(shift, tuple((rng.uniform(-jitter, jitter), rng.uniform(*along)) for _ in scene.objects))


def tops(scene: Scene) -> tuple[float, float]:
    """The least and the greatest height that an object may fall from: y of its centre."""
    least = 1.4 * RADIUS[scene.size]
    return least, least + 9


def tracks(scene: Scene, layout: Layout, time: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The centre of each object over `time`: x and y in pixels, each (frames,)."""
    found = []
    for lane, (beside, place) in zip(LANES[len(scene.objects)], layout.places, strict=True):
        across = torch.full_like(time, lane + beside)
        if scene.motion == "bounce":
            found.append((across, bounce(scene, place, time)))
            continue
        way = DISTANCE[scene.speed] * (time - 0.5)
        along = SIDE / 2 + place + (-way if scene.motion in ("left", "up") else way)
        found.append((along, across) if scene.motion in ("left", "right") else (across, along))
    return found


def bounce(scene: Scene, top: float, time: Tensor) -> Tensor:
    """Heights of a fall onto the floor and the rebound: y in pixels, of the shape of `time`."""
    bottom = FLOOR - RADIUS[scene.size] * 0.9
    fall = {"slow": 0.62, None: 0.52, "fast": 0.42}[scene.speed]
    rebound = 0.75
    after = (time - fall) / fall / math.sqrt(rebound)
    down = top + (bottom - top) * (time / fall).square()
    up = bottom - (bottom - top) * rebound * (1 - (after - 1).square())
    return torch.where(time < fall, down, up.clamp(max=bottom))


TIME = torch.linspace(0, 1, NUM_FRAMES)
"""The instants of a clip's frames: its object goes its way once."""


def later(rng: random.Random) -> Tensor:
    """The instants of a clip that begins anywhere on the way and may leave it: (NUM_FRAMES,)."""
    return TIME + rng.random()


def after_a_turn(rng: random.Random) -> Tensor:
    """The instants of a clip whose object comes back for 5 frames and then goes its way: (NUM_FRAMES,)."""
    return (TIME - TIME[4]).abs() + rng.uniform(0, 0.3)


def render(scene: Scene, rng: random.Random, time: Tensor = TIME) -> Tensor:
    """The clip at the instants `time` with a layout by chance. The rest is that of `draw`."""
    return draw(scene, random_layout(scene, rng), time)


def draw(scene: Scene, layout: Layout, time: Tensor = TIME) -> Tensor:
    """The clip, uint8 (frames, SIDE, SIDE, 3), at the instants `time`, (frames,), of 0..1 and beyond."""
    radii = [RADIUS[scene.size]] * len(scene.objects)
    return draw_along(scene, layout.shift, tracks(scene, layout, time), radii)


def draw_along(
    scene: Scene, shift: tuple[float, float], ways: list[tuple[Tensor, Tensor]], radii: list[float]
) -> Tensor:
    """The clip whose objects go these ways, as `tracks` gives them, and have these radii in pixels."""
    frames = background(scene, shift).expand(len(ways[0][0]), -1, -1, -1)
    line = torch.arange(SIDE) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    for scene_object, (center_x, center_y), radius in zip(scene.objects, ways, radii, strict=True):
        offsets = x - center_x[:, None, None], y - center_y[:, None, None]
        cover = (0.5 - shape_distance(scene_object.shape, *offsets, radius)).clamp(0, 1)[..., None]
        frames = frames + cover * (torch.tensor(COLORS[scene_object.color]) - frames)
    return frames.round().to(torch.uint8)


def background(scene: Scene, shift: tuple[float, float]) -> Tensor:
    """(SIDE, SIDE, 3) in 0..255: the colour, or bands or squares of it and of a neighbouring tone."""
    color = torch.tensor(COLORS[scene.background], dtype=torch.float32)
    if scene.texture == "plain":
        return color.expand(SIDE, SIDE, 3)
    shift_x, shift_y = shift
    line = torch.arange(SIDE) + 0.5
    cells = ((line[:, None] + shift_y) // CELL).long().expand(SIDE, SIDE)
    if scene.texture == "checkered":
        cells = cells + ((line + shift_x) // CELL).long()
    tone = torch.where(color.max() > 60, color * 0.82, color + 36)
    return torch.where((cells % 2 == 0)[..., None], color, tone)
