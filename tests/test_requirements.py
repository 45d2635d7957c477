"""What is said where a package cannot be imported that local generation needs, or that these try to use."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_predict25.pipeline.errors import MissingDependencyError

BROKEN = {
    "xformers": "raise OSError('libcudart.so.11.0: cannot open shared object file')",
    "bitsandbytes": "import ctypes; ctypes.CDLL('libbitsandbytes_cuda99.so')",
    "torchvision": "import torch; torch.ops.torchvision_of_old.nms",
    "peft": "from transformers import HybridCacheOfOld",
    "accelerate": "raise AttributeError(\"module 'numpy' has no attribute 'bool8'\")",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package that cannot be imported before the installed ones."""

    def make(name: str, code: str, version: str = "0.0.9") -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(name)
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n")
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in BROKEN:
        if (tmp_path / name).exists():
            sys.modules.pop(name, None)


def import_as_diffusers_does(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:
        raise RuntimeError(f"Failed to import diffusers.models because of {error} (look up to see)") from error


def refusal(module: str) -> str:
    from cosmos_predict25.nodes.host.requirements import import_requirements

    with pytest.raises(MissingDependencyError) as refused, import_requirements():
        import_as_diffusers_does(module)
    return str(refused.value)


@pytest.mark.parametrize("name", BROKEN)
def test_the_package_that_cannot_be_imported_is_named(core, install, monkeypatch, name):
    install(name, BROKEN[name])
    monkeypatch.delitem(sys.modules, name, raising=False)
    said = refusal(name)
    print(f"\n{said}", end="")
    assert f"{name} 0.0.9 is installed but cannot be imported" in said
    assert f"install -U {name}" in said
    assert f"uninstall {name}" in said
    assert "The Checkpoint Loader needs no diffusers." in said


def test_a_package_that_is_needed_is_installed_anew_and_not_removed(core, install, monkeypatch):
    install("tokenizers", "raise ImportError('cannot import name Rust', name='tokenizers')")
    monkeypatch.delitem(sys.modules, "tokenizers", raising=False)
    said = refusal("tokenizers")
    assert "tokenizers 0.0.9 is installed" in said
    assert "requirements.txt" in said
    assert "uninstall" not in said


@pytest.mark.parametrize("name", ["diffusers_of_tomorrow", "diffusers"])
def test_what_is_not_there_is_to_be_installed(core, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    said = refusal(name)
    assert "is installed" not in said
    assert "requirements.txt" in said


PROGRAM = """
import sys
from cosmos_predict25.devtools import comfy_on_cpu
from cosmos_predict25.nodes.host.preload import import_local, preload_local
preload_local()  # as for a page
sys.failed_before = True
try:
    import_local()
except ImportError as error:
    print(error)
"""


ONCE = """
import sys
raise OSError("half of a package" if hasattr(sys, "failed_before") else "libcudart.so.11.0: cannot open shared object")
"""


@pytest.mark.slow
def test_diffusers_own_error_about_a_neighbour_names_it_and_the_cause_of_the_first_attempt(install):
    folder = install("xformers", ONCE)
    (folder / "xformers" / "ops.py").write_text("")
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    # Not in the checkout, whose folder `nodes` has the name of a module of ComfyUI's.
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, env=environ, capture_output=True, text=True)
    said = run.stdout
    print(f"\n{said}", end="")
    assert "xformers 0.0.9 is installed but cannot be imported (libcudart.so.11.0" in said
    assert "pip uninstall xformers" in said
