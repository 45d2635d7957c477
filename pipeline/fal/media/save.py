"""From an address to a finished file: downloaded, decoded once, and put in place whole."""

import asyncio
from dataclasses import replace
from pathlib import Path

from ...disk import atomic_write, make_folder
from ...formats import VideoFormat
from ...video import RemoteVideo
from ..queue.policy import NetworkPolicy
from .download import DownloadError, download
from .probe import probe


async def save_video(
    url: str, target: Path, format: VideoFormat, policy: NetworkPolicy, seed: int | None
) -> RemoteVideo:
    """Download the video at `url`, which may be a data URI, to `target`, never over another file.

    Nothing is left of it when that fails. Raises `MediaRefusedError`, `MediaGoneError` and `DownloadError`, as
    `download` and `probe` do.
    """
    try:
        make_folder(target.parent)
        with atomic_write(target) as part:
            await download(url, part, format, policy)
            video = await asyncio.to_thread(probe, part, format, seed)
            if target.exists():
                raise DownloadError(f"there is something else at {target}: move it away")
    except OSError as error:
        raise DownloadError(
            f"it could not be saved in {target.parent} ({error.strerror}): make room, or allow writing there"
        ) from None
    return replace(video, path=target)
