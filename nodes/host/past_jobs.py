"""The folders of jobs on fal and of their videos, and a thread that fetches the videos of earlier jobs."""

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import folder_paths

PAUSE = 2.0
"""Seconds for a run to take up its own job first."""


def fal_folders() -> dict[str, Any]:
    """Return `folder` for finished videos, in the output folder, and `journal`, whose records no browser can read."""
    from ...pipeline.fal import Journal

    return {"folder": Path(folder_paths.get_output_directory(), "cosmos_fal"), "journal": Journal(records_folder())}


def records_folder() -> Path:
    return Path(folder_paths.get_system_user_directory("cosmos_predict25"), "fal_jobs")


def fetch_in_background(pause: float = 0.0) -> None:
    """Fetch the videos of unfinished jobs in a thread, after `pause` seconds. Nothing happens where there are none."""
    if any(records_folder().glob("*.json")):
        threading.Thread(target=fetch, args=(pause,), daemon=True).start()


def fetch(pause: float) -> None:
    """Fetch the videos of unfinished jobs. What goes wrong is in the log: the next run tries again."""
    from ...pipeline.errors import CosmosError
    from ...pipeline.fal.journal import Journal

    time.sleep(pause)
    if not Journal(records_folder()).unfinished():
        return
    from ...pipeline.fal.past_jobs import fetch_past_jobs

    try:
        asyncio.run(fetch_past_jobs(**fal_folders()))
    except CosmosError as error:
        logging.warning(f"Cosmos Predict2.5: videos of earlier jobs on fal are not fetched yet. {error}")
