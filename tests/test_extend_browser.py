"""As a person does it: a picture dropped on Load Image starts a video, and Load Video's clip goes on with its sound."""

import io

import av
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.frontend import (
    BUILD,
    FRAME,
    assert_nothing_is_wrong,
    press_run,
    take_screenshot,
    videos,
    wait_for_end,
)
from cosmos_predict25.tests.test_extend_node import input_of, make_clip

SMALL = {"num_frames": 9, "num_inference_steps": 1, "guidance_scale": 1, "width": 96, "height": 64, "seed": 5}
EXPORT = {"type": "CosmosPredict25ExportVideo", "size": [340, 400]}
GRAPH = {
    "nodes": {
        "loader": {"type": "CosmosPredict25Loader", "pos": [0, 0], "size": [340, 154]},
        "prompt": {
            "type": "CosmosPredict25Prompt",
            "pos": [0, 230],
            "size": [340, 200],
            "values": {"prompt": "A cat."},
        },
        "settings": {"type": "CosmosPredict25SamplerSettings", "pos": [0, 510], "size": [340, 202], "values": SMALL},
        "picture": {"type": "LoadImage", "pos": [380, 0], "size": [300, 330]},
        "clip": {"type": "LoadVideo", "pos": [380, 430], "size": [300, 280], "values": {"file": "clip.mp4"}},
        "generate": {"type": "CosmosPredict25Generate", "pos": [720, 0], "size": [300, 330]},
        "extend": {"type": "CosmosPredict25Extend", "pos": [720, 430], "size": [300, 280], "values": {"new_frames": 8}},
        "export": {**EXPORT, "pos": [1060, 0], "values": {"filename_prefix": "from_picture"}},
        "long": {**EXPORT, "pos": [1060, 470], "values": {"filename_prefix": "longer"}},
    },
    "links": [
        *([source, source, maker, source] for source in ("prompt", "settings") for maker in ("generate", "extend")),
        *(["loader", "model", maker, "model"] for maker in ("generate", "extend")),
        ["picture", "IMAGE", "generate", "image"],
        ["clip", "VIDEO", "extend", "video"],
        ["generate", "video", "export", "video"],
        ["extend", "video", "long", "video"],
    ],
}
# Drops a file in the middle of the node of this type, as the mouse would.
DROP = """([type, name, mime, bytes]) => {
    const node = app.graph.nodes.find((each) => each.type === type)
    const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + node.size[1] / 2]
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(middle)
    const canvas = app.canvas.canvas
    const corner = canvas.getBoundingClientRect()
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([new Uint8Array(bytes)], name, { type: mime }))
    const where = { clientX: corner.x + x, clientY: corner.y + y, bubbles: true, cancelable: true, dataTransfer }
    for (const kind of ['dragover', 'drop']) canvas.dispatchEvent(new DragEvent(kind, where))
}"""
WIDGET = (
    "([type, name]) => app.graph.nodes.find((each) => each.type === type).widgets.find((each) => each.name === name)"
)


@pytest.fixture(scope="module")
def clip(server: ComfyUI) -> None:
    """For Load Video, whose list a page reads when it opens."""
    make_clip(input_of(server, "clip.mp4"), 16, 16, 1)


@pytest.mark.usefixtures("clip")  # before the page
def test_a_dropped_picture_and_a_loaded_clip_become_videos(page: Page, server: ComfyUI) -> None:
    page.evaluate(BUILD, {"id": "starts", **GRAPH})
    page.evaluate(FRAME, 20)
    png = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(png, "PNG")
    page.evaluate(DROP, ["LoadImage", "dropped.png", "image/png", list(png.getvalue())])
    page.wait_for_function(f"(args) => ({WIDGET})(args).value === 'dropped.png'", arg=["LoadImage", "image"])
    press_run(page)
    end = wait_for_end(page)[-1]
    assert end["name"] == "execution_success"
    files = {file.name.split("_0")[0]: file for file in server.saved_files(server.wait(end["prompt_id"]))}
    frames = {}
    for name, file in files.items():
        with av.open(str(file)) as container:
            frames[name] = sum(1 for _ in container.decode(video=0)), len(container.streams.audio)
    assert frames == {"from_picture": (9, 0), "longer": (16 + 8, 1)}
    expect(page.get_by_text("8 frames added to 16 in")).to_be_visible()
    expect(videos(page)).to_have_count(3)
    assert_nothing_is_wrong(page)
    take_screenshot(page, "starts")
