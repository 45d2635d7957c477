"""A clip to encode: textured things that move, with grain."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def texture(generator: torch.Generator, height: int, width: int, roughness: float) -> Tensor:
    """(1, 3, H, W): noise of all scales, mostly grey."""
    total = torch.zeros(1, 3, height, width)
    for octave in range(8):
        side = 4 * 2**octave
        noise = torch.randn(1, 3, max(2, height * side // width), side, generator=generator)
        noise = 1.4 * noise.mean(1, keepdim=True) + 0.1 * noise
        total += F.interpolate(noise, (height, width), mode="bicubic") * roughness**octave
    return total


def moving_clip(num_frames: int, height: int, width: int) -> Tensor:
    """(F, H, W, 3) in 0..1: textured, lit, turning shapes over a textured ground, a drifting camera, grain."""
    generator = torch.Generator().manual_seed(5)
    ground = (0.42 + 0.13 * texture(generator, height, width, 0.62)).clamp(0, 1)
    rows, columns = torch.meshgrid(
        torch.linspace(-height / width, height / width, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    shapes = []
    for _ in range(7):
        colour = torch.rand(1, 1, 1, 1, generator=generator) * 0.4 + 0.25
        tint = torch.rand(1, 3, 1, 1, generator=generator) * 0.15
        surface = (colour + tint + 0.13 * texture(generator, 256, 256, 0.7)).clamp(0, 1)
        shapes.append((surface, torch.rand(6, generator=generator).tolist()))
    clip = torch.empty(num_frames, height, width, 3)
    for index in range(num_frames):
        seconds = index / 16
        drift = torch.stack(
            (
                columns * 0.92 + 0.015 * math.sin(0.5 * seconds),
                rows * width / height * 0.92 + 0.015 * math.cos(0.4 * seconds),
            ),
            -1,
        )
        picture = F.grid_sample(ground, drift[None], align_corners=False)
        for surface, (x, dx, y, phase, size, turn) in shapes:
            across = columns - (1.8 * x - 0.9 + 0.24 * seconds * (dx - 0.5))
            down = rows - (0.9 * y - 0.45 + 0.05 * math.sin(seconds + 6 * phase))
            angle, radius = 0.8 * seconds * (turn - 0.5), 0.1 + 0.16 * size
            u = (across * math.cos(angle) + down * math.sin(angle)) / radius
            v = (down * math.cos(angle) - across * math.sin(angle)) / radius
            inside = ((1 - (u**4 + v**4) ** 0.25) * radius * width / 4).clamp(0, 1)
            light = 0.85 - 0.15 * ((u + v) / 2).clamp(-1, 1)
            shape = F.grid_sample(surface, torch.stack((u, v), -1)[None], padding_mode="border", align_corners=False)
            picture = torch.lerp(picture, shape * light, inside)
        grain = F.avg_pool2d(torch.randn(1, 1, height, width, generator=generator), 3, 1, 1) * 1.8 / 255
        clip[index] = (picture + grain)[0].permute(1, 2, 0).clamp(0, 1)
    return clip
