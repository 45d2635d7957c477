"""The pack's commands: `cosmos-predict25 batch|fal`, or python -m cosmos_predict25 with the same."""

import sys

USAGE = "usage: cosmos-predict25 batch|fal ... (each has --help)"


def main() -> int | str | None:
    """Run the command that the first argument names, and return its exit code."""
    name, sys.argv[1:] = "".join(sys.argv[1:2]), sys.argv[2:]
    if name == "batch":
        from .pipeline.batch.command import main as batch

        return batch()
    if name == "fal":
        from .pipeline.fal.command import main as fal

        return fal()
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
