"""ComfyUI's own frontend in a headless browser: fixtures, which conftest.py hands to all tests, and helpers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cosmos_predict25.scripts import environment
from cosmos_predict25.scripts.comfyui import ComfyUI

SCREENSHOTS = environment.DEMO / "screenshots"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 60
# As after the first start, where the frontend greets nobody, and with no panel left open by another test.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.RightSidePanel.IsOpen": False}

# The frontend has opened the workflow of its start, and will open no other over what a test builds.
READY = "window.app?.vueAppReady && app.extensionManager.workflow.activeWorkflow"
RECORD = """() => {
    window.events = []
    const names = ['b_preview_with_metadata', 'execution_success', 'execution_error', 'execution_interrupted']
    for (const name of names)
        app.api.addEventListener(name, ({ detail }) => window.events.push({ name, node: detail.nodeId, ...detail }))
}"""
ENDED = "() => events.some(({ name }) => name.startsWith('execution_'))"
SET_VALUES = """([type, values]) => {
    const { widgets } = app.graph.nodes.find((node) => node.type === type)
    for (const [name, value] of Object.entries(values)) widgets.find((widget) => widget.name === name).value = value
}"""
BROKEN_NODES = """() => app.graph.nodes
    .filter((node) => node.has_errors || !(node.type in LiteGraph.registered_node_types))
    .map((node) => node.type)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[ComfyUI]:
    """A ComfyUI with the pack and the checkpoint, whose settings and files are this module's own."""
    base = tmp_path_factory.mktemp("browser")
    (base / "models" / "diffusers").mkdir(parents=True)
    (base / "models" / "diffusers" / checkpoint.name).symlink_to(checkpoint, target_is_directory=True)
    with ComfyUI(environment.source_folder(environment.NEWEST), base, environment.REPO) as server:
        yield server


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(server: ComfyUI, browser: Browser) -> Iterator[Page]:
    """The frontend as a new visitor gets it."""
    page = open_page(browser, server)
    yield page
    page.close()


def open_page(browser: Browser, server: ComfyUI) -> Page:
    server.request("/settings", SETTINGS)
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(SECONDS * 1000)
    page.goto(server.url)
    page.wait_for_function(READY)
    page.evaluate(RECORD)
    return page


def open_template_browser(page: Page) -> None:
    page.get_by_role("button", name="Templates", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="cosmos-predict25").click()


def open_template(page: Page, name: str) -> None:
    """Opens a workflow of the pack as a person does."""
    open_template_browser(page)
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("(name) => app.extensionManager.workflow.activeWorkflow?.path.includes(name)", arg=name)
    page.wait_for_function("app.graph.nodes.some(({ type }) => type.startsWith('CosmosPredict25'))")
    expect(page.get_by_role("dialog")).to_be_hidden()


def set_values(page: Page, node_type: str, values: dict[str, Any]) -> None:
    page.evaluate(SET_VALUES, [node_type, values])


def press_run(page: Page) -> None:
    page.evaluate("window.events = []")
    page.get_by_test_id("queue-button").click()


def wait_for_end(page: Page) -> list[dict[str, Any]]:
    """Waits until the run has ended and returns its events; the last one says how."""
    page.wait_for_function(ENDED)
    return page.evaluate("events")


def assert_nothing_is_wrong(page: Page) -> None:
    assert page.evaluate(BROKEN_NODES) == []
    expect(page.get_by_test_id("error-overlay")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".p-toast-message-error")).to_be_hidden()


def take_screenshot(page: Page, name: str) -> None:
    page.evaluate("app.canvas.draw(true, true)")
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def loaded_video(page: Page) -> dict[str, float]:
    """The size and the duration of the only video on the page, once the browser has read them."""
    video = page.locator("video")
    expect(video).to_be_visible()
    page.wait_for_function("document.querySelector('video').readyState >= HTMLMediaElement.HAVE_CURRENT_DATA")
    return video.evaluate(
        "(video) => ({ width: video.videoWidth, height: video.videoHeight, seconds: video.duration })"
    )
