"""Builds a graph on the canvas of ComfyUI's frontend, and saves it as the frontend exports it."""

import json
import re
import uuid

from playwright.sync_api import Page

from cosmos_predict25.scripts import environment
from cosmos_predict25.scripts.templates.graphs import APPS, BLUEPRINTS, GRAPHS

WORKFLOWS = environment.REPO / "workflows"
SUBGRAPHS = environment.REPO / "subgraphs"
MARGIN = 40
CATEGORY = "Cosmos Predict2.5"
"""Of the subgraphs in the node library."""
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

BUILD = """({ id, nodes, links, app: [inputs, outputs] = [[], []] }) => {
    app.graph.clear()
    app.graph.id = id
    const made = {}
    for (const [name, { type, title, pos, size, values, mode }] of Object.entries(nodes)) {
        const node = LiteGraph.createNode(type, title)
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
    const idOf = (name) => Number(made[name].id) // as frontends of all ages read it
    const linearData = { inputs: inputs.map(([name, widget]) => [idOf(name), widget]), outputs: outputs.map(idOf) }
    if (inputs.length) app.graph.extra.linearData = linearData
    return Object.fromEntries(Object.entries(made).map(([name, { id }]) => [name, id]))
}"""

# Makes one node of all in the graph, whose widgets and sockets are those named: `ids` are the nodes' by name.
CONVERT = """({ name, description, ids, sockets, promoted, outputs }) => {
    const { subgraph, node } = app.graph.convertToSubgraph(new Set(app.graph.nodes))
    const inner = (name) => subgraph.getNodeById(ids[name])
    for (const chosen of [...subgraph.inputs]) subgraph.removeInput(chosen) // by the frontend, such as a seed
    for (const [from, input] of [...sockets, ...promoted]) {
        const slot = inner(from).inputs.find((each) => each.name === input)
        subgraph.addInput(input, slot.type).connect(slot, inner(from))
    }
    for (const [from, output] of outputs) {
        const slot = inner(from).outputs.find((each) => each.name === output)
        subgraph.addOutput(output, slot.type).connect(slot, inner(from))
    }
    Object.assign(subgraph, { name, description })
    node.title = name
    app.graph.extra.BlueprintDescription = description
    node.setSize([400, node.computeSize()[1]])
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


def save(page: Page, name: str) -> None:
    page.evaluate(BUILD, {"id": stable_id(name), **GRAPHS[name], "app": APPS[name]})
    page.evaluate(FRAME, MARGIN)
    (WORKFLOWS / f"{name}.json").write_text(exported(page), encoding="utf-8")


def save_subgraph(page: Page, name: str) -> None:
    graph = BLUEPRINTS[name]
    ids = page.evaluate(BUILD, {"id": stable_id(name), "nodes": graph["nodes"], "links": graph["links"]})
    page.evaluate(CONVERT, {"name": name, "ids": ids, **graph})
    page.evaluate(FRAME, MARGIN)
    text = exported(page)
    for place, found in enumerate(dict.fromkeys(UUID.findall(text))):
        text = text.replace(found, stable_id(f"{name} {place}"))
    saved = json.loads(text)
    saved["definitions"]["subgraphs"][0]["category"] = CATEGORY
    (SUBGRAPHS / f"{name}.json").write_text(json.dumps(saved, ensure_ascii=False, indent=2), encoding="utf-8")


def stable_id(name: str) -> str:
    """The same for the same name, so that what did not change is saved without a difference."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def exported(page: Page) -> str:
    with page.expect_download() as download:
        page.evaluate("app.extensionManager.command.execute('Comfy.ExportWorkflow')")
    return download.value.path().read_text(encoding="utf-8")
