"""Builds a graph on the canvas of ComfyUI's frontend, and saves it as the frontend exports it."""

import json
import re
import uuid

from playwright.sync_api import Page

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.frontend import BUILD, FRAME
from cosmos_predict25.scripts.templates.graphs import APPS, BLUEPRINTS, GRAPHS

WORKFLOWS = environment.REPO / "workflows"
SUBGRAPHS = environment.REPO / "subgraphs"
MARGIN = 40
CATEGORY = "Cosmos Predict2.5"
"""Of the subgraphs in the node library."""
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Makes one node of all in the graph, whose widgets and sockets are those named: `ids` are the nodes' by name, `ends`
# the places of what stands for its sockets inside.
CONVERT = """({ name, description, ids, sockets, promoted, outputs, ends }) => {
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
    ;[subgraph.inputNode.pos, subgraph.outputNode.pos] = ends
    node.title = name
    app.graph.extra.BlueprintDescription = description
    node.setSize([400, node.computeSize()[1]])
}"""


def save(page: Page, name: str) -> None:
    graph = {"id": stable_id(name), "first": first_id(list(GRAPHS).index(name)), **GRAPHS[name], "app": APPS[name]}
    page.evaluate(BUILD, graph)
    page.evaluate(FRAME, MARGIN)
    (WORKFLOWS / f"{name}.json").write_text(exported(page), encoding="utf-8")


def save_subgraph(page: Page, name: str) -> None:
    graph = BLUEPRINTS[name]
    first = first_id(len(GRAPHS) + list(BLUEPRINTS).index(name))
    made = {"id": stable_id(name), "first": first, "nodes": graph["nodes"], "links": graph["links"]}
    ids = page.evaluate(BUILD, made)
    page.evaluate(CONVERT, {"name": name, "ids": ids, **graph})
    page.evaluate(FRAME, MARGIN)
    text = exported(page)
    for place, found in enumerate(dict.fromkeys(UUID.findall(text))):
        text = text.replace(found, stable_id(f"{name} {place}"))
    saved = json.loads(text)
    saved["definitions"]["subgraphs"][0]["category"] = CATEGORY
    (SUBGRAPHS / f"{name}.json").write_text(json.dumps(saved, ensure_ascii=False, indent=2), encoding="utf-8")


def first_id(place: int) -> int:
    """The number of the first node. A job's progress goes to the node of its number in any workflow that is open."""
    return 100 * (place + 1) + 1


def stable_id(name: str) -> str:
    """The same for the same name, so that what did not change is saved without a difference."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def exported(page: Page) -> str:
    with page.expect_download() as download:
        page.evaluate("app.extensionManager.command.execute('Comfy.ExportWorkflow')")
    return download.value.path().read_text(encoding="utf-8")
