"""The batch's command in a process that sends what it prints, and waits for an answer to each."""

import os
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, TextIO, cast

from cosmos_predict25.pipeline.batch import command
from cosmos_predict25.pipeline.batch.processes import context_for


def start(
    file: Path, out: Path, *options: str, environ: Mapping[str, str] = MappingProxyType({})
) -> tuple[Any, Connection]:
    """Return a process with the command, and what it prints. It is a copy of one that has imported torch.

    It goes on when it gets anything for what it printed, so that a kill finds it there.
    """
    context = context_for([])
    printed, sender = context.Pipe()
    process = context.Process(target=run, args=([str(file), str(out), *options], dict(environ), sender))
    process.start()
    sender.close()
    return process, printed


def run(arguments: list[str], environ: dict[str, str], printed: Connection) -> None:
    def write(text: str) -> None:
        printed.send(text)
        printed.recv()

    os.environ.update(environ)
    sys.stdout = cast("TextIO", SimpleNamespace(write=write, flush=lambda: None))
    command.main(arguments)
