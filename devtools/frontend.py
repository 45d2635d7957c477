"""ComfyUI's own frontend in a headless browser."""

import json
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Route, expect

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI

SCREENSHOTS = environment.DEMO / "screenshots"
SOCKETS = environment.REPO / "web" / "docs" / "pictures.json"
"""The inputs and outputs on the pictures of the help pages, by node."""
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 300
# As after the first start, where the frontend greets nobody, and with no panel left open by another test.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.RightSidePanel.IsOpen": False}

# The frontend gets the server's messages, has opened the workflow of its start, and will open no other over a test's.
READY = "window.app?.vueAppReady && app.api.clientId && app.extensionManager.workflow.activeWorkflow"
# All nodes of the types, in as few columns as they fit.
SIDE_BY_SIDE = """(types) => {
    app.graph.clear()
    const ends = [0, 0, 0, 0]
    for (const type of types) {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        const column = ends.indexOf(Math.min(...ends))
        node.pos = [460 * column, ends[column]]
        ends[column] += node.size[1] + 110
    }
}"""
RECORD = """() => {
    window.events = []
    const names = ['b_preview_with_metadata', 'execution_success', 'execution_error', 'execution_interrupted']
    for (const name of names)
        app.api.addEventListener(name, ({ detail }) => window.events.push({ name, node: detail.nodeId, ...detail }))
    const queue = app.api.queuePrompt
    app.api.queuePrompt = async function (...options) {
        let answer
        try {
            return (answer = await queue.apply(this, options))
        } finally {
            window.asked = answer?.prompt_id ?? null
        }
    }
}"""
# The end of a run of before may come later than the next run is asked for.
ENDED = "() => events.some(({ name, prompt_id }) => name.startsWith('execution_') && prompt_id === window.asked)"
EVENTS = "events.filter(({ name, prompt_id }) => !name.startsWith('execution_') || prompt_id === window.asked)"
SET_VALUES = """([type, values]) => {
    const { widgets } = app.graph.nodes.find((node) => node.type === type)
    for (const [name, value] of Object.entries(values)) widgets.find((widget) => widget.name === name).value = value
}"""
BROKEN_NODES = """() => app.graph.nodes
    .filter((node) => node.has_errors || !(node.type in LiteGraph.registered_node_types))
    .map((node) => node.type)"""

# After what waits for the end of the event at hand.
NEXT_PICTURE = "() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done))))"

# Puts an empty workflow in the place of all that are open, and closes panels and messages.
START_OVER = """async () => {
    const { command, setting, sidebarTab, toast, workflow } = app.extensionManager
    const before = [...workflow.openWorkflows]
    await command.execute('Comfy.NewBlankWorkflow')
    for (const each of before) await workflow.closeWorkflow(each)
    await setting.set('Comfy.RightSidePanel.IsOpen', false)
    if (sidebarTab.activeSidebarTabId) sidebarTab.toggleSidebarTab(sidebarTab.activeSidebarTabId)
    await command.execute('Comfy.Canvas.ResetView')
    toast.removeAll()
    window.events = []
    window.asked = undefined
}"""
# A template's whole graph is in view at once.
OPEN = "([graph, name]) => app.loadGraphData(graph, true, true, name, { openSource: 'template' })"

# Replaces the graph by one of these nodes, numbered from `first` on, and links, and returns the nodes' ids by name.
# `app`: the widgets of the form, with their labels, and the nodes whose output it shows.
BUILD = """({ id, first = 1, nodes, links, app: [inputs, outputs] = [[], []] }) => {
    app.graph.clear()
    app.graph.id = id
    const made = {}
    for (const [name, { type, title, pos, size, values, mode }] of Object.entries(nodes)) {
        const node = LiteGraph.createNode(type, title)
        node.id = first + Object.keys(made).length
        app.graph.add(node)
        node.pos = pos
        for (const [widget, value] of Object.entries(values ?? {}))
            node.widgets.find((each) => each.name === widget).value = value
        node.setSize(size)
        if (mode) node.mode = mode
        made[name] = node
    }
    for (const [from, output, to, input] of links)
        made[from].connect(made[from].findOutputSlot(output), made[to], made[to].findInputSlot(input))
    for (const [name, widget, label] of inputs) {
        const input = made[name].inputs.find((each) => each.widget?.name === widget)
        const shown = made[name].widgets.find((each) => each.name === widget)
        for (const each of [shown, input]) if (each) each.label = label
    }
    const idOf = (name) => Number(made[name].id) // as frontends of all ages read it
    const linearData = { inputs: inputs.map(([name, widget]) => [idOf(name), widget]), outputs: outputs.map(idOf) }
    if (inputs.length) app.graph.extra.linearData = linearData
    return Object.fromEntries(Object.entries(made).map(([name, { id }]) => [name, id]))
}"""

# Puts the nodes' upper left corner at the canvas's, at full size, and returns the nodes' rectangle on the page.
FRAME = """(margin) => {
    const boxes = app.graph.nodes.map((node) => node.getBounding())
    const left = Math.min(...boxes.map((box) => box[0])) - margin
    const top = Math.min(...boxes.map((box) => box[1])) - margin
    const right = Math.max(...boxes.map((box) => box[0] + box[2])) + margin
    const bottom = Math.max(...boxes.map((box) => box[1] + box[3])) + margin
    const { x, y } = app.canvas.canvas.getBoundingClientRect()
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [-left, -top]
    app.canvas.deselectAll()
    app.canvas.draw(true, true)
    return { x, y, width: right - left, height: bottom - top }
}"""


def open_page(browser: Browser, server: ComfyUI) -> Page:
    server.request("/settings", SETTINGS)
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.route("**/api/global_subgraphs", leave_out_blueprints)
    page.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    page.goto(server.url)
    page.wait_for_function(READY)
    page.evaluate(RECORD)
    return page


def leave_out_blueprints(route: Route) -> None:
    """ComfyUI's own subgraphs, ninety files, which the frontend reads and registers at its start."""
    answer = route.fetch()
    route.fulfill(
        response=answer, json={i: each for i, each in answer.json().items() if each["source"] == "custom_node"}
    )


def sockets_of(info: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of a node's inputs and outputs, as its picture shows them."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {"inputs": list(inputs), "outputs": info["output_name"]}


def start_over(page: Page) -> None:
    """As an opened page is, but for what the frontend keeps of a run until the next one."""
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.evaluate(START_OVER)


def open_workflow(page: Page, name: str) -> None:
    """Opens a workflow of the pack in a tenth of the time that the template browser takes."""
    file = environment.REPO / "workflows" / f"{name}.json"
    page.evaluate(OPEN, [json.loads(file.read_text(encoding="utf-8")), name])


def open_template_browser(page: Page) -> None:
    page.get_by_role("button", name="Templates", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="cosmos-predict25").click()


def set_values(page: Page, node_type: str, values: dict[str, Any]) -> None:
    page.evaluate(SET_VALUES, [node_type, values])


def press_run(page: Page) -> None:
    """Asks for a run, and waits until ComfyUI has taken or refused it.

    A run that is asked for while another is being sent has the values that the widgets have after that.
    """
    page.evaluate("window.events = []; window.asked = undefined")
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("window.asked !== undefined")


def wait_for_end(page: Page) -> list[dict[str, Any]]:
    """Waits until the run has ended and returns its events; the last one says how."""
    page.wait_for_function(ENDED)
    return page.evaluate(EVENTS)


def repeat_until(page: Page, is_done: Callable[[], bool], act: Callable[[], object]) -> None:
    """For an action that the frontend takes only when it is ready for it, and does not say when."""
    begin = time.monotonic()
    while not is_done():
        assert time.monotonic() < begin + SECONDS
        act()
        page.evaluate(NEXT_PICTURE)


def assert_nothing_is_wrong(page: Page) -> None:
    assert page.evaluate(BROKEN_NODES) == []
    expect(page.get_by_test_id("error-overlay")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".p-toast-message-error")).to_be_hidden()


def take_screenshot(page: Page, name: str) -> None:
    page.evaluate("app.canvas.draw(true, true)")
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def videos(page: Page) -> Locator:
    """The videos on the nodes. One that has loaded after its node was removed stays in the page, hidden."""
    return page.locator("video:visible")


def loaded_video(page: Page) -> dict[str, float]:
    """The size and the duration of the only video on the page, once the browser has read them."""
    expect(video := videos(page)).to_be_visible()
    loaded = "(video) => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA"
    page.wait_for_function(loaded, arg=video.element_handle())
    return video.evaluate(
        "(video) => ({ width: video.videoWidth, height: video.videoHeight, seconds: video.duration })"
    )
