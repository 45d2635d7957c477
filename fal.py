"""The jobs on fal that were paid for: python -m cosmos_predict25.fal, or python fal.py in a folder of custom nodes."""

import importlib.util
import sys
from pathlib import Path

NAME = "cosmos_predict25"


def load_pack() -> None:
    """Make the folder of this file importable under the pack's name, whatever the folder is called."""
    root = Path(__file__).absolute().parent
    spec = importlib.util.spec_from_file_location(NAME, root / "__init__.py", submodule_search_locations=[str(root)])
    assert spec
    assert spec.loader
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])


if __name__ == "__main__":
    if not __package__:
        load_pack()
    from cosmos_predict25.pipeline.fal.command import main

    sys.exit(main())
