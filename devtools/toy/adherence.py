"""What a clip shows, measured on its frames: background, colours, shapes, direction of motion."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .world import BACKGROUNDS, COLORS, SHAPE_COLORS, SHAPES, Scene, SceneObject, shape_distance

BORDER = 3
FOREGROUND_DISTANCE = 85
"""A pixel farther than this from the background's colour (of 441) belongs to an object."""
MIN_AREA = 90
"""Pixels that an object covers at least."""
MIN_TRAVEL = 7
"""Pixels of travel below which nothing has moved."""
ATTRIBUTES = ("color", "shape", "motion", "background")


@dataclass(frozen=True)
class Detection:
    """What a clip shows: `motions` has one of `world.MOTIONS` or "still" for each of `objects`."""

    objects: tuple[SceneObject, ...]
    motions: tuple[str, ...]
    background: str


def detect_attributes(frames: Tensor, colors: tuple[str, ...] = SHAPE_COLORS) -> Detection:
    """What `frames`, (T, H, W, 3), float32 in 0..1, show in `colors`. The object that covers most comes first."""
    name, masks = color_masks(frames, colors)
    covered = {color: mask.sum((1, 2)).float().median().item() for color, mask in masks.items()}
    largest = max(covered.values())
    kept = sorted((c for c in covered if covered[c] >= max(MIN_AREA, largest / 3)), key=lambda c: -covered[c])
    objects = tuple(SceneObject(color, shape_of(masks[color])) for color in kept)
    return Detection(objects, tuple(motion_of(masks[color]) for color in kept), name)


def color_masks(frames: Tensor, colors: tuple[str, ...] = SHAPE_COLORS) -> tuple[str, dict[str, Tensor]]:
    """The background's name, and for each of `colors` where the frames show it before that: (T, H, W)."""
    frames = frames * 255
    border = torch.ones(frames.shape[1:3], dtype=torch.bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    ground = frames[:, border].flatten(0, 1).median(0).values
    foreground = (frames - ground).norm(dim=-1) > FOREGROUND_DISTANCE
    labels = torch.full(foreground.shape, -1)
    labels[foreground] = nearest_index(frames[foreground], colors)
    masks = {color: without_specks(labels == index) for index, color in enumerate(colors)}
    return nearest(ground[None], BACKGROUNDS)[0], masks


def steps_of(scene: Scene, frames: Tensor) -> Tensor | None:
    """Pixels that the centre of the first object moves from each frame to the next; None where it is not in all."""
    _, x, y = centers(color_masks(frames)[1][scene.objects[0].color])
    if len(x) < len(frames):
        return None
    return torch.hypot(x.diff(), y.diff())


def outline(scene: Scene, frames: Tensor, colors: tuple[str, ...] = SHAPE_COLORS) -> float:
    """How exact the first object's outline is: 1 where in all frames it is the ideal one of its area and centre.

    The intersection over the union of the two, on average over the frames that show the object; 0 where none does.
    """
    scene_object, masks = scene.objects[0], color_masks(frames, colors)[1]
    shown = masks[scene_object.color]
    return overlaps(shown)[scene_object.shape] if (shown.sum((1, 2)) >= MIN_AREA / 2).any() else 0.0


def nearest_index(pixels: Tensor, names: tuple[str, ...]) -> Tensor:
    palette = torch.tensor([COLORS[name] for name in names], dtype=torch.float32)
    return torch.cdist(pixels, palette).argmin(-1)


def nearest(pixels: Tensor, names: tuple[str, ...]) -> list[str]:
    return [names[i] for i in nearest_index(pixels, names)]


def without_specks(masks: Tensor) -> Tensor:
    """Masks (T, H, W) without specks and rims: a pixel stays where at least 4 of the 9 around it are set."""
    counts = torch.nn.functional.avg_pool2d(masks[:, None].float(), 3, stride=1, padding=1)[:, 0]
    return (counts > 3.5 / 9) & masks


def centers(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Area, x and y of each mask that is not empty: each (frames,)."""
    return all_centers(masks[masks.sum((1, 2)) >= MIN_AREA / 2])


def all_centers(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Area, x and y of each mask, all 0 where it is empty: each (frames,)."""
    masks = masks.float()
    area = masks.sum((1, 2))
    height, width = masks.shape[1:]
    x = (masks.sum(1) * (torch.arange(width) + 0.5)).sum(1) / area.clamp(min=1)
    y = (masks.sum(2) * (torch.arange(height) + 0.5)).sum(1) / area.clamp(min=1)
    return area, x, y


def shape_of(masks: Tensor) -> str:
    """The shape whose ideal mask of the same area and centre covers `masks`, (T, H, W), best over all frames."""
    found = overlaps(masks)
    return max(found, key=lambda shape: found[shape])


def overlaps(masks: Tensor) -> dict[str, float]:
    """For each shape, the intersection over the union of `masks`, (T, H, W), and its ideal ones: a mean over frames."""
    area, center_x, center_y = centers(masks)
    masks = masks[masks.sum((1, 2)) >= MIN_AREA / 2]
    height, width = masks.shape[1:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    found = {}
    for shape in SHAPES:
        ideals = torch.stack([
            ideal_distance(shape, x - cx, y - cy, math.sqrt(a / math.pi)) < 0
            for a, cx, cy in zip(area, center_x, center_y, strict=True)
        ])  # fmt: skip
        found[shape] = ((ideals & masks).sum((1, 2)) / (ideals | masks).sum((1, 2))).mean().item()
    return found


def ideal_distance(shape: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """`shape_distance`, but the square's corners are rounded by half of `radius`, as a small VAE draws them."""
    if shape != "square":
        return shape_distance(shape, x, y, radius)
    corner = radius / 2
    half_side = math.sqrt(math.pi * radius**2 + (4 - math.pi) * corner**2) / 2
    over_x, over_y = x.abs() - half_side + corner, y.abs() - half_side + corner
    outside = (over_x.clamp(min=0).square() + over_y.clamp(min=0).square()).sqrt()
    return outside + torch.maximum(over_x, over_y).clamp(max=0) - corner


def motion_of(masks: Tensor) -> str:
    """left, right, up, down, bounce or still, from the way of the centre."""
    _, x, y = centers(masks)
    travel_x, travel_y = x[-1] - x[0], y[-1] - y[0]
    lowest = y.argmax()
    fall, rise = y[lowest] - y[0], y[lowest] - y[-1]
    if fall > MIN_TRAVEL and rise > MIN_TRAVEL and fall > abs(travel_x):
        return "bounce"
    if max(abs(travel_x), abs(travel_y)) < MIN_TRAVEL:
        return "still"
    if abs(travel_x) > abs(travel_y):
        return "left" if travel_x < 0 else "right"
    return "up" if travel_y < 0 else "down"


def compare_with_scene(scene: Scene, frames: Tensor, colors: tuple[str, ...] = SHAPE_COLORS) -> dict[str, bool]:
    """Which of `ATTRIBUTES` the clip has as `scene` asks; with two objects a value is right when both are."""
    detection = detect_attributes(frames, colors)
    wanted = {scene_object.color: scene_object.shape for scene_object in scene.objects}
    shapes = {scene_object.color: scene_object.shape for scene_object in detection.objects}
    same_colors = shapes.keys() == wanted.keys()
    return {
        "color": same_colors,
        "shape": shapes == wanted if same_colors else sorted(shapes.values()) == sorted(wanted.values()),
        "motion": set(detection.motions) == {scene.motion},
        "background": detection.background == scene.background,
    }
