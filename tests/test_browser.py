"""Uses the nodes as a person does: in ComfyUI's own frontend, in a headless browser.

What it looked like is kept in .demo/screenshots.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, link_checkpoint
from cosmos_predict25.devtools.frontend import (
    NEXT_PICTURE,
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
    """The page with the pack's workflow."""
    open_workflow(page, "NVIDIA Cosmos Text to Video (local)")
    return page


SHOWS_ALL_AND_THIS_PICTURE = """([id, count]) => {
    const card = document.querySelector(`[data-testid="${id}"]`)
    card?.scrollIntoView()
    const shown = document.querySelectorAll('[data-testid^="template-workflow-"]').length
    return shown === count && card?.querySelector("img")?.naturalWidth > 0
}"""


def test_template_browser_shows_the_thumbnail_the_demo_first_and_paid_ones_last(page: Page) -> None:
    """And it finds them among ComfyUI's hundreds, by the names of their files alone, and opens one."""
    names = {file.stem for file in (environment.REPO / "workflows").glob("*.json")}
    page.route("**/templates/*.webp", lambda route: route.abort())  # the moving pictures of ComfyUI's own take long
    page.get_by_role("button", name="Templates", exact=True).click()
    search = page.get_by_role("dialog").get_by_placeholder("Search")
    for words, expected in {
        "cosmos": names,
        "nvidia": {name for name in names if "NVIDIA" in name},
        "nvidia cosmos text to video": {name for name in names if name.startswith("NVIDIA Cosmos Text to Video")},
    }.items():
        search.fill(words)
        for name in expected:
            expect(page.get_by_test_id(f"template-workflow-{name}")).to_have_count(1)
    search.fill("")
    ours = page.get_by_role("dialog").get_by_role("button", name="cosmos-predict25")
    name = "template-workflow-NVIDIA Cosmos Text to Video (local)"
    card = page.get_by_test_id(name)
    ours.click()
    # For half a second the list is still that of the search before, or of all. A picture loads when it is seen.
    shown = [name, len(names)]
    repeat_until(page, lambda: page.evaluate(SHOWS_ALL_AND_THIS_PICTURE, shown), lambda: card.count() or ours.click())
    take_screenshot(page, "templates")
    cards = page.locator("[data-testid^='template-workflow-']").all()
    cost_money = ["on fal" in str(card.get_attribute("data-testid")) for card in cards]
    assert {str(card.get_attribute("data-testid")) for card in cards} == {f"template-workflow-{name}" for name in names}
    assert cost_money == sorted(cost_money)
    assert cards[0].get_attribute("data-testid") == "template-workflow-Cosmos Text to Video (demo)"
    card.click()
    page.wait_for_function("app.graph.nodes.some(({ type }) => type === 'CosmosPredict25Generate')")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert_nothing_is_wrong(page)


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
    rows = page.get_by_role("treeitem")
    for place, (name, node) in enumerate(pack.items()):
        # All that is found must fit. Where a list scrolls, the panel's title slides away and back and the rows with it,
        # and the frontend drags what then is under the mouse.
        page.get_by_placeholder("Search").fill(node["display_name"])
        row = rows.filter(has_text=node["display_name"])
        expect(row).to_be_visible()
        assert row.evaluate(FITS)
        page.mouse.move(0, 0)  # the row may have come up under the mouse, which then hovers over nothing new
        row.hover()
        expect(page.get_by_text(node["description"])).to_be_visible()
        page.mouse.down()
        page.mouse.move(480 + 120 * (place % 6), 120 + 200 * (place // 6), steps=10)
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
    frames = [
        result
        for output in entry["outputs"].values()
        for result in output.get("images", ())
        if result["type"] == "temp"
    ]
    assert len(frames) == SMALL["num_frames"]
    assert loaded_video(template)["width"] == SMALL["width"]
    assert_nothing_is_wrong(template)
    take_screenshot(template, "core-nodes")


def test_a_refusal_is_read_on_the_node_until_the_next_run(template: Page) -> None:
    set_values(template, "CosmosPredict25SamplerSettings", {**SMALL, "seed": 3})
    template.get_by_test_id("dom-widget-textarea").first.fill("  ")
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_error"
    refusal = template.get_by_text("prompt is blank. Describe the scene")
    expect(refusal).to_be_visible()
    take_screenshot(template, "blank-prompt")
    template.get_by_test_id("dom-widget-textarea").first.fill("A red circle moves left over a blue background.")
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    expect(refusal).to_have_count(0)


SEED_CONTROL = """LiteGraph.createNode('CosmosPredict25SamplerSettings').widgets
    .find(({ name }) => name === 'control_after_generate').value"""


def test_a_seed_changes_only_when_its_user_says_so(page: Page) -> None:
    """Else a job that is kept at fal would be paid for again by the run that was to go on with it."""
    assert page.evaluate(SEED_CONTROL) == "fixed"
    saved = """() => {
        app.graph.clear()
        const node = LiteGraph.createNode('CosmosPredict25SamplerSettings')
        app.graph.add(node)
        node.widgets.find(({ name }) => name === 'control_after_generate').value = 'randomize'
        return app.graph.serialize()
    }"""
    page.evaluate("(graph) => app.loadGraphData(graph)", page.evaluate(saved))
    loaded = "app.graph.nodes[0].widgets.find(({ name }) => name === 'control_after_generate').value"
    assert page.evaluate(loaded) == "randomize"


def test_fps_is_there_for_images_only(page: Page) -> None:
    page.evaluate("""() => {
        app.graph.clear()
        for (const [type, x] of [['EmptyImage', 400], ['CosmosPredict25ExportVideo', 800]]) {
            const node = LiteGraph.createNode(type)
            app.graph.add(node)
            node.pos = [x, 200]
        }
    }""")
    hidden = "app.graph.nodes[1].widgets.find(({ name }) => name === 'fps').hidden"
    assert page.evaluate(hidden) is True
    page.evaluate("app.graph.nodes[0].connect(0, app.graph.nodes[1], app.graph.nodes[1].findInputSlot('images'))")
    assert page.evaluate(hidden) is False


PRELOAD = "/cosmos_predict25/preload$"
"""A page asks for slow imports before the first run needs them."""
OTHER_FRONTENDS = [
    (environment.OLDEST_FRONTEND, "classic"),
    pytest.param(environment.OLDEST_FRONTEND, "nodes-2.0", marks=pytest.mark.exhaustive),
    pytest.param(environment.NEWEST_FRONTEND, "nodes-2.0", marks=pytest.mark.exhaustive),
    pytest.param(environment.NEWEST_FRONTEND, "classic", marks=pytest.mark.exhaustive),
]


@pytest.fixture(scope="module")
def other_frontend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Iterator[ComfyUI]:
    """A ComfyUI with the oldest and the newest frontend that are tested."""
    base = tmp_path_factory.mktemp("other-frontend")
    link_checkpoint(base, checkpoint)
    chosen = ["--front-end-root", str(environment.fetch_frontend(request.param))]
    with ComfyUI(environment.source_folder(environment.NEWEST), base, environment.REPO, arguments=chosen) as server:
        yield server


@pytest.mark.parametrize(("other_frontend", "nodes"), OTHER_FRONTENDS, indirect=["other_frontend"])
def test_results_and_refusals_stay_with_other_frontends(other_frontend: ComfyUI, browser: Browser, nodes: str) -> None:
    nodes2 = nodes == "nodes-2.0"
    other_frontend.request("/settings", {"Comfy.VueNodes.Enabled": nodes2})
    page = open_page(browser, other_frontend)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    assert page.evaluate(SEED_CONTROL) == "fixed"
    with page.expect_response(re.compile(PRELOAD)) as imported:
        open_workflow(page, "NVIDIA Cosmos Text to Video (local)")
    assert imported.value.status == 204
    set_values(page, "CosmosPredict25SamplerSettings", {**SMALL, "seed": 10 + nodes2})
    set_values(page, "CosmosPredict25ExportVideo", {"format": "GIF (.gif)"})
    page.evaluate("app.api.addEventListener('progress_text', ({ detail }) => (window.said ??= []).push(detail.text))")
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_success"
    said = page.evaluate("window.said")
    assert [text for text in said if "Denoising" in text]
    assert not [text for text in said if "Importing" in text]
    page.evaluate(NEXT_PICTURE)
    expect(page.get_by_text("9 frames of 96x64 in")).to_be_visible()
    expect(page.get_by_text(re.compile(r"cosmos_0000\d_\.gif, \d+ kB\."))).to_be_visible()
    assert loaded_video(page)["width"] == SMALL["width"]
    set_values(page, "CosmosPredict25ExportVideo", {"background": "reddish"})
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_error"
    page.evaluate(NEXT_PICTURE)
    expect(page.get_by_text("background is 'reddish', but must be a").last).to_be_visible()
    assert not [problem for problem in problems if "cosmos" in problem.lower()]
    page.close()


def test_stop_button_stops_and_the_next_run_works(template: Page) -> None:
    long = {"num_frames": 93, "num_inference_steps": 50, "width": 256, "height": 256}
    set_values(template, "CosmosPredict25SamplerSettings", long)
    press_run(template)
    template.wait_for_function("events.some(({ name }) => name === 'b_preview_with_metadata')")
    take_screenshot(template, "running")
    template.get_by_role("button", name="Cancel current run").click()
    assert wait_for_end(template)[-1]["name"] == "execution_interrupted"
    assert_nothing_is_wrong(template)
    take_screenshot(template, "stopped")
    set_values(template, "CosmosPredict25SamplerSettings", {**SMALL, "seed": 2})
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    assert loaded_video(template)["width"] == SMALL["width"]
    assert_nothing_is_wrong(template)


def test_comfyuis_own_nodes_make_a_video_with_the_demo_and_stop(page: Page) -> None:
    open_workflow(page, "Cosmos Text to Video (core nodes)")
    assert_nothing_is_wrong(page)
    set_values(page, "CosmosPredict25CheckpointLoader", {"checkpoint": "Demo: moving shapes (CPU)"})
    set_values(page, "CLIPTextEncode", {"text": "a red circle " * 300})
    press_run(page)
    *before, end = wait_for_end(page)
    assert end["name"] == "execution_success"
    expect(page.get_by_text("The prompt was truncated to 512 tokens").first).to_be_visible()
    previews = [event for event in before if event["name"] == "b_preview_with_metadata"]
    sampler = page.evaluate("app.graph.nodes.find((node) => node.type === 'SamplerCustomAdvanced').id")
    assert len(previews) == 20
    assert {preview["node"] for preview in previews} == {str(sampler)}
    assert loaded_video(page) == {"width": 96, "height": 96, "seconds": pytest.approx(25 / 16, abs=0.02)}
    assert_nothing_is_wrong(page)
    take_screenshot(page, "own-nodes")
    set_values(page, "CosmosPredict25CheckpointLoader", {"checkpoint": "auto"})
    set_values(page, "CosmosPredict25EmptyLatent", {"width": 128, "height": 128, "num_frames": 93})
    set_values(page, "BasicScheduler", {"steps": 1000})
    press_run(page)
    page.wait_for_function("events.some(({ name }) => name === 'b_preview_with_metadata')")
    page.get_by_role("button", name="Cancel current run").click()
    assert wait_for_end(page)[-1]["name"] == "execution_interrupted"


@pytest.mark.exhaustive
def test_a_truncated_prompt_is_told_on_comfyuis_own_node(page: Page) -> None:
    open_workflow(page, "Cosmos Text to Video (core nodes)")
    set_values(page, "CLIPTextEncode", {"text": "a red circle " * 300})
    set_values(page, "BasicScheduler", {"steps": 1})
    press_run(page)
    assert wait_for_end(page)[-1]["name"] == "execution_success"
    expect(page.get_by_text("The prompt was truncated to 512 tokens").first).to_be_visible()
