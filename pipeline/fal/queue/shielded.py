"""The paid POST, which is never given up between its first byte and its reply."""

import asyncio
from typing import Any

import anyio
import httpx

from .reply import Reply, TransportFailure
from .transport import Transport


async def send_shielded(
    transport: Transport, request: httpx.Request
) -> tuple[Reply | TransportFailure, asyncio.CancelledError | None]:
    """Return the reply, and the cancellation of this task that came meanwhile.

    Once the request is on its way, neither a cancellation nor an error ends it before its reply is here. Raises
    `CancelledError` where it was not.
    """
    is_on_its_way = asyncio.Event()

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "http11.send_request_headers.started" and info["request"].method == b"POST":
            is_on_its_way.set()

    policy = transport.policy
    post = asyncio.ensure_future(
        transport.send_alone(request, timeout=policy.api_timeout, deadline=policy.submit_deadline, trace=trace)
    )
    cancellation = await shield_request(post, is_on_its_way)
    if is_on_its_way.is_set() and post.cancelled():  # the end of asyncio.run cancels all tasks
        return TransportFailure("LOST", "the program ended"), cancellation
    if is_on_its_way.is_set() and (error := post.exception()):
        return TransportFailure("LOST", type(error).__name__), cancellation
    if post.cancelled() and cancellation:
        raise cancellation
    return post.result(), cancellation


async def shield_request(post: "asyncio.Task[Any]", is_on_its_way: asyncio.Event) -> asyncio.CancelledError | None:
    """Wait for `post`, cancel it only before it is on its way, and return the cancellation of this task meanwhile."""
    cancellation = None
    started = asyncio.ensure_future(is_on_its_way.wait())
    try:
        await asyncio.wait({post, started}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError as error:
        cancellation = error
        if not is_on_its_way.is_set():
            post.cancel()
    started.cancel()
    with anyio.CancelScope(shield=True):  # anyio would cancel again and again
        while not post.done():
            try:
                await asyncio.wait({post})
            except asyncio.CancelledError as error:
                cancellation = error
    return cancellation
