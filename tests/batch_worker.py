"""The batch's command in a process that sends what it prints."""

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
    """Return a process with the command, and what it prints. It is a copy of one that has imported torch."""
    context = context_for([])
    printed, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=([str(file), str(out), *options], dict(environ), sender))
    process.start()
    sender.close()
    return process, printed


def run(arguments: list[str], environ: dict[str, str], printed: Connection) -> None:
    os.environ.update(environ)
    sys.stdout = cast("TextIO", SimpleNamespace(write=printed.send, flush=lambda: None))
    command.main(arguments)
