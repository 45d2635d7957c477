"""The fal node as a person sees it: in ComfyUI's own frontend, against the stand-in of fal.

What it looked like is kept in .demo/screenshots.
"""

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, link_checkpoint
from cosmos_predict25.devtools.fal_standin import FalStandIn, Hang, Job, Reply, content_policy
from cosmos_predict25.devtools.frontend import (
    NEXT_PICTURE,
    assert_nothing_is_wrong,
    loaded_video,
    open_workflow,
    press_run,
    set_values,
    take_screenshot,
    videos,
    wait_for_end,
)
from cosmos_predict25.tests.fal import Meanwhile

NODE, SETTINGS = "CosmosPredict25GenerateFal", "CosmosPredict25SamplerSettings"
ENDPOINT = "fal-ai/cosmos-predict-2.5/text-to-video"
DISTILLED = "fal-ai/cosmos-predict-2.5/distilled/text-to-video"
STEPS = "endpoint.num_inference_steps"
FIND = "app.graph.nodes.find(({ type }) => type === 'CosmosPredict25GenerateFal')"
WIDGETS = f"() => Object.fromEntries({FIND}.widgets.map(({{ name, value }}) => [name, value]))"
# Where the middle of a widget is on the page, in pixels.
PLACE = f"""(name) => {{
    const node = {FIND}
    const widget = node.widgets.find((widget) => widget.name === name)
    const inNode = [node.size[0] / 2, widget.y + LiteGraph.NODE_WIDGET_HEIGHT / 2]
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + inNode[0], node.pos[1] + inNode[1]])
    const canvas = app.canvas.canvas.getBoundingClientRect()
    return [canvas.x + x, canvas.y + y]
}}"""
# Whether the node is as large as when it was last asked.
STILL = f"""() => {{
    const size = String({FIND}.size)
    const before = window.sizeBefore
    window.sizeBefore = size
    return size === before
}}"""
MUTED = "() => app.graph.nodes.filter(({ mode }) => mode === 2).map(({ type }) => type)"
# The muted nodes of the template run, and the others that need a model do not.
ON_FAL_ONLY = """() => app.graph.nodes.forEach((node) => {
    const isLocal = ['CosmosPredict25Generate', 'CosmosPredict25ExportVideo'].includes(node.type)
    node.mode = node.mode === 2 || !isLocal ? 0 : 2
})"""
PLAYS = "(video) => !video.error && !video.paused && video.currentTime > 0.3"


@pytest.fixture
def fal(running_fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalStandIn]:
    """The stand-in with short jobs. What a test changes ends with it."""
    monkeypatch.setattr(running_fal, "queue_seconds", 0.2)
    monkeypatch.setattr(running_fal, "run_seconds", 0.5)
    monkeypatch.setattr(running_fal, "concurrency", 40)
    yield running_fal
    assert running_fal.violations == []


@pytest.fixture(scope="module")
def key_file(running_fal: FalStandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """~/.fal/key of `server`, which has no other key."""
    file = tmp_path_factory.mktemp("home") / ".fal" / "key"
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text(running_fal.key)
    return file


@pytest.fixture(scope="module")
def server(
    running_fal: FalStandIn, key_file: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyUI]:
    """A ComfyUI that takes the stand-in for fal."""
    base = tmp_path_factory.mktemp("browser")
    link_checkpoint(base, checkpoint)
    no_key = dict.fromkeys(("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"), "")
    environ = {**running_fal.environ, **no_key, "HOME": str(key_file.parent.parent)}
    with ComfyUI(environment.source_folder(environment.NEWEST), base, environment.REPO, environ=environ) as server:
        yield server


@pytest.fixture
def template(page: Page) -> Page:
    open_workflow(page, "NVIDIA Cosmos Text to Video (on fal)")
    return page


def last_job(fal: FalStandIn) -> Job:
    return list(fal.jobs.values())[-1]


def assert_plays(video: Locator) -> None:
    video.evaluate("(video) => { video.muted = true; video.loop = true; return video.play() }")
    video.page.wait_for_function(PLAYS, arg=video.element_handle())


def open_errors(page: Page) -> Locator:
    """What is wrong, in the panel that the button of the error's message opens."""
    page.get_by_test_id("error-overlay-see-errors").click()
    return page.get_by_test_id("error-group-execution")


def test_progress_is_shown_and_the_video_plays(template: Page, fal: FalStandIn, server: ComfyUI) -> None:
    fal.queue_seconds, fal.run_seconds, fal.concurrency = 0, 60, 0
    assert_nothing_is_wrong(template)
    take_screenshot(template, "fal-workflow")
    set_values(template, SETTINGS, {"num_frames": 33, "seed": 1})
    press_run(template)
    expect(template.get_by_text("Queued at fal")).to_be_visible()
    take_screenshot(template, "fal-queued")
    fal.concurrency = 1
    expect(template.get_by_text("Running at fal: step")).to_contain_text("$0.20 a video")
    template.wait_for_function(f"{FIND}.progress > 0")
    before = template.evaluate(f"{FIND}.progress")
    template.wait_for_function(f"(before) => {FIND}.progress > before", arg=before)
    take_screenshot(template, "fal-running")
    fal.complete(last_job(fal).request_id)
    end = wait_for_end(template)[-1]
    assert end["name"] == "execution_success"
    expect(template.get_by_text("33 frames, 96 x 64, 2.1 s, seed 1")).to_be_visible()
    video = loaded_video(template)
    assert (video["width"], video["height"]) == (96, 64)
    assert video["seconds"] == pytest.approx(33 / 16, abs=0.05)
    assert_plays(videos(template))
    assert_nothing_is_wrong(template)
    take_screenshot(template, "fal-finished")
    # A lock may be there for a moment.
    (made,) = (file for file in (server.output / "cosmos_fal").iterdir() if file.suffix != ".lock")
    (exported,) = server.saved_files(server.wait(end["prompt_id"]))
    assert exported.suffix == made.suffix
    assert fal.accepted == 1


def test_stop_ends_quietly_and_cancels_at_fal(template: Page, fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    set_values(template, SETTINGS, {"num_frames": 9, "seed": 2})
    press_run(template)
    expect(template.get_by_text("Running at fal")).to_be_visible()
    template.get_by_role("button", name="Cancel current run").click()
    assert wait_for_end(template)[-1]["name"] == "execution_interrupted"
    fal.wait_for(lambda: last_job(fal).cancelled)
    assert_nothing_is_wrong(template)
    take_screenshot(template, "fal-stopped")
    fal.run_seconds = 0.5
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    assert loaded_video(template)["width"] == 96
    assert_nothing_is_wrong(template)


def test_a_queue_shows_the_sum_and_after_stop_what_is_left_and_nothing_is_charged_twice(
    template: Page, fal: FalStandIn
) -> None:
    fal.run_seconds, before = math.inf, fal.accepted
    for seed in range(21, 25):
        set_values(template, SETTINGS, {"num_frames": 9, "seed": seed})
        press_run(template)
    expect(template.get_by_text("3 more runs are in the queue")).to_be_visible()
    fal.wait_for(lambda: fal.accepted == before + 1)
    fal.complete(last_job(fal).request_id)
    fal.wait_for(lambda: fal.accepted == before + 2)
    sum_and_rest = re.compile(r"\$\d+\.\d+ today, 2 more runs are in the queue")
    expect(template.get_by_text(sum_and_rest)).to_be_visible()
    take_screenshot(template, "fal-queue")
    template.get_by_role("button", name="Cancel current run").click()
    # The third may be sent before the second is cancelled.
    fal.wait_for(lambda: [job.cancelled for job in list(fal.jobs.values())[before:]] == [False, True, False])
    assert [job.seed for job in list(fal.jobs.values())[before:]] == [21, 22, 23]
    expect(template.get_by_text("1 more run is in the queue")).to_be_visible()
    take_screenshot(template, "fal-queue-stopped")
    fal.complete(last_job(fal).request_id)
    fal.wait_for(lambda: fal.accepted == before + 4)
    fal.complete(last_job(fal).request_id)
    expect(template.get_by_text("seed 24.")).to_be_visible()
    expect(template.get_by_text("Charged $0.20,")).to_be_visible()
    for seed in (21, 23):
        set_values(template, SETTINGS, {"seed": seed})
        press_run(template)
        expect(template.get_by_text(f"seed {seed}.")).to_be_visible()
        expect(template.get_by_text("Nothing charged,")).to_be_visible()
    assert fal.accepted == before + 4
    assert_nothing_is_wrong(template)


def test_the_node_says_what_came_of_stop_where_fal_does_not_cancel(template: Page, fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    # Later than the graph waits for it.
    fal.fault("cancel", Meanwhile(fault=Reply(403, body={"detail": "not yours"}), what=lambda: time.sleep(2)))
    set_values(template, SETTINGS, {"num_frames": 9, "seed": 8})
    press_run(template)
    expect(template.get_by_text("Running at fal")).to_be_visible()
    template.get_by_role("button", name="Cancel current run").click()
    assert wait_for_end(template)[-1]["name"] == "execution_interrupted"
    expect(template.get_by_text("Stopped, but not cancelled: run the same again for its video")).to_be_visible()
    take_screenshot(template, "fal-not-cancelled")
    accepted = fal.accepted
    fal.complete(list(fal.jobs)[-1])
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    assert fal.accepted == accepted


def test_a_content_policy_refusal_can_be_read(template: Page, fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    set_values(template, SETTINGS, {"num_frames": 9, "seed": 3})
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_error"
    expect(template.get_by_test_id("error-overlay")).to_be_visible()
    take_screenshot(template, "fal-refused")
    errors = open_errors(template)
    take_screenshot(template, "fal-refused-details")
    said = "fal could not make the video (prompt): The content could not be processed because it contained material"
    expect(errors).to_contain_text(said)
    expect(errors).to_contain_text("The same prompt will be refused again")
    request_id = errors.get_by_text(last_job(fal).request_id)
    request_id.scroll_into_view_if_needed()
    expect(request_id).to_be_in_viewport()


def test_without_a_key_it_is_said_what_to_set(template: Page, fal: FalStandIn, key_file: Path) -> None:
    before = len(fal.connects)
    hidden = key_file.rename(key_file.with_name("hidden"))
    try:
        press_run(template)
        assert wait_for_end(template)[-1]["name"] == "execution_error"
        said = "There is no fal key. Make a key at"
        expect(template.locator(":visible").get_by_text(said).last).to_be_visible()
        take_screenshot(template, "fal-no-key")
    finally:
        hidden.rename(key_file)
    assert len(fal.connects) == before


def test_endpoint_shows_and_hides_the_steps(template: Page, fal: FalStandIn) -> None:
    assert STEPS not in template.evaluate(WIDGETS)
    choose_endpoint(template, "distilled/text-to-video")
    assert template.evaluate(WIDGETS)[STEPS] == 10
    set_values(template, NODE, {STEPS: 7})
    set_values(template, SETTINGS, {"num_frames": 9, "seed": 4})
    take_screenshot(template, "fal-distilled")
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    job = last_job(fal)
    assert job.endpoint == DISTILLED
    assert job.input["num_inference_steps"] == 7
    choose_endpoint(template, "text-to-video")
    assert STEPS not in template.evaluate(WIDGETS)
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    job = last_job(fal)
    assert job.endpoint == ENDPOINT
    assert job.input["num_inference_steps"] == 35
    assert_nothing_is_wrong(template)


# Opens the same graph as another workflow, and records the progress of the job that goes on.
OPEN_A_COPY = """async () => {
    window.texts = []
    await app.loadGraphData({ ...app.graph.serialize(), id: crypto.randomUUID() }, true, true, 'A copy')
    app.api.addEventListener('progress_text', ({ detail }) => texts.push(detail))
}"""
HAS_TEXT = "app.graph.nodes.some(({ widgets }) => widgets?.some(({ name }) => name === '$$node-text-preview'))"


def test_a_result_stays_off_another_workflow_with_the_same_ids(template: Page, fal: FalStandIn) -> None:
    """The other is a copy. The second job goes on and ends once that is open."""
    saved = template.get_by_text(re.compile(r"cosmos_fal_\d+_\.mp4, [\d,]+ kB\."))
    set_values(template, SETTINGS, {"num_frames": 9, "seed": 9})
    press_run(template)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    expect(saved).to_be_visible()
    fal.run_seconds = math.inf
    set_values(template, SETTINGS, {"seed": 10})
    press_run(template)
    expect(template.get_by_text("Running at fal")).to_be_visible()
    template.evaluate(OPEN_A_COPY)
    template.wait_for_function("texts.length > 0")
    fal.complete(last_job(fal).request_id)
    assert wait_for_end(template)[-1]["name"] == "execution_success"
    template.evaluate(NEXT_PICTURE)
    expect(saved).to_have_count(0)
    assert not template.evaluate(HAS_TEXT), "the job's progress is on another workflow"


def choose_endpoint(page: Page, name: str) -> None:
    """In the list that a click on the widget opens."""
    page.wait_for_function(STILL, polling=500)  # the node grows to show its result
    page.mouse.click(*page.evaluate(PLACE, "endpoint"))
    page.locator(".litemenu-entry").get_by_text(name, exact=True).click()
    page.wait_for_function(f"(name) => {FIND}.widgets[0].value === name", arg=name)


def test_one_prompt_feeds_the_local_node_and_fal(page: Page, fal: FalStandIn, server: ComfyUI) -> None:
    open_workflow(page, "NVIDIA Cosmos Text to Video (locally or on fal)")
    assert_nothing_is_wrong(page)
    take_screenshot(page, "local-or-fal")
    assert page.evaluate(MUTED) == ["CosmosPredict25GenerateFal", "CosmosPredict25ExportVideo"]
    page.evaluate("app.graph.nodes.forEach((node) => { node.mode = 0 })")
    small = {"num_frames": 9, "num_inference_steps": 4, "width": 96, "height": 64, "seed": 5}
    set_values(page, SETTINGS, small)
    press_run(page)
    end = wait_for_end(page)[-1]
    assert end["name"] == "execution_success"
    expect(videos(page)).to_have_count(2)
    for video in videos(page).all():
        assert_plays(video)
    files = server.saved_files(server.wait(end["prompt_id"]))
    assert {file.name.rsplit("_", 2)[0] for file in files} == {"cosmos_local", "cosmos_fal"}
    assert last_job(fal).input["num_inference_steps"] == 4
    assert_nothing_is_wrong(page)
    take_screenshot(page, "local-or-fal-finished")


def test_a_picture_is_uploaded_and_what_starts_from_it_plays(page: Page, fal: FalStandIn) -> None:
    open_workflow(page, "NVIDIA Cosmos Image to Video (locally or on fal)")
    page.evaluate(ON_FAL_ONLY)
    set_values(page, SETTINGS, {"num_frames": 9, "seed": 6})
    fal.fault("upload", Hang(accept=True))
    press_run(page)
    expect(page.get_by_text("Uploading to fal: 100 %")).to_be_visible()
    take_screenshot(page, "fal-uploading")
    fal.wait_for(lambda: fal.requests("upload"))
    fal.release()
    end = wait_for_end(page)[-1]
    assert end["name"] == "execution_success"
    assert last_job(fal).endpoint == "fal-ai/cosmos-predict-2.5/image-to-video"
    expect(page.get_by_text("9 frames, 96 x 64, 0.6 s, seed 6")).to_be_visible()
    assert loaded_video(page)["width"] == 96
    assert_plays(videos(page))
    assert_nothing_is_wrong(page)
    take_screenshot(page, "fal-from-a-picture")
