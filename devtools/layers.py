"""Environments upon .demo/env, in which a few packages have other releases. Runs inside of it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import environment

TRANSFORMERS_4 = "transformers==4.57.6"
"""The last of those that other packs ask for. pip finds the diffusers that goes with it."""


def upon_env(name: str, requirements: list[str], folder: Path = environment.DEMO) -> Path:
    """Return the Python of an environment in which `requirements` hold, with all else as in .demo/env."""
    place = folder / f"env-{name}"
    python = place / Path(sys.executable).relative_to(sys.prefix)
    if not python.exists():
        venv.create(place, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    (packages / "below.pth").write_text(sysconfig.get_path("purelib"))
    with environment.step(f"Installing what {name} needs upon the environment"):
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", *requirements]
        made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise environment.SetupError(f"pip could not install what {name} needs. It said:\n{made.stderr[-2000:]}")
    return python


def upon_transformers_4() -> Path:
    """Return the Python of an environment with transformers 4, and what pip finds that goes with it."""
    listed = environment.read_requirements(environment.REPO / "requirements.txt")
    return upon_env("transformers-4", [TRANSFORMERS_4, *listed])


def upon_comfyui(checkout: Path) -> Path:
    """Return the Python of an environment for a checkout of ComfyUI, which the tests take from now on."""
    os.environ[environment.TESTED_INSTEAD] = str(checkout)
    # torch stays: another one would be gigabytes.
    listed = environment.read_requirements(checkout / "requirements.txt")
    return upon_env(checkout.name, [line for line in listed if not line.startswith("torch")] + ["torchsde"])
