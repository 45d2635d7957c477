"""Uses the nodes as a person does: in ComfyUI's own frontend, in a headless browser.

What it looked like is kept in .demo/screenshots.
"""

import time
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
SMALL = {"num_frames": 9, "num_inference_steps": 4, "width": 96, "height": 64}
SECONDS = 60
# As after the first start, where the frontend greets nobody, and with no panel left open by another test.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.RightSidePanel.IsOpen": False}

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
# Where a slot is on the page, in pixels.
SLOT = """([type, isInput, slot]) => {
    const position = app.graph.nodes.find((node) => node.type === type).getConnectionPos(isInput, slot)
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(position)
    const canvas = app.canvas.canvas.getBoundingClientRect()
    return [canvas.x + x, canvas.y + y]
}"""
# Takes Save Video's link away, and adds core nodes that show the frames of the video.
SHOW_FRAMES = """() => {
    const find = (type) => app.graph.nodes.find((node) => node.type === type)
    find('SaveVideo').disconnectInput(0)
    const components = LiteGraph.createNode('GetVideoComponents')
    const preview = LiteGraph.createNode('PreviewImage')
    app.graph.add(components)
    app.graph.add(preview)
    components.pos = [540, 760]
    preview.pos = [960, 760]
    find('CosmosPredict25Generate').connect(0, components, 0)
    components.connect(components.findOutputSlot('images'), preview, 0)
    app.canvas.draw(true, true)
}"""


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
    server.request("/settings", SETTINGS)
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(SECONDS * 1000)
    page.goto(server.url)
    page.wait_for_function("window.app?.vueAppReady")
    page.evaluate(RECORD)
    yield page
    page.close()


@pytest.fixture
def template(page: Page) -> Page:
    """The page with the pack's workflow, which was opened in the template browser."""
    open_template_browser(page)
    page.get_by_test_id("template-workflow-text_to_video_local").click()
    page.wait_for_function("app.graph.nodes.some((node) => node.type === 'CosmosPredict25Generate')")
    expect(page.get_by_role("dialog")).to_be_hidden()
    return page


def open_template_browser(page: Page) -> None:
    page.get_by_role("button", name="Templates", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="cosmos-predict25").click()


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


def test_template_browser_shows_the_thumbnail(page: Page) -> None:
    open_template_browser(page)
    thumbnail = page.get_by_test_id("template-workflow-text_to_video_local").get_by_role("img")
    expect(thumbnail).to_be_visible()
    page.wait_for_function("(image) => image.naturalWidth > 0", arg=thumbnail.element_handle())
    take_screenshot(page, "templates")


def test_template_makes_a_video(template: Page) -> None:
    assert_nothing_is_wrong(template)
    take_screenshot(template, "workflow")
    set_values(template, "CosmosPredict25SamplerSettings", SMALL)
    press_run(template)
    *before, end = wait_for_end(template)
    assert end["name"] == "execution_success"
    generate = template.evaluate("app.graph.nodes.find((node) => node.type === 'CosmosPredict25Generate').id")
    previews = [event for event in before if event["name"] == "b_preview_with_metadata"]
    assert len(previews) == SMALL["num_inference_steps"]
    assert {preview["node"] for preview in previews} == {str(generate)}
    template.wait_for_function("(id) => app.graph.getNodeById(id).imgs?.[0].naturalWidth > 0", arg=generate)
    video = loaded_video(template)
    assert (video["width"], video["height"]) == (SMALL["width"], SMALL["height"])
    assert video["seconds"] == pytest.approx(SMALL["num_frames"] / 16, abs=0.02)
    assert_nothing_is_wrong(template)
    take_screenshot(template, "finished")


def test_nodes_are_found_and_dragged_onto_the_canvas(page: Page, server: ComfyUI) -> None:
    pack = {name: node for name, node in server.object_info().items() if name.startswith("CosmosPredict25")}
    page.evaluate("app.graph.clear()")
    page.get_by_role("button", name="Node Library").click()
    page.get_by_placeholder("Search").fill("cosmos")
    for row, (name, node) in enumerate(pack.items()):
        item = page.get_by_role("treeitem").filter(has_text=node["display_name"])
        expect(item).to_be_visible()
        item.hover(force=True)
        expect(page.get_by_text(node["description"])).to_be_visible()
        page.mouse.down()
        page.mouse.move(600 + 450 * (row % 2), 120 + 450 * (row // 2), steps=10)
        page.mouse.up()
        page.wait_for_function("(name) => app.graph.nodes.at(-1)?.type === name", arg=name)
    assert page.evaluate("app.graph.nodes.map((node) => node.type)") == list(pack)
    assert_nothing_is_wrong(page)
    take_screenshot(page, "nodes")


def test_video_goes_to_core_nodes(template: Page, server: ComfyUI) -> None:
    set_values(template, "CosmosPredict25SamplerSettings", {**SMALL, "seed": 1})
    template.evaluate(SHOW_FRAMES)
    template.mouse.move(*template.evaluate(SLOT, ["CosmosPredict25Generate", False, 0]))
    template.mouse.down()
    template.mouse.move(*template.evaluate(SLOT, ["SaveVideo", True, 0]), steps=10)
    take_screenshot(template, "dragging-a-link")
    template.mouse.up()
    assert template.evaluate("app.graph.nodes.find((node) => node.type === 'SaveVideo').inputs[0].link") is not None
    press_run(template)
    end = wait_for_end(template)[-1]
    assert end["name"] == "execution_success"
    entry = server.wait(end["prompt_id"])
    frames = [result for output in entry["outputs"].values() for result in output["images"] if result["type"] == "temp"]
    assert len(frames) == SMALL["num_frames"]
    assert loaded_video(template)["width"] == SMALL["width"]
    assert_nothing_is_wrong(template)
    take_screenshot(template, "core-nodes")


def test_blank_prompt_is_explained(template: Page) -> None:
    template.get_by_test_id("dom-widget-textarea").first.fill("  ")
    press_run(template)
    expect(template.get_by_test_id("error-overlay")).to_contain_text("Cosmos Predict2.5 Prompt")
    assert template.evaluate(BROKEN_NODES) == ["CosmosPredict25Prompt"]
    take_screenshot(template, "blank-prompt")
    template.get_by_test_id("error-overlay-see-errors").click()
    template.get_by_test_id("error-group-execution").get_by_role("button", name="Info for").click()
    expect(template.get_by_text("prompt is blank. Describe the scene")).to_be_visible()
    take_screenshot(template, "blank-prompt-details")


def test_stop_button_stops_and_the_next_run_works(template: Page) -> None:
    long = {"num_frames": 93, "num_inference_steps": 50, "width": 128, "height": 128}
    set_values(template, "CosmosPredict25SamplerSettings", long)
    press_run(template)
    template.wait_for_function("events.some(({ name }) => name === 'b_preview_with_metadata')")
    take_screenshot(template, "running")
    start = time.monotonic()
    template.get_by_role("button", name="Cancel current run").click()
    assert wait_for_end(template)[-1]["name"] == "execution_interrupted"
    assert time.monotonic() - start < 10
    assert_nothing_is_wrong(template)
    take_screenshot(template, "stopped")
    set_values(template, "CosmosPredict25SamplerSettings", {**SMALL, "seed": 2})
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    assert loaded_video(template)["width"] == SMALL["width"]
    assert_nothing_is_wrong(template)
