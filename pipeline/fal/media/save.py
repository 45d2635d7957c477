"""From an address to a finished file: downloaded, decoded once, and put in place whole."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...video import RemoteVideo
from ..queue.policy import NetworkPolicy
from .download import fetch, put_in_place
from .probe import probe


async def save_video(url: str, target: Path, policy: NetworkPolicy, seed: int | None) -> RemoteVideo:
    """Nothing of it is left when it fails.

    Raises `MediaRefusedError`, `MediaGoneError` and `DownloadError`, see `fetch` and `probe`.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        await fetch(url, part, target.suffix, policy)
        video = await asyncio.to_thread(probe, part, target.suffix, policy.max_pixels, seed)
        put_in_place(part, target)
    finally:
        with suppress(OSError):
            part.unlink()
    return replace(video, path=target)
