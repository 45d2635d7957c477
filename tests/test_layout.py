"""What lies over what in the shared workflows and subgraphs, on the real canvas: no node and no wire is hidden."""

import json
from collections.abc import Iterator
from math import dist
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, link_checkpoint
from cosmos_predict25.devtools.frontend import open_page, press_run, take_screenshot, wait_for_end

WORKFLOWS = sorted((environment.REPO / "workflows").glob("*.json"))
SUBGRAPHS = sorted((environment.REPO / "subgraphs").glob("*.json"))
VIEWS = {"classic": False, "nodes-2.0": True}
BENEATH_ITS_OWN_NODE = 30
"""Pixels: a wire begins and ends on a node."""
SAMPLES = 60
SIX_LINES = " ".join(["This sentence is one of those that make a refusal of six lines, as the longest ones are."] * 3)

# Each node's rectangle, as it is drawn, and each wire's ends.
MEASURE = """() => {
    const { graph, canvas, ds } = app.canvas
    const page = canvas.getBoundingClientRect()
    const onCanvas = (x, y) => [(x - page.left) / ds.scale - ds.offset[0], (y - page.top) / ds.scale - ds.offset[1]]
    const boxOf = (node) => {
        const drawn = LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`)
        if (!drawn) {
            const [x, y, width, height] = node.boundingRect ?? node.getBounding()
            return [x, y, x + width, y + height]
        }
        const { left, top, right, bottom } = drawn.getBoundingClientRect()
        return [...onCanvas(left, top), ...onCanvas(right, bottom)]
    }
    const ends = [graph.inputNode, graph.outputNode].filter(Boolean)
    const boxes = [...graph.nodes, ...ends].map((node) => [String(node.id), boxOf(node)])
    const wires = [...graph.links.values()].map(({ origin_id, origin_slot, target_id, target_slot }) => {
        const from = graph.getNodeById(origin_id), to = graph.getNodeById(target_id)
        const start = from?.getConnectionPos(false, origin_slot) ?? graph.inputNode.slots[origin_slot].pos
        const end = to?.getConnectionPos(true, target_slot) ?? graph.outputNode.slots[target_slot].pos
        return { nodes: [String(origin_id), String(target_id)], start: [...start], end: [...end] }
    })
    return { boxes: Object.fromEntries(boxes), wires }
}"""
FIT = """async () => {
    app.extensionManager.command.execute('Comfy.Canvas.FitView')
    const state = () => JSON.stringify([app.canvas.ds.scale, [...app.canvas.ds.offset]])
    for (let before = '', same = 0; same < 10; before = state()) {
        await new Promise(requestAnimationFrame)
        same = state() === before ? same + 1 : 0
    }
}"""
# Makes a workflow small, with the checkpoint of the tests.
MAKE_SMALL = """(values) => {
    for (const { widgets } of app.graph.nodes)
        for (const widget of widgets ?? []) if (widget.name in values) widget.value = values[widget.name]
}"""
SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "steps": 1, "new_frames": 4}
# What ComfyUI sends when a node refuses to run, for each node of the pack.
REFUSE = """(message) => {
    for (const { id, type } of app.graph.nodes)
        if (type.startsWith('CosmosPredict25'))
            app.api.dispatchCustomEvent('execution_error', {
                node_id: id, node_type: type, exception_type: 'cosmos_predict25.Error', exception_message: message,
                traceback: [], executed: [], current_inputs: {}, current_outputs: {}
            })
}"""
REFUSED = """(count) => count <= app.graph.nodes.filter(({ widgets }) =>
    widgets?.some(({ name, value }) => name === '$$node-text-preview' && value.startsWith('\\u26a0'))).length"""
# Whether the video of a run is on its node, with the line below it.
SHOWN = """() => document.querySelector('video')?.videoWidth && app.graph.nodes.some(({ type, widgets }) =>
    type === 'CosmosPredict25ExportVideo' && widgets.some(({ name }) => name === '$$node-text-preview'))"""
PLACES = "Object.fromEntries(app.graph.nodes.map(({ id, pos }) => [id, [...pos]]))"
OPEN_SUBGRAPH = "app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])"


def curve(start: list[float], end: list[float]) -> Iterator[tuple[float, float]]:
    """The points of a wire as the frontend draws it: a cubic whose handles are a quarter of the way long."""
    reach = max(30, dist(start, end) / 4)
    handles = ((start[0], start[1]), (start[0] + reach, start[1]), (end[0] - reach, end[1]), (end[0], end[1]))
    for step in range(SAMPLES + 1):
        t = step / SAMPLES
        weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
        x, y = (sum(weight * handle[axis] for weight, handle in zip(weights, handles, strict=True)) for axis in (0, 1))
        yield x, y


def hidden(measured: dict[str, Any]) -> list[str]:
    """Say which nodes lie over each other, and which wires run behind a node."""
    boxes, found = measured["boxes"], []
    names = sorted(boxes)
    for place, name in enumerate(names):
        left, top, right, bottom = boxes[name]
        for other in names[place + 1 :]:
            x0, y0, x1, y1 = boxes[other]
            if left < x1 and x0 < right and top < y1 and y0 < bottom:
                found.append(f"{name} and {other} lie over each other")
    for wire in measured["wires"]:
        for name, (left, top, right, bottom) in boxes.items():
            inset = BENEATH_ITS_OWN_NODE if name in wire["nodes"] else 0
            points = list(curve(wire["start"], wire["end"]))
            if any(left + inset < x < right - inset and top < y < bottom for x, y in points):
                found.append(f"the wire {' to '.join(wire['nodes'])} runs behind {name}")
    return found


def test_the_measure_sees_what_is_hidden():
    boxes = {"1": [0, 0, 100, 100], "2": [200, 0, 300, 100], "3": [400, 0, 500, 100]}
    wire = {"nodes": ["1", "3"], "start": [95, 50], "end": [405, 50]}
    assert hidden({"boxes": boxes, "wires": [wire]}) == ["the wire 1 to 3 runs behind 2"]
    assert hidden({"boxes": {**boxes, "2": [200, 60, 300, 100]}, "wires": [wire]}) == []
    assert hidden({"boxes": {**boxes, "2": [90, 90, 300, 200]}, "wires": []}) == ["1 and 2 lie over each other"]


FRONTENDS = [
    pytest.param(None, id="bundled"),
    pytest.param(environment.NEWEST_FRONTEND, id="newest", marks=pytest.mark.exhaustive),
]


@pytest.fixture(scope="module", params=FRONTENDS)
def frontend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Iterator[ComfyUI]:
    """A ComfyUI with its own frontend and with the newest one."""
    if request.param is None:
        yield request.getfixturevalue("comfyui")
        return
    base = tmp_path_factory.mktemp("layout")
    link_checkpoint(base, checkpoint)
    chosen = ["--front-end-root", str(environment.fetch_frontend(request.param))]
    no_key = dict.fromkeys(("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"), "")
    source = environment.source_folder(environment.NEWEST)
    with ComfyUI(source, base, environment.REPO, arguments=chosen, environ={**no_key, "HOME": str(base)}) as server:
        yield server


@pytest.fixture(scope="module", params=VIEWS)
def view(request: pytest.FixtureRequest, frontend: ComfyUI, browser: Browser) -> Iterator[Page]:
    """A page in one of the two views."""
    frontend.request("/settings", {"Comfy.VueNodes.Enabled": VIEWS[request.param]})
    page = open_page(browser, frontend)
    yield page
    page.close()


def load(page: Page, file: Path) -> dict[str, Any]:
    graph = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, file.stem])
    page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(graph["nodes"]))
    return graph


def hidden_on(page: Page) -> list[str]:
    page.evaluate(FIT)
    return hidden(page.evaluate(MEASURE))


@pytest.mark.sample(10)
@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_nothing_is_hidden_before_and_after_a_run_and_with_refusals(view: Page, file: Path) -> None:
    graph = load(view, file)
    assert hidden_on(view) == []
    view.evaluate(MAKE_SMALL, SMALL)
    press_run(view)
    exports = any(node["type"] == "CosmosPredict25ExportVideo" for node in graph["nodes"])
    if wait_for_end(view)[-1]["name"] == "execution_success" and exports:
        view.wait_for_function(SHOWN)
    assert hidden_on(view) == []
    view.evaluate(REFUSE, SIX_LINES)
    ours = [node for node in graph["nodes"] if node["type"].startswith("CosmosPredict25")]
    view.wait_for_function(REFUSED, arg=len(ours))
    assert hidden_on(view) == []
    take_screenshot(view, f"layout {file.stem}")


@pytest.mark.sample(4)
@pytest.mark.parametrize("file", SUBGRAPHS, ids=lambda file: file.stem)
def test_nothing_is_hidden_inside_a_subgraph(view: Page, file: Path) -> None:
    load(view, file)
    view.evaluate(OPEN_SUBGRAPH)
    assert hidden_on(view) == []
    take_screenshot(view, f"layout inside {file.stem}")


def test_the_commands_in_a_note_can_be_selected(view: Page) -> None:
    load(view, environment.REPO / "workflows" / "NVIDIA Cosmos Text to Video (local).json")
    view.evaluate(FIT)
    before = view.evaluate(PLACES)
    blocks = view.locator("pre").all()
    assert len(blocks) == 3
    for commands in blocks:
        box = commands.bounding_box()
        assert box
        view.mouse.move(box["x"] + 3, box["y"] + 3)
        view.mouse.down()
        view.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 3, steps=5)
        view.mouse.up()
        assert view.evaluate("getSelection().toString()").strip() == commands.inner_text().strip()
    assert view.evaluate(PLACES) == before


def test_ids_of_nodes_are_those_of_one_workflow_alone():
    """Else a job's progress is shown on another one's nodes."""
    ids = [node["id"] for file in (*WORKFLOWS, *SUBGRAPHS) for node in _all_nodes(json.loads(file.read_text("utf-8")))]
    assert len(set(ids)) == len(ids)


def _all_nodes(graph: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [node for each in graph.get("definitions", {}).get("subgraphs", []) for node in each["nodes"]]
    return [*graph["nodes"], *inner]
