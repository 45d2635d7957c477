"""The log of a training run: printed, and appended to a file."""

from pathlib import Path


class Log:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
