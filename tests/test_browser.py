"""Uses the nodes as a person does: in ComfyUI's own frontend, in a headless browser.

What it looked like is kept in .demo/screenshots.
"""

import time

import pytest
from playwright.sync_api import Page, expect

from cosmos_predict25.scripts.comfyui import ComfyUI
from cosmos_predict25.tests.frontend import (
    BROKEN_NODES,
    assert_nothing_is_wrong,
    loaded_video,
    open_template,
    open_template_browser,
    press_run,
    set_values,
    take_screenshot,
    wait_for_end,
)

SMALL = {"num_frames": 9, "num_inference_steps": 4, "width": 96, "height": 64}
# Where a slot is on the page, in pixels.
SLOT = """([type, isInput, slot]) => {
    const position = app.graph.nodes.find((node) => node.type === type).getConnectionPos(isInput, slot)
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(position)
    const canvas = app.canvas.canvas.getBoundingClientRect()
    return [canvas.x + x, canvas.y + y]
}"""
# Whether a row of the node library is above the lower end of the page.
FITS = "(row) => row.getBoundingClientRect().bottom <= innerHeight"
# Puts core nodes in the place of the export node: Save Video, which gets no link yet, and nodes that show the frames.
USE_CORE_NODES = """() => {
    const find = (type) => app.graph.nodes.find((node) => node.type === type)
    const made = {}
    const pos = { SaveVideo: [960, 240], GetVideoComponents: [540, 760], PreviewImage: [960, 760] }
    app.graph.remove(find('CosmosPredict25ExportVideo'))
    for (const type in pos) {
        made[type] = LiteGraph.createNode(type)
        app.graph.add(made[type])
        made[type].pos = pos[type]
    }
    find('CosmosPredict25Generate').connect(0, made.GetVideoComponents, 0)
    made.GetVideoComponents.connect(made.GetVideoComponents.findOutputSlot('images'), made.PreviewImage, 0)
    app.canvas.draw(true, true)
}"""


@pytest.fixture
def template(page: Page) -> Page:
    """The page with the pack's workflow, which was opened in the template browser."""
    open_template(page, "text_to_video_local")
    return page


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
    # All that is found must fit. Where a list scrolls, the panel's title slides away and back and the rows with it,
    # and the frontend drags what then is under the mouse.
    page.get_by_placeholder("Search").fill("cosmos predict2.5")
    rows = page.get_by_role("treeitem")
    for place, (name, node) in enumerate(pack.items()):
        row = rows.filter(has_text=node["display_name"])
        expect(row).to_be_visible()
        assert row.evaluate(FITS)
        row.hover()
        expect(page.get_by_text(node["description"])).to_be_visible()
        page.mouse.down()
        page.mouse.move(480 + 370 * (place % 3), 120 + 450 * (place // 3), steps=10)
        page.mouse.up()
        page.wait_for_function("(count) => app.graph.nodes.length === count", arg=place + 1)
        assert page.evaluate("app.graph.nodes.at(-1).type") == name
    assert_nothing_is_wrong(page)
    take_screenshot(page, "nodes")


def test_video_goes_to_core_nodes(template: Page, server: ComfyUI) -> None:
    set_values(template, "CosmosPredict25SamplerSettings", {**SMALL, "seed": 1})
    template.evaluate(USE_CORE_NODES)
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
