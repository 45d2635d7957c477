"""Background work in its own thread, since other nodes may block the graph's event loop."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from comfy import model_management
from comfy_execution.utils import get_executing_context
from server import PromptServer

from .observers import FalObserver

T = TypeVar("T")

POLL_SECONDS = 0.02
STOP_TICK = 0.1
STOP_SECONDS = 0.7
"""Seconds after Stop when a node ends at the latest, even if fal has not confirmed the cancellation."""
HISTORY_SECONDS = 60


class Background(threading.Thread):
    """Runs a coroutine in its own event loop. A daemon, so that ComfyUI can exit."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__(daemon=True)
        self.result: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._coroutine = coroutine
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        try:
            self.result.set_result(self._loop.run_until_complete(self._task))
        except BaseException as error:
            self.result.set_exception(error)
        finally:
            self._loop.close()

    async def is_done_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self.result.done() and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        return self.result.done()

    def cancel(self) -> None:
        with suppress(RuntimeError):  # it has ended meanwhile
            self._loop.call_soon_threadsafe(lambda: self._task.cancel())


async def in_background(coroutine: Coroutine[Any, Any, T], observer: FalObserver) -> T:
    """Await `coroutine` in a thread, while a local node may block the graph's own loop for minutes.

    Stop ends this within a second, and the thread goes on to cancel the job at fal. If another node ends the graph with
    an error, the thread releases the job, and the next run resumes it.
    """
    context = get_executing_context()
    prompt_id = context.prompt_id if context else ""
    thread = Background(coroutine)
    thread.start()
    try:
        while not await thread.is_done_within(STOP_TICK):
            if model_management.processing_interrupted():
                observer.was_stopped = True
                await thread.is_done_within(STOP_SECONDS)
                raise model_management.InterruptProcessingException
    except asyncio.CancelledError:
        threading.Thread(target=detach_or_stop, args=(thread, observer, prompt_id), daemon=True).start()
        raise
    finally:
        observer.graph_has_ended = True
    return thread.result.result()


def detach_or_stop(thread: Background, observer: FalObserver, prompt_id: str) -> None:
    """Another node ended the graph. Only the history, written later, tells whether that was Stop.

    The flag of Stop does not tell, since a node that sees it clears it at once.
    """
    deadline = time.monotonic() + HISTORY_SECONDS
    while not thread.result.done() and time.monotonic() < deadline:
        entry = PromptServer.instance.prompt_queue.get_history(prompt_id, map_function=lambda entry: entry)
        if entry:
            messages = [name for name, _ in entry[prompt_id]["status"]["messages"]]
            observer.was_stopped |= "execution_interrupted" in messages
            break
        time.sleep(POLL_SECONDS)
    if not observer.was_stopped:
        thread.cancel()
