"""What a video starts from, out of a file."""

import torch

from ..request import FPS
from ..start import CLIP_FRAMES, Start
from .pictures import FileClip

END_SECONDS = 2.0
"""Enough for five frames at 16 fps, where the file ends about when it says."""


def start_from_end(clip: FileClip) -> Start:
    """Return the last 5 frames at 16 fps, or all frames of a clip that has fewer. Only the end is decoded."""
    clip = clip.with_square_pixels()
    for part in (clip.last(END_SECONDS), clip):
        moments = part.times.moments()
        if len(moments) >= CLIP_FRAMES:
            return Start(torch.stack(list(part.frames_at(moments[-CLIP_FRAMES:]))), FPS, clip.notes)
    return Start(torch.stack(list(clip.frames())), clip.frame_rate, clip.notes)
