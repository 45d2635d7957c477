"""The clip of the toy world that a network meant: the same things at the same places, with nothing lumpy about them."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from .adherence import MIN_AREA, all_centers, color_masks
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
    draw,
    draw_along,
    tops,
    tracks,
)

EDGE, AT_EDGE = 2, 12
"""An object with more than `AT_EDGE` pixels so near the edge is cut off, so its centre is not that of its pixels."""
MIN_SEEN = 8
"""Frames in which the whole of an object is seen, at least."""
MAX_ERROR = 4.5
"""Pixels by which an object may be off the best way, on average over its frames."""
STEP = 0.25
"""Pixels between the heights that are tried for the top of a bounce."""
SMOOTH = 7
"""Frames over which an object's distance from the best way is averaged, as it trembles."""


@dataclass(frozen=True)
class Track:
    """An object's centre and the radius of a circle of its area, in pixels, and where all of it is seen: (frames,)."""

    x: Tensor
    y: Tensor
    radius: Tensor
    whole: Tensor


def mended_clip(scene: Scene, frames: Tensor) -> Tensor | None:
    """The clip that `frames`, (T, H, W, 3), float32 in 0..1, are meant to be; None where no clip of `scene` is near.

    uint8 (T, H, W, 3). Each object has the exact outline of its shape, and the size and the places that it has in
    `frames`, without a tremor.
    """
    found = nearest_clip(scene, frames)
    if not found:
        return None
    near, layout = found
    shown, drawn = (color_masks(clip)[1] for clip in (frames, draw(near, layout) / 255))
    ways, radii = [], []
    for scene_object, (x, y) in zip(near.objects, tracks(near, layout, TIME), strict=True):
        seen, ideal = (track(masks[scene_object.color]) for masks in (shown, drawn))
        whole = seen.whole & ideal.whole
        if whole.sum() < MIN_SEEN:
            return None
        ways.append((x + smooth(seen.x - ideal.x, whole), y + smooth(seen.y - ideal.y, whole)))
        radii.append(RADIUS[near.size] + (seen.radius - ideal.radius)[whole].median().item())
    return draw_along(near, layout.shift, ways, radii)


def smooth(values: Tensor, known: Tensor) -> Tensor:
    """`values`, (frames,), averaged over SMOOTH frames; where they are not `known`, the nearest one is."""
    frames = torch.arange(len(values))
    nearest_known = (frames[:, None] - frames[known]).abs().argmin(1)
    padded = functional.pad(values[known][nearest_known][None], (SMOOTH // 2, SMOOTH // 2), "replicate")
    return functional.avg_pool1d(padded, SMOOTH, 1)[0]


def nearest_clip(scene: Scene, frames: Tensor) -> tuple[Scene, Layout] | None:
    """The scene and the layout that `frames`, (T, H, W, 3), float32 in 0..1, come nearest to; None where none is near.

    Objects, motion and background's colour are those of `scene`. A prompt may leave out the rest, so the frames say it.
    """
    masks = color_masks(frames)[1]
    found = [track(masks[scene_object.color]) for scene_object in scene.objects]
    if any(seen.whole.sum() < MIN_SEEN for seen in found):
        return None
    radius = math.sqrt(sum(seen.radius[seen.whole].median().item() ** 2 for seen in found) / len(found))
    sizes = (None, *SIZES) if len(found) == 1 else (None, "small")
    size = min(sizes, key=lambda name: abs(RADIUS[name] - radius))
    lanes = LANES[len(found)]

    def way(speed: str | None) -> tuple[float, tuple[tuple[float, float], ...]]:
        kind = replace(scene, size=size, speed=speed)
        fits = [fit(kind, lane, seen) for lane, seen in zip(lanes, found, strict=True)]
        return sum(error for error, _ in fits) / len(fits), tuple(place for _, place in fits)

    speed, (error, places) = min(((speed, way(speed)) for speed in (None, *SPEEDS)), key=lambda pair: pair[1][0])
    if error > MAX_ERROR:
        return None
    texture, shift = nearest_ground(scene, frames.median(0).values * 255)
    return replace(scene, size=size, speed=speed, texture=texture), Layout(shift, places)


def track(masks: Tensor) -> Track:
    """The way of the object in `masks`, (T, H, W)."""
    area, x, y = all_centers(masks)
    inner = masks[:, EDGE:-EDGE, EDGE:-EDGE].sum((1, 2))
    return Track(x, y, (area / math.pi).sqrt(), (area - inner <= AT_EDGE) & (area >= MIN_AREA / 2))


def fit(scene: Scene, lane: float, seen: Track) -> tuple[float, tuple[float, float]]:
    """Pixels that the best way for an object of `scene` is off on average, and that way's entry of `Layout.places`."""
    x, y, time = (values[seen.whole] for values in (seen.x, seen.y, TIME))
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
        (texture, shift): background(replace(scene, texture=texture), shift)
        for texture in TEXTURES
        for shift in shifts[texture]
    }
    return min(grounds, key=lambda ground: (grounds[ground] - picture).abs().mean().item())
