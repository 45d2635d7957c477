"""The pack's whole face in the real frontend: its forms, its subgraphs and its languages."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import NOTES, ComfyUI
from cosmos_predict25.devtools.frontend import (
    assert_nothing_is_wrong,
    loaded_video,
    open_page,
    open_workflow,
    press_run,
    repeat_until,
    set_values,
    take_screenshot,
    wait_for_end,
)

WORKFLOWS = sorted((environment.REPO / "workflows").glob("*.json"))
SUBGRAPHS = sorted((environment.REPO / "subgraphs").glob("*.json"))
SMALL = {"num_frames": 9, "num_inference_steps": 1, "guidance_scale": 1, "width": 96, "height": 64}
# Connects what a subgraph's node needs and gives: an image or a video of images, and the export node.
CONNECT = """(values) => {
    const node = app.graph.nodes[0]
    const add = (type, values = {}) => {
        const made = LiteGraph.createNode(type)
        app.graph.add(made)
        made.pos = [450, 250 * app.graph.nodes.length - 400]
        for (const [name, value] of Object.entries(values))
            made.widgets.find((widget) => widget.name === name).value = value
        return made
    }
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find((widget) => widget.name === name)
        widget.value = value
        widget.callback?.(value)
    }
    const source = node.findInputSlot('image') >= 0 ? 'image' : 'video'
    if (node.findInputSlot(source) >= 0)
        add('EmptyImage', { width: 96, height: 64, batch_size: 5 }).connect(0, node, node.findInputSlot(source))
    node.connect(0, add('CosmosPredict25ExportVideo'), 0)
}"""
FILL_IN = """(values) => {
    const { widgets } = app.graph.nodes[0]
    for (const [name, value] of Object.entries(values)) {
        const widget = widgets.find((widget) => widget.name === name)
        widget.value = value
        widget.callback?.(value)
    }
}"""


@pytest.mark.sample(8)
@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_workflow_has_a_form_with_what_it_starts_from_and_what_it_makes(file: Path, any_comfyui: ComfyUI) -> None:
    graph = json.loads(file.read_text(encoding="utf-8"))
    nodes = {node["id"]: node["type"] for node in graph["nodes"] if node["type"] not in NOTES}
    form = graph["extra"]["linearData"]
    info = any_comfyui.object_info()
    for node, widget in form["inputs"]:
        inputs = info[nodes[node]]["input"]
        assert widget in {**inputs["required"], **inputs.get("optional", {})}
    shown = {widget for _, widget in form["inputs"]}
    assert shown & {"prompt", "text"}
    assert ("image" in shown) == ("Image to Video" in file.stem)
    makes_a_video = file.stem not in ("NVIDIA Cosmos Write a Prompt", "Cosmos Train a LoRA")
    assert not makes_a_video or (shown & {"num_frames", "new_frames"} and shown & {"seed", "noise_seed"})
    labels = [
        slot.get("label")
        for node, widget in form["inputs"]
        for slot in next(each for each in graph["nodes"] if each["id"] == node)["inputs"]
        if slot.get("widget", {}).get("name") == widget
    ]
    assert len(labels) == len(form["inputs"])
    assert None not in labels
    assert len(set(labels)) == len(labels), "two fields have one name"
    assert any("$0.20" in label for label in labels) == ("on fal" in file.stem)
    assert form["outputs"]
    assert all(info[nodes[node]]["output_node"] for node in form["outputs"])


def test_a_workflow_is_a_form_that_makes_a_video(page: Page) -> None:
    open_workflow(page, "Cosmos Text to Video (demo)")
    page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
    text = page.get_by_test_id("app-mode-widget-item").locator("textarea")
    # before that the form is drawn a second time
    expect(text).to_have_value("A large red circle moves left over a blue background.")
    text.fill("A small green square moves up over a white background.")
    take_screenshot(page, "form")
    run_form(page)
    assert wait_for_end(page)[-1]["name"] == "execution_success"
    page.wait_for_function("document.querySelector('video')?.videoWidth === 96")
    take_screenshot(page, "form-finished")


def run_form(page: Page) -> None:
    page.evaluate("window.events = []")
    page.get_by_role("button", name="Run", exact=True).last.click()


def test_a_form_says_why_it_does_not_run(page: Page, no_checkpoint: None) -> None:
    """One refusal before anything is sent and one during the run, of nodes that the form does not show."""
    open_workflow(page, "NVIDIA Cosmos Text to Video (local)")
    page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
    run_form(page)
    told = page.get_by_role("alert")
    no_model = told.filter(has_text="There is no Cosmos-Predict2.5 model in").filter(has_text="'Demo: moving shapes")
    expect(no_model).to_be_visible()
    take_screenshot(page, "form-without-a-model")
    set_values(page, "CosmosPredict25Loader", {"checkpoint": "Demo: moving shapes (CPU)"})
    set_values(page, "CosmosPredict25Prompt", {"prompt": " "})
    run_form(page)
    expect(told.filter(has_text="prompt is blank. Describe the scene")).to_be_visible()
    expect(no_model).to_have_count(0)


def test_a_subgraph_alone_says_what_to_connect_and_why_it_does_not_run(page: Page, no_checkpoint: None) -> None:
    add_from_search(page, "Text to Video (Cosmos)")
    press_run(page)
    told = page.get_by_role("alert")
    connect = told.filter(has_text="Connect the output video to Export Video (Cosmos Predict2.5)")
    expect(connect).to_be_visible()
    page.evaluate(CONNECT, {**SMALL, "prompt": "A red circle.", "seed": 4})
    press_run(page)
    expect(told.filter(has_text="There is no Cosmos-Predict2.5 model in")).to_be_visible()
    expect(connect).to_have_count(0)
    page.evaluate(FILL_IN, {"prompt": " ", "checkpoint": "Demo: moving shapes (CPU)"})
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_error"
    expect(told.filter(has_text="prompt is blank. Describe the scene")).to_be_visible()
    take_screenshot(page, "subgraph-refusal")


def test_a_fresh_tab_shows_what_is_said_of_results_that_are_kept(page: Page, server: ComfyUI, browser: Browser) -> None:
    lines = ["Demo: knows only coloured shapes.", "9 frames of 96x96 in"]
    for tab in (page, fresh := open_page(browser, server)):
        open_workflow(tab, "Cosmos Text to Video (demo)")
        set_values(tab, "CosmosPredict25SamplerSettings", {"num_frames": 9, "num_inference_steps": 4})
        press_run(tab)
        assert wait_for_end(tab)[-1]["name"] == "execution_success"
        for line in lines:
            expect(tab.get_by_text(line)).to_be_visible()
    fresh.close()


# The words of the shown refusal that stand on two lines.
BROKEN_WORDS = """() => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    const texts = []
    while (walker.nextNode()) texts.push(walker.currentNode)
    const refusal = texts.find(({ data }) => data.includes('\u26a0'))
    const shown = texts.filter(({ parentElement }) => parentElement === refusal.parentElement)
    return shown.flatMap((text) => [...text.data.matchAll(/\\S+/g)].filter(({ 0: word, index }) => {
        const range = document.createRange()
        range.setStart(text, index)
        range.setEnd(text, index + word.length)
        return new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size > 1
    }).map(([word]) => word))
}"""
LONG_REFUSAL = """() => app.api.dispatchCustomEvent('execution_error', {
    node_id: app.graph.nodes.find(({ type }) => type === 'CosmosPredict25Generate').id, traceback: [], executed: [],
    exception_type: 'cosmos_predict25.Error', exception_message: 'Words that are wide: WWWWMMMM '.repeat(12)
})"""


def test_no_word_of_a_refusal_is_broken(page: Page) -> None:
    open_workflow(page, "Cosmos Text to Video (demo)")
    page.evaluate(LONG_REFUSAL)
    expect(page.get_by_text("Words that are wide").first).to_be_visible()
    take_screenshot(page, "long-refusal")
    assert page.evaluate(BROKEN_WORDS) == []


@pytest.mark.parametrize("name", [file.stem for file in SUBGRAPHS])
def test_a_subgraph_is_found_as_one_node_and_makes_a_video_for_another(page: Page, name: str) -> None:
    add_from_search(page, name)
    values: dict[str, Any] = {**SMALL, "prompt": "A red circle.", "seed": 3}
    if name.startswith("Extend"):
        values["new_frames"] = 4
    widgets = page.evaluate("app.graph.nodes[0].widgets.map(({ name }) => name)")
    assert set(widgets) == {*values, "checkpoint"}
    page.evaluate(CONNECT, values)
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_success"
    assert loaded_video(page)["width"] == SMALL["width"]
    assert_nothing_is_wrong(page)
    take_screenshot(page, f"subgraph {name}")


def test_a_refusal_in_a_subgraph_is_gone_with_the_next_run(page: Page) -> None:
    add_from_search(page, "Text to Video (Cosmos)")
    page.evaluate(CONNECT, {**SMALL, "prompt": " ", "seed": 4})
    page.evaluate("app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_error"
    shown = """app.canvas.graph.nodes.find(({ type }) => type === 'CosmosPredict25Prompt')
        .widgets.some(({ name }) => name === '$$node-text-preview')"""
    page.wait_for_function(shown)
    prompt = "app.rootGraph.nodes[0].widgets.find(({ name }) => name === 'prompt')"
    page.evaluate(f"{prompt}.value = 'A red circle.'; {prompt}.callback?.('A red circle.')")
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_success"
    page.wait_for_function(f"!({shown})")


def add_from_search(page: Page, name: str) -> None:
    """Adds a node to an empty graph as a person does, by the box that a double click opens."""
    page.evaluate("app.graph.clear()")
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.keyboard.type(name)
    page.get_by_text(name, exact=True).first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("app.graph.nodes.length === 1")
    page.get_by_role("dialog").wait_for(state="hidden")
    # It hangs on the mouse as soon as the box is gone.
    repeat_until(page, lambda: not page.evaluate("app.graph.nodes[0].flags.ghost"), lambda: page.mouse.click(400, 200))
