"""fal-client in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "official.py"


def run_official(environ: dict[str, str], *steps: list[Any], client: str = "sync") -> list[dict[str, Any]]:
    """What the steps of `official.py` gave, in an environment that has nothing but `environ` and PATH."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), client],
        input=json.dumps(steps),
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)
