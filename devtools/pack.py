"""The pack as `cosmos_predict25`. `environment.build` copies this file under that name into .demo/env.

It is the checkout that the environment belongs to, or the one that COSMOS_PREDICT25_CHECKOUT names. By path, as ComfyUI
does it: with the repository on sys.path, `import nodes` would no longer be ComfyUI's.
"""

import importlib.util
import os
import sys
from pathlib import Path

checkout = Path(os.environ.get("COSMOS_PREDICT25_CHECKOUT") or Path(sys.prefix).parents[1])
spec = importlib.util.spec_from_file_location(
    "cosmos_predict25", checkout / "__init__.py", submodule_search_locations=[str(checkout)]
)
assert spec is not None
assert spec.loader is not None
pack = importlib.util.module_from_spec(spec)
# Python gives the importer what stands here when this file has run.
sys.modules["cosmos_predict25"] = pack
spec.loader.exec_module(pack)
