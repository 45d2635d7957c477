"""Runs steps with the official fal-client and prints what came of each; on its own, in a process of its own.

    python -I official.py sync|async < steps.json

The steps are a JSON list of [name, arguments, keyword arguments]: a method of the client ("submit", "status", "result",
"cancel", "subscribe", "upload"), or, after "handle.", of the handle that the last submit returned ("handle.status",
"handle.get", "handle.cancel", "handle.iter_events"). The string "$id" stands for the id of the last request, and
{"bytes": n} for n bytes. Printed is a JSON list with, for each step, {"value": ...} or {"error": class, "message": ...,
"status": HTTP status or null, "error_type": ...}. A status is its fields and "status", the name of its class; events
are a list. With {"updates": true} among its keywords, `subscribe` gives [the updates, the result].
"""

import asyncio
import dataclasses
import inspect
import json
import sys
from collections.abc import Sequence
from typing import Any

import fal_client
from fal_client.client import Status, StorageSettings


def plain(value: Any) -> Any:
    if isinstance(value, Status):
        return {"status": type(value).__name__, **dataclasses.asdict(value)}
    if isinstance(value, (fal_client.SyncRequestHandle, fal_client.AsyncRequestHandle)):
        names = ("request_id", "response_url", "status_url", "cancel_url")
        return {name: getattr(value, name) for name in names}
    return [plain(item) for item in value] if isinstance(value, list) else value


class Runner:
    def __init__(self, client: Any) -> None:
        self.client = client
        self.handle: Any = None

    async def run(self, step: list[Any]) -> dict[str, Any]:
        try:
            return {"value": plain(await self.value(*step))}
        except Exception as error:
            return {
                "error": type(error).__name__,
                "message": str(error),
                "status": getattr(error, "status_code", None),
                "error_type": getattr(error, "error_type", None),
            }

    async def value(self, name: str, arguments: Sequence[Any] = (), keywords: dict[str, Any] | None = None) -> Any:
        keywords = dict(keywords or {})
        if "lifecycle" in keywords:
            keywords["lifecycle"] = StorageSettings(**keywords["lifecycle"])
        updates: list[Any] = []
        shown = keywords.pop("updates", False)
        if shown:
            keywords["on_queue_update"] = updates.append
        owner = self.handle if name.startswith("handle.") else self.client
        method = getattr(owner, name.removeprefix("handle."))
        value = method(*map(self.filled_in, arguments), **keywords)
        if inspect.isasyncgen(value):
            value = [item async for item in value]
        elif inspect.isawaitable(value):
            value = await value
        elif inspect.isgenerator(value):
            value = list(value)
        if name == "submit":
            self.handle = value
        return [updates, value] if shown else value

    def filled_in(self, argument: Any) -> Any:
        if argument == "$id":
            return self.handle.request_id
        if isinstance(argument, dict) and argument.keys() == {"bytes"}:
            return bytes(argument["bytes"])
        return argument


async def main() -> None:
    runner = Runner(fal_client.AsyncClient() if sys.argv[1] == "async" else fal_client.SyncClient())
    print(json.dumps([await runner.run(step) for step in json.load(sys.stdin)]))


if __name__ == "__main__":
    asyncio.run(main())
