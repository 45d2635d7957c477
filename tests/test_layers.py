"""Environments upon the tests' own, in which a few packages have other releases."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cosmos_predict25.devtools import environment

sys.path.append(str(environment.REPO / "devtools"))  # as its programs have it
import layers

sys.path.remove(str(environment.REPO / "devtools"))


def write_wheel(folder: Path, name: str, release: str) -> Path:
    file, info = folder / f"{name}-{release}-py3-none-any.whl", f"{name}-{release}.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(f"{name}.py", f"release = {release!r}")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file


@pytest.mark.slow
def test_it_has_its_own_packages_and_all_others_of_the_one_below(tmp_path):
    wheel = write_wheel(tmp_path, "simpleeval", "99.0")  # the environment has an older one
    python = layers.upon_env("newer", ["--no-index", str(wheel)], tmp_path)
    program = "import av, simpleeval; print(simpleeval.release, av.__file__)"
    run = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    release, file = run.stdout.split()
    assert release == "99.0"
    assert Path(file).is_relative_to(Path(sys.prefix).resolve()) or Path(file).is_relative_to(sys.prefix)


def test_what_cannot_be_installed_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="no-such-package"):
        layers.upon_env("broken", ["--no-index", "no-such-package"], tmp_path)


def test_the_checkout_stands_for_the_newest_release(tmp_path, monkeypatch):
    before = environment.source_folder(environment.OLDEST)
    monkeypatch.setenv(environment.TESTED_INSTEAD, str(tmp_path))
    assert environment.source_folder(environment.NEWEST) == tmp_path
    assert environment.source_folder(environment.OLDEST) == before
    assert environment.release_of(None) == environment.release_of("0.30.0") == environment.NEWEST
    assert environment.release_of("0.18.2") == environment.OLDEST
