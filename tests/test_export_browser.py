"""The export node as a person sees it: its preview in every format, and saved files dropped on the canvas."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.frontend import (
    assert_nothing_is_wrong,
    loaded_video,
    press_run,
    take_screenshot,
    wait_for_end,
)

WIDTH, HEIGHT, NUM_FRAMES, FPS = 190, 108, 24, 12.0
BUILD = """({ image, count, values }) => {
    app.graph.clear()
    const make = (type, x) => {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = [x, 100]
        return node
    }
    const set = (node, values) => {
        for (const [name, value] of Object.entries(values))
            node.widgets.find((widget) => widget.name === name).value = value
    }
    const load = make('LoadImage', 80)
    const repeat = make('RepeatImageBatch', 440)
    const save = make('CosmosPredict25ExportVideo', 740)
    set(load, { image })
    load.title = 'a lone } and {{'
    set(repeat, { amount: count })
    set(save, values)
    load.connect(0, repeat, 0)
    repeat.connect(0, save, save.findInputSlot('images'))
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [300, 0]
}"""
GRAPH = """() => {
    const { nodes, links } = app.graph.serialize()
    const shown = ({ id, type, title, pos, widgets_values }) => [id, type, title, pos, widgets_values]
    return { nodes: nodes.map(shown), links }
}"""


@pytest.fixture(scope="module")
def picture(server: ComfyUI) -> str:
    """The name of a picture in the input folder with all hues and an odd width."""
    across, down = numpy.meshgrid(numpy.linspace(0, 255, WIDTH - 1), numpy.linspace(0, 255, HEIGHT))
    pixels = numpy.stack((across, down, 255 - across), axis=-1).astype(numpy.uint8)
    Image.fromarray(pixels).save(server.base / "input" / "hues.png")
    return "hues.png"


def export(page: Page, server: ComfyUI, picture: str, format: str) -> Path:
    """Builds a graph around the node, presses Run, and returns the saved file."""
    values = {"format": format, "filename_prefix": "browser/hues", "fps": FPS}
    page.evaluate(BUILD, {"image": picture, "count": NUM_FRAMES, "values": values})
    press_run(page)
    end = wait_for_end(page)[-1]
    assert end["name"] == "execution_success"
    (file,) = server.saved_files(server.wait(end["prompt_id"]))
    return file


def drop_on_canvas(page: Page, file: Path) -> None:
    """As from the system's file manager."""
    browser = page.context.new_cdp_session(page)
    data: dict[str, Any] = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 800, "y": 700, "data": data})


@pytest.mark.parametrize("format", ["X264 (.mp4)", "VP9 (.webm)", "PRORES4444 (.mov)", "GIF (.gif)"])
def test_a_video_plays_on_the_node_and_brings_its_graph_back(
    picture: str, page: Page, server: ComfyUI, format: str
) -> None:
    file = export(page, server, picture, format)
    expect(page.get_by_text(f"{file.name}, ")).to_be_visible()
    video = loaded_video(page)
    assert (video["width"], video["height"]) == (WIDTH, HEIGHT)
    assert video["seconds"] == pytest.approx(NUM_FRAMES / FPS, abs=0.05)
    assert_nothing_is_wrong(page)
    take_screenshot(page, f"export-{file.suffix[1:]}")

    graph = page.evaluate(GRAPH)
    page.evaluate("app.graph.clear()")
    drop_on_canvas(page, file.with_suffix(".gif.json") if file.suffix == ".gif" else file)
    page.wait_for_function("app.graph.nodes.length > 0")
    assert page.evaluate(GRAPH) == graph
    assert_nothing_is_wrong(page)
    take_screenshot(page, f"dropped-{file.suffix[1:]}")
