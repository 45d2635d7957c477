"""Imports the pack as `cosmos_predict25` and gives the tests a checkpoint of random weights and running ComfyUIs."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from xdist.scheduler import LoadFileScheduling

# The checkout whose tests these are, whichever one the environment belongs to; for child processes too.
os.environ["COSMOS_PREDICT25_CHECKOUT"] = str(Path(__file__).resolve().parent.parent)

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, link_checkpoint
from cosmos_predict25.devtools.frontend import CHROMIUM_ARGUMENTS, SCREENSHOTS, open_page, start_over
from cosmos_predict25.tests.fal import fal, running_fal  # noqa: F401
from cosmos_predict25.tests.fal_secrets import no_key_is_left_anywhere  # noqa: F401

NEEDS = {"chromium": "browser", "server": "comfyui", "any_comfyui": "comfyui", "core": "core", "report": "core"}
FEW = 5
"""Cases of a test show its rule in the quick run."""
LONG = ("browser", "comfyui", "slow")
"""What makes a file of tests long, most of all the first."""
TOGETHER = {
    "with the oldest ComfyUI too": "comfyui export_node extend_node face locales lora_node mix saved train_lora",
    "in a browser": "browser export_browser extend_browser layout",
}
"""Files of tests that one process runs, so that the same servers serve them all. A start takes seconds."""


class ByServer(LoadFileScheduling):
    """One process runs a file, and the files of each row of TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        name = Path(file).stem.removeprefix("test_")
        return next((row for row, files in TOGETHER.items() if name in files.split()), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return ByServer(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Marks the tests before pytest chooses among them, then sorts their files: the long ones first.

    No core waits for a long file at the end then.
    """
    slow = {(item.path, "slow") for item in items if item.get_closest_marker("slow")}
    mark_all(items)
    yield
    marks = slow | {(item.path, mark.name) for item in items for mark in item.iter_markers() if mark.name != "slow"}
    sizes = Counter(item.path for item in items)

    def length(item: pytest.Item) -> tuple[object, ...]:
        return *((item.path, name) in marks for name in LONG), sizes[item.path], item.path

    items.sort(key=length, reverse=True)


def mark_all(items: list[pytest.Item]) -> None:
    """Marks each test by what its fixtures start. Those named `comfyui...` start a ComfyUI.

    Marks as `exhaustive` the cases that `sample` leaves out, and with the oldest ComfyUI all but one of each test, or
    all if it is slow; as `slow` those that `quick` leaves out, and all but a few of a test without it.
    """
    cases: dict[tuple[object, ...], list[pytest.Function]] = {}
    for item in items:
        assert isinstance(item, pytest.Function)
        for name in item.fixturenames:
            if mark := "comfyui" if name.startswith("comfyui") else NEEDS.get(name):
                item.add_marker(mark)
        params = item.callspec.params if hasattr(item, "callspec") else {}
        is_oldest = params.get("any_comfyui") == "comfyui_oldest"
        cases.setdefault((item.path, item.originalname, is_oldest), []).append(item)
    for (*_, is_oldest), alike in cases.items():
        oldest = 0 if alike[0].get_closest_marker("slow") else 1
        short = mark_others(alike, "exhaustive", oldest if is_oldest else count_of(alike, "sample"))
        if short:
            mark_others(short, "slow", count_of(short, "quick", FEW))


def count_of(alike: list[pytest.Function], marker: str, default: int = sys.maxsize) -> int:
    found = alike[0].get_closest_marker(marker)
    return min(len(alike), found.args[0] if found else default)


def mark_others(alike: list[pytest.Function], marker: str, count: int) -> list[pytest.Function]:
    """Chooses `count` of a test's cases, evenly spread, which are returned, and marks the others."""
    chosen = {place * len(alike) // count for place in range(count)}
    for place, item in enumerate(alike):
        if place not in chosen:
            item.add_marker(marker)
    return [alike[place] for place in sorted(chosen)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with small random weights."""
    # Takes seconds, and most of the processes that read this file need none.
    from cosmos_predict25.devtools.random_checkpoint import write_random_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "random-weights-demo"
    write_random_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[ComfyUI]:
    """A running ComfyUI of the newest version that is tested, with the pack and the checkpoint."""
    yield from run_comfyui(environment.NEWEST, tmp_path_factory, checkpoint)


@pytest.fixture(scope="session")
def comfyui_oldest(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[ComfyUI]:
    """A running ComfyUI of the oldest version that is supported, with the pack and the checkpoint."""
    yield from run_comfyui(environment.OLDEST, tmp_path_factory, checkpoint)


@pytest.fixture(scope="session", params=["comfyui", "comfyui_oldest"])
def any_comfyui(request: pytest.FixtureRequest) -> ComfyUI:
    """Each of the two in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def core() -> Iterator[None]:
    """ComfyUI's own package `comfy`, for the CPU."""
    source = str(environment.source_folder(environment.NEWEST))
    sys.path.append(source)
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True  # as the pipeline's own
    yield
    sys.path.remove(source)


@pytest.fixture
def in_graph(core: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Return a function that gives a node as a graph has it, with an id, but without a server to show its progress."""
    from comfy_api.latest import io

    from cosmos_predict25.nodes.host import observers

    monkeypatch.setattr(observers, "show_text", lambda text, node_id: None)
    return lambda node: node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "1"}})


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser, which scripts/test installs."""
    path = environment.find_chromium()
    assert path, "There is no Chromium on PATH: run scripts/test, which installs it or says how to."
    return path


@pytest.fixture
def no_checkpoint(comfyui: ComfyUI) -> Iterator[None]:
    """For one test there is no checkpoint but the demo."""
    folder = comfyui.models / "diffusers"
    hidden = folder.rename(comfyui.base / "hidden")
    yield
    hidden.rename(folder)


@pytest.fixture(scope="module")
def server(comfyui: ComfyUI) -> ComfyUI:
    """The ComfyUI of a page. A module may have one of its own."""
    return comfyui


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened_page(server: ComfyUI, browser: Browser) -> Iterator[Page]:
    """The frontend as a new visitor gets it, which takes seconds."""
    page = open_page(browser, server)
    yield page
    page.close()


@pytest.fixture
def page(opened_page: Page) -> Page:
    """The frontend with nothing in it."""
    start_over(opened_page)
    return opened_page


def run_comfyui(
    release: environment.Release, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Iterator[ComfyUI]:
    source = environment.source_folder(release)
    assert source.exists(), f"There is no {source}: run scripts/test, which fetches it."
    base = tmp_path_factory.mktemp(source.name)
    link_checkpoint(base, checkpoint)
    no_key = {**dict.fromkeys(("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"), ""), "HOME": str(base)}
    with ComfyUI(source, base, environment.REPO, environ=no_key) as running:
        choices = running.object_info()["CosmosPredict25Loader"]["input"]["required"]["checkpoint"]
        assert checkpoint.name in str(choices), "Without it, the tests would pass with the demo in its place."
        yield running
