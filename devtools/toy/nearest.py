"""The clip of the toy world that a network meant: the same things at the same places, with nothing lumpy about them."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from .adherence import MIN_AREA, centers, color_masks
from .world import (
    DISTANCE,
    LANES,
    RADIUS,
    SHIFTS,
    SIDE,
    SIZES,
    SPEEDS,
    TEXTURES,
    TIME,
    Layout,
    Scene,
    background,
    bounce,
    tops,
)

EDGE, AT_EDGE = 2, 12
"""An object with more than `AT_EDGE` pixels so near the edge is cut off, so its centre is not that of its pixels."""
MIN_SEEN = 8
"""Frames in which the whole of an object is seen, at least."""
MAX_ERROR = 4.5
"""Pixels by which an object may be off the best way, on average over its frames."""
STEP = 0.25
"""Pixels between the heights that are tried for the top of a bounce."""

Track = tuple[Tensor, Tensor, Tensor]
"""An object's centre, x and y in pixels, and the instants of the frames in which all of it is seen: each (frames,)."""


def nearest_clip(scene: Scene, frames: Tensor, time: Tensor = TIME) -> tuple[Scene, Layout] | None:
    """The scene and the layout that `frames`, (T, H, W, 3), float32 in 0..1, come nearest to; None where none is near.

    Objects, motion and background's colour are those of `scene`. A prompt may leave out the rest, so the frames say it.
    """
    masks = color_masks(frames)[1]
    found = [track(masks[scene_object.color], time) for scene_object in scene.objects]
    if any(len(times) < MIN_SEEN for _, (*_, times) in found):
        return None
    radius = math.sqrt(sum(area for area, _ in found) / len(found) / math.pi)
    sizes = (None, *SIZES) if len(found) == 1 else (None, "small")
    size = min(sizes, key=lambda name: abs(RADIUS[name] - radius))
    lanes = LANES[len(found)]

    def way(speed: str | None) -> tuple[float, tuple[tuple[float, float], ...]]:
        kind = replace(scene, size=size, speed=speed)
        fits = [fit(kind, lane, seen) for lane, (_, seen) in zip(lanes, found, strict=True)]
        return sum(error for error, _ in fits) / len(fits), tuple(place for _, place in fits)

    speed, (error, places) = min(((speed, way(speed)) for speed in (None, *SPEEDS)), key=lambda pair: pair[1][0])
    if error > MAX_ERROR:
        return None
    texture, shift = nearest_ground(scene, frames.median(0).values * 255)
    return replace(scene, size=size, speed=speed, texture=texture), Layout(shift, places)


def track(masks: Tensor, time: Tensor) -> tuple[float, Track]:
    """The median area in pixels of the object in `masks`, (T, H, W), and its way."""
    area = masks.sum((1, 2))
    inner = masks[:, EDGE:-EDGE, EDGE:-EDGE].sum((1, 2))
    whole = (area - inner <= AT_EDGE) & (area >= MIN_AREA / 2)
    area, x, y = centers(masks[whole])
    return area.median().item() if len(area) else 0.0, (x, y, time[whole])


def fit(scene: Scene, lane: float, seen: Track) -> tuple[float, tuple[float, float]]:
    """Pixels that the best way for an object of `scene` is off on average, and that way's entry of `Layout.places`."""
    x, y, time = seen
    along, across = (x, y) if scene.motion in ("left", "right") else (y, x)
    beside = (across - lane).median().item()
    if scene.motion == "bounce":
        least, greatest = tops(scene)
        ways = {top: bounce(scene, top, time) for top in torch.arange(least - 1, greatest + 1, STEP).tolist()}
    else:
        way = DISTANCE[scene.speed] * (time - 0.5) * (-1 if scene.motion in ("left", "up") else 1) + SIDE / 2
        place = (along - way).median().item()
        ways = {place: way + place}
    errors = {place: (along - way).abs().mean().item() for place, way in ways.items()}
    best = min(errors, key=lambda place: errors[place])
    return errors[best] + (across - lane - beside).abs().mean().item(), (beside, best)


def nearest_ground(scene: Scene, picture: Tensor) -> tuple[str, tuple[float, float]]:
    """The texture of the background in `picture`, (H, W, 3) in 0..255, and its entry of `Layout.shift`."""
    shifts = {
        "plain": [(0.0, 0.0)],
        "striped": [(0.0, y) for y in SHIFTS],
        "checkered": [(x, y) for x in SHIFTS for y in SHIFTS],
    }
    grounds = {
        (texture, shift): background(replace(scene, texture=texture), Layout(shift, ()))
        for texture in TEXTURES
        for shift in shifts[texture]
    }
    return min(grounds, key=lambda ground: (grounds[ground] - picture).abs().mean().item())
