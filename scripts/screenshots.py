"""Makes a picture of everything that a new user meets, in ComfyUI's own frontend, to be looked at one by one.

    .demo/env/bin/python scripts/screenshots.py [--only NAME ...] [--frontend bundled newest] [FOLDER]

It opens and runs each shared workflow with the demo checkpoint, provokes each refusal, and shows each kind of preview:
on the classic canvas and with Nodes 2.0, with the frontend of the environment and with the newest one that is tested.
What the browser's console says of this pack is printed. The pictures go to .demo/screenshots unless a folder is given.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from cosmos_predict25.scripts import environment
from cosmos_predict25.scripts.comfyui import ComfyUI
from cosmos_predict25.tests.frontend import CHROMIUM_ARGUMENTS, RECORD, SCREENSHOTS, SETTINGS, press_run, wait_for_end

MODES = {"classic": False, "nodes2": True}
WORKFLOWS = sorted(file.stem for file in (environment.REPO / "workflows").glob("*.json"))
SMALL = {"num_frames": 9, "num_inference_steps": 4, "width": 64, "height": 64}
PROMPT, SAMPLER, LOADER = "CosmosPredict25Prompt", "CosmosPredict25SamplerSettings", "CosmosPredict25Loader"
EXPORT, FAL = "CosmosPredict25ExportVideo", "CosmosPredict25GenerateFal"
LOAD = """async (name) => {
    const answer = await fetch(`/api/workflow_templates/cosmos-predict25/${name}.json`)
    await app.loadGraphData(await answer.json(), true, true, name)
}"""
SET = """([type, values]) => {
    for (const { widgets } of app.graph.nodes.filter((node) => node.type === type))
        for (const [name, value] of Object.entries(values))
            widgets.find((widget) => widget.name === name).value = value
}"""
# Wires a node's output to an input of another; of several nodes of a type, the first.
LINK = """([made, values, type, input]) => {
    const source = LiteGraph.createNode(made)
    app.graph.add(source)
    for (const [name, value] of Object.entries(values))
        source.widgets.find((widget) => widget.name === name).value = value
    source.pos = [0, -200]
    const target = app.graph.nodes.find((node) => node.type === type)
    source.connect(0, target, target.findInputSlot(input))
}"""
DISCONNECT = """([type, input]) => {
    const node = app.graph.nodes.find((node) => node.type === type)
    node.disconnectInput(node.findInputSlot(input))
}"""


def open_workflow(page: Page, name: str) -> None:
    page.evaluate(LOAD, name)
    page.wait_for_timeout(1500)
    page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(700)


def run(page: Page) -> None:
    press_run(page)
    wait_for_end(page)
    page.wait_for_timeout(2500)  # what stays when the job is over


def refused(page: Page) -> None:
    press_run(page)
    page.get_by_test_id("error-overlay").wait_for()
    page.wait_for_timeout(2500)


def local(page: Page, **values: Any) -> None:
    open_workflow(page, "Text to Video (local)")
    page.evaluate(SET, [SAMPLER, {**SMALL, **values}])
    page.evaluate(SET, [PROMPT, {"prompt": "A large red circle moves left over a blue background."}])


def workflow(name: str, runs: bool) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        open_workflow(page, name)
        if runs:
            run(page)

    return show


def refusal(type: str, values: dict[str, Any], template: str = "Text to Video (local)") -> Callable[[Page], None]:
    def show(page: Page) -> None:
        open_workflow(page, template)
        page.evaluate(SET, [type, values])
        refused(page)

    return show


def linked_value_out_of_range(page: Page) -> None:
    local(page)
    page.evaluate(LINK, ["PrimitiveInt", {"value": 100}, SAMPLER, "width"])
    refused(page)


def nothing_connected(page: Page) -> None:
    local(page)
    page.evaluate(DISCONNECT, [EXPORT, "video"])
    refused(page)


def preview(format: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        local(page)
        page.evaluate(SET, [EXPORT, {"format": format}])
        run(page)

    return show


def search(words: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        page.evaluate("app.graph.clear()")
        page.mouse.dblclick(800, 700)
        page.keyboard.type(words, delay=30)
        page.wait_for_timeout(1500)

    return show


def library(page: Page) -> None:
    page.evaluate("app.graph.clear()")
    page.get_by_role("button", name="Node Library").click()
    page.get_by_placeholder("Search").first.fill("cosmos predict2.5")
    page.wait_for_timeout(1500)


def templates(page: Page) -> None:
    page.get_by_role("button", name="Templates", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="cosmos-predict25").click()
    page.wait_for_timeout(2500)


CASES: dict[str, Callable[[Page], None]] = {
    "templates": templates,
    **{
        f"open-{file.stem}": workflow(file.stem, False)
        for file in sorted((environment.REPO / "workflows").glob("*.json"))
    },
    "run-demo": workflow("Text to Video (demo)", True),
    "run-local": workflow("Text to Video (local)", True),
    "error-blank-prompt": refusal(PROMPT, {"prompt": " "}),
    "error-no-key": refusal(FAL, {}, "Text to Video (on fal)"),
    "error-nothing-connected": nothing_connected,
    "error-width": refusal(SAMPLER, {"width": 100}),
    "error-linked-width": linked_value_out_of_range,
    "error-background": refusal(EXPORT, {"background": "reddish"}),
    "error-single-files": refusal(LOADER, {"checkpoint": "single files"}),
    "error-guardrail": refusal(LOADER, {"guardrail": True}),
    "preview-mp4": preview("X264 (.mp4)"),
    "preview-mov": preview("PRORES4444 (.mov)"),
    "preview-gif": preview("GIF (.gif)"),
    "library": library,
    **{f"search-{words.replace(' ', '-')}": search(words) for words in ("text to video", "prores", "gif")},
}


def new_page(browser: Browser, server: ComfyUI, nodes2: bool) -> Page:
    server.request("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": nodes2, "Comfy.Minimap.Visible": False})
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(60_000)
    page.on("console", say_what_is_wrong)
    page.on("pageerror", lambda error: print(f"    page error: {error}", flush=True))
    page.goto(server.url)
    page.wait_for_function("window.app?.vueAppReady")
    page.evaluate(RECORD)
    return page


def say_what_is_wrong(message: ConsoleMessage) -> None:
    if message.type == "error" and "cosmos" in f"{message.text} {message.location.get('url')}".lower():
        print(f"    console: {message.text[:200]}", flush=True)


def take(browser: Browser, server: ComfyUI, frontend: str, names: list[str], folder: Path) -> None:
    for mode, nodes2 in MODES.items():
        for name in names:
            print(f"{frontend} {mode} {name}", flush=True)
            page = new_page(browser, server, nodes2)
            try:
                CASES[name](page)
            except Exception as error:
                print(f"    {error}", flush=True)
            page.screenshot(path=folder / f"{name}-{mode}-{frontend}.png")
            page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SCREENSHOTS)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), help="the pictures to take")
    parser.add_argument("--frontend", nargs="*", choices=("bundled", "newest"), default=("bundled", "newest"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = environment.comfyui_checkout() or environment.source_folder(environment.NEWEST)
    no_key = dict.fromkeys(("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"), "")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=environment.find_chromium(), args=CHROMIUM_ARGUMENTS)
        for frontend in options.frontend:
            chosen = ["--front-end-root", str(environment.fetch_frontend())] if frontend == "newest" else []
            with tempfile.TemporaryDirectory() as base:
                environ = {**no_key, "HOME": base}
                with ComfyUI(source, Path(base), environment.REPO, arguments=chosen, environ=environ) as server:
                    take(browser, server, frontend, options.only, options.folder)
        browser.close()


if __name__ == "__main__":
    os.environ.setdefault("COSMOS_PREDICT25_CHECKOUT", str(environment.REPO))
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"screenshots.py: {error}")
