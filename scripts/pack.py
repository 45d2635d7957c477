"""Imports the pack in plain Python, for tests and benchmarks."""

import importlib.util
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def import_pack() -> None:
    """Make the repository importable as `cosmos_predict25`.

    By path, as ComfyUI does it: with the repository on sys.path, `import nodes` would no longer be ComfyUI's.
    """
    spec = importlib.util.spec_from_file_location(
        "cosmos_predict25", REPO / "__init__.py", submodule_search_locations=[str(REPO)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cosmos_predict25"] = module
    spec.loader.exec_module(module)
