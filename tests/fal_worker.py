"""Makes one video as `tests.fal.make` does, in a light process of its own; `start` starts one.

    python fal_worker.py < order.json

The order: `folder`, where the videos and the journal are; `request` and `policy`, the fields of these; `endpoint` and
`media`, the name of an endpoint and the path of a file, if there is one; `kill_at`, a message at which the process
kills itself; `file_size`, the limit for a file that the process writes.
Printed is {"video": path, "seed": seed} or {"error": class, "message": text}.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def start(environ: dict[str, str], **order: Any) -> "subprocess.Popen[str]":
    worker = subprocess.Popen(
        [sys.executable, __file__], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin
    json.dump(order, worker.stdin)
    worker.stdin.close()
    worker.stdin = None
    return worker


def outcome_of(worker: "subprocess.Popen[str]") -> dict[str, Any] | None:
    """What a worker printed; None if it was killed."""
    printed, _ = worker.communicate(timeout=300)
    if worker.returncode == -signal.SIGKILL:
        return None
    assert worker.returncode == 0
    return json.loads(printed)


def main() -> None:
    order = json.load(sys.stdin)
    from cosmos_predict25.pipeline.errors import CosmosError
    from cosmos_predict25.pipeline.fal import IMAGE_TO_VIDEO, TEXT_TO_VIDEO, Journal, NetworkPolicy, generate
    from cosmos_predict25.pipeline.observer import NullObserver
    from cosmos_predict25.pipeline.request import GenerationRequest

    class Killed(NullObserver):
        def progress(self, message: str, done: int, total: int, latents: Any = None) -> None:
            if order.get("kill_at", "never") in message:
                os.kill(os.getpid(), signal.SIGKILL)

    if size := order.get("file_size"):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    folder = Path(order["folder"])
    endpoints = {endpoint.name: endpoint for endpoint in (TEXT_TO_VIDEO, IMAGE_TO_VIDEO)}
    work = generate(
        GenerationRequest(**order["request"]),
        folder=folder / "videos",
        journal=Journal(folder / "journal"),
        endpoint=endpoints[order.get("endpoint", TEXT_TO_VIDEO.name)],
        media=Path(order["media"]) if "media" in order else None,
        policy=NetworkPolicy(**order["policy"]),
        observer=Killed(),
    )
    try:
        video = asyncio.run(work)
    except CosmosError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
    else:
        print(json.dumps({"video": str(video.path), "seed": video.seed}))


if __name__ == "__main__":
    main()
