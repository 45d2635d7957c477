"""Imports diffusers and transformers once a page shows a node that needs them: they take seconds, too long at start."""

import asyncio
import logging
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from server import PromptServer

from ...pipeline.errors import MissingDependencyError
from .requirements import import_requirements

if TYPE_CHECKING:
    from aiohttp import web

ROUTE = "/cosmos_predict25/preload"
"""web/js asks for it when a graph has a Model Loader."""
LOCAL = ("...pipeline.local.load.checkpoint", "...pipeline.local.generate", ".canary", ".memory")
_lock = threading.Lock()
_imported = threading.Event()


def add_route() -> None:
    """Let a page ask for the imports. ComfyUI answers when they are done."""
    from aiohttp import web

    @PromptServer.instance.routes.post(ROUTE)
    async def preload(_: "web.Request") -> "web.Response":
        # While a job runs, its nodes may import the same packages, which two threads should not do at a time.
        if not PromptServer.instance.prompt_queue.get_tasks_remaining():
            await asyncio.to_thread(preload_local)
        return web.Response(status=204)


def preload_local() -> None:
    """Import what local generation needs. An error is for the node to show: it imports again."""
    try:
        import_local()
    except MissingDependencyError as error:
        logging.debug(f"Cosmos Predict2.5: {error}")


def import_local() -> None:
    """Import what local generation needs, after another thread that does so.

    Raises `MissingDependencyError` if a package is missing or broken.
    """
    with _lock, import_requirements():
        for module in LOCAL:
            import_module(module, __package__)
    _imported.set()


def is_imported() -> bool:
    """Whether `import_local` has nothing left to do."""
    return _imported.is_set()
