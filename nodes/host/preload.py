"""Imports diffusers and transformers once a page shows a node that needs them: they take seconds, too long at start."""

import asyncio
import sys
from importlib import import_module
from importlib.util import resolve_name
from typing import TYPE_CHECKING

from server import PromptServer

from ...pipeline.errors import MissingDependencyError
from .requirements import IMPORTING, import_requirements

if TYPE_CHECKING:
    from aiohttp import web

ROUTE = "/cosmos_predict25/preload"
"""web/js asks for it when a graph has a Model Loader."""
_errors: list[MissingDependencyError] = []
"""The error for a page until the node has shown it. A second attempt finds half a package, and names another cause."""
LOCAL = ("...pipeline.local.load.checkpoint", "...pipeline.local.generate", ".canary", ".memory")


def add_route() -> None:
    """Let a page ask for the imports. ComfyUI answers when they are done, or at once if it is busy."""
    from aiohttp import web

    server = getattr(PromptServer, "instance", None)
    # A second copy of the pack, or a program that loads ComfyUI's nodes without its server, has none to add.
    if server is None or any(getattr(route, "path", None) == ROUTE for route in server.routes):
        return

    @server.routes.post(ROUTE)
    async def preload(_: "web.Request") -> "web.Response":
        # While a job runs, its nodes may import the same packages, which two threads should not do at a time.
        if not server.prompt_queue.get_tasks_remaining() and not IMPORTING.locked():
            await asyncio.to_thread(preload_local)
        return web.Response(status=204)


def preload_local() -> None:
    """Import what local generation needs. An error is for the node to show, which tries again."""
    try:
        import_local()
    except MissingDependencyError as error:
        _errors.append(error)


def import_local() -> None:
    """Import what local generation needs, after another thread that does so.

    Raises `MissingDependencyError` if a package is missing or broken.
    """
    try:
        with import_requirements():
            for module in LOCAL:
                import_module(module, __package__)
    except MissingDependencyError:
        if _errors:
            raise _errors.pop() from None
        raise


def is_imported() -> bool:
    """Whether `import_local` has nothing left to do."""
    return not IMPORTING.locked() and resolve_name(LOCAL[-1], __package__) in sys.modules
