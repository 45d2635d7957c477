"""Makes a picture of everything that a new user meets, in ComfyUI's own frontend, to be looked at one by one.

    .demo/env/bin/python scripts/screenshots.py [FOLDER] [--only NAME ...] [--frontend NAME ...] [--mode NAME ...]
    .demo/env/bin/python scripts/screenshots.py --help-pictures
    .demo/env/bin/python scripts/screenshots.py --readme

It opens and runs each shared workflow with the demo checkpoint, shows its form, provokes each refusal, and shows each
kind of preview, each subgraph, each search, each help page and all nodes in each language: on the classic canvas, with
Nodes 2.0 and in light, with the environment's frontend, the oldest and the newest one that is tested. It ends with 1
where the browser's console has an error of this pack. The pictures go to .demo/screenshots unless a folder is given;
--help-pictures makes those of the help pages anew, in web/docs, with the list of the sockets on them, and --readme
makes the README's, docs/graph.png.

A new workflow is opened and run, and a new node's help is shown, without a line here. A new refusal is a line in CASES.
"""

import argparse
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.frontend import (
    CHROMIUM_ARGUMENTS,
    FRAME,
    READY,
    RECORD,
    SCREENSHOTS,
    SETTINGS,
    SIDE_BY_SIDE,
    SOCKETS,
    open_template_browser,
    press_run,
    sockets_of,
    wait_for_end,
)

MODES = {
    "classic": {"Comfy.VueNodes.Enabled": False},
    "nodes2": {"Comfy.VueNodes.Enabled": True},
    "light": {"Comfy.VueNodes.Enabled": True, "Comfy.ColorPalette": "light"},
    "classic-light": {"Comfy.VueNodes.Enabled": False, "Comfy.ColorPalette": "light"},
}
FRONTENDS = {"bundled": None, "newest": environment.NEWEST_FRONTEND, "oldest": environment.OLDEST_FRONTEND}
HELP = environment.REPO / "web" / "docs"
README_PICTURE = environment.REPO / "docs" / "graph.png"
README_WIDTH = 1200
WORKFLOWS = sorted(file.stem for file in (environment.REPO / "workflows").glob("*.json"))
SUBGRAPHS = sorted(file.stem for file in (environment.REPO / "subgraphs").glob("*.json"))
LANGUAGES = ["en", *sorted(folder.name for folder in (environment.REPO / "locales").iterdir() if folder.is_dir())]
NODES = sorted(file.stem for file in HELP.glob("*.md"))
DEMO, LOCAL, FAL = (
    "Cosmos Text to Video (demo)",
    "NVIDIA Cosmos Text to Video (local)",
    "NVIDIA Cosmos Text to Video (on fal)",
)
EXTEND, CORE = "Cosmos Extend Video (local)", "Cosmos Text to Video (core nodes)"
PICTURED = (DEMO, "Cosmos Text to Video (LoRA)", CORE, EXTEND, FAL)
"""Workflows for the help pages: a node is shown as the first of them has it."""
SEARCHES = ["text to video", "image to video", "extend video", "save video", "prores", "gif"]
PROMPT, SAMPLER, LOADER = "CosmosPredict25Prompt", "CosmosPredict25SamplerSettings", "CosmosPredict25Loader"
WITH_DEMO = {kind: {"checkpoint": "Demo: moving shapes (CPU)"} for kind in (LOADER, "CosmosPredict25CheckpointLoader")}
"""What runs a workflow where NVIDIA's model is not at hand."""
EXPORT, GENERATE_FAL = "CosmosPredict25ExportVideo", "CosmosPredict25GenerateFal"
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
# A node of a type in an empty graph; returns the place of its title on the page.
ALONE = """(type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = [100, 100]
    app.canvas.ds.scale = 0.7
    app.canvas.ds.offset = [800, 300]
    app.canvas.draw(true, true)
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([160, 85])
    const canvas = app.canvas.canvas.getBoundingClientRect()
    return [canvas.x + x, canvas.y + y]
}"""
# Brings a node of a type into view, and returns its id, or null where there is none that is not muted.
SHOW = """(type) => {
    const node = app.graph.nodes.find((node) => node.type === type && !node.mode)
    if (!node) return null
    app.canvas.deselectAll()
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [-node.pos[0] + 300, -node.pos[1] + 100]
    app.canvas.draw(true, true)
    return node.id
}"""
# The cross of the error's box, which has no text.
DISMISS = """() => [...document.querySelectorAll('[data-testid=error-overlay] button')]
    .find((button) => !button.innerText.trim())?.click()"""
CLEAR_OF_MENUS = 120
"""Pixels between the page's corner and the graph's, so that no menu covers a node."""
MOVE = """(pixels) => {
    app.canvas.ds.offset = app.canvas.ds.offset.map((side) => side + pixels)
    app.canvas.draw(true, true)
}"""
# Returns when the only video shows the picture of its middle.
PAUSE = """() => {
    const video = document.querySelector('video')
    video.pause()
    video.controls = false
    const shown = new Promise((resolve) => video.addEventListener('seeked', resolve, { once: true }))
    video.currentTime = video.duration / 2
    return shown
}"""
DISCONNECT = """([type, input]) => {
    const node = app.graph.nodes.find((node) => node.type === type)
    node.disconnectInput(node.findInputSlot(input))
}"""


def open_workflow(page: Page, name: str) -> None:
    page.evaluate(LOAD, name)
    page.wait_for_timeout(1500)
    fit(page)


def fit(page: Page) -> None:
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


def template(name: str) -> Callable[[Page], None]:
    """As a person opens it, with the view that it comes with."""

    def show(page: Page) -> None:
        open_template_browser(page)
        page.get_by_test_id(f"template-workflow-{name}").click()
        page.get_by_role("dialog").wait_for(state="hidden")
        page.wait_for_timeout(2500)

    return show


def finished(name: str, **values: dict[str, Any]) -> Callable[[Page], None]:
    """`values`: by node type, those of its widgets that differ from the workflow's."""

    def show(page: Page) -> None:
        open_workflow(page, name)
        for kind, changed in {**WITH_DEMO, **values}.items():
            page.evaluate(SET, [kind, changed])
        run(page)

    return show


def refusal(kind: str, values: dict[str, Any], name: str = DEMO) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        open_workflow(page, name)
        page.evaluate(SET, [kind, values])
        refused(page)

    return show


def linked_value_out_of_range(page: Page) -> None:
    open_workflow(page, DEMO)
    page.evaluate(LINK, ["PrimitiveInt", {"value": 100}, SAMPLER, "width"])
    fit(page)
    refused(page)


def nothing_connected(page: Page) -> None:
    open_workflow(page, DEMO)
    page.evaluate(DISCONNECT, [EXPORT, "video"])
    refused(page)


def both_connected(page: Page) -> None:
    open_workflow(page, DEMO)
    page.evaluate(LINK, ["EmptyImage", {}, EXPORT, "images"])
    fit(page)
    refused(page)


def search(words: str) -> Callable[[Page], None]:
    """In the box that a double click on the canvas opens."""

    def show(page: Page) -> None:
        page.evaluate("app.graph.clear()")
        page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        page.wait_for_timeout(1000)
        page.keyboard.type(words, delay=30)
        page.wait_for_timeout(2000)

    return show


def library(words: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        page.evaluate("app.graph.clear()")
        page.get_by_role("button", name="Node Library").click()
        page.get_by_placeholder("Search").first.fill(words)
        page.wait_for_timeout(2000)

    return show


def form(name: str) -> Callable[[Page], None]:
    """A workflow in app mode."""

    def show(page: Page) -> None:
        open_workflow(page, name)
        page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
        page.wait_for_timeout(2000)
        tour = page.get_by_role("button", name="Skip")  # of the newest frontend
        if tour.count():
            tour.click()
        page.wait_for_timeout(1000)

    return show


def subgraph(name: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        search(name)(page)
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        page.mouse.click(700, 500)  # puts down the node, which hangs on the mouse
        fit(page)

    return show


def all_nodes(language: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        page.evaluate("(language) => app.extensionManager.setting.set('Comfy.Locale', language)", language)
        page.reload()
        page.wait_for_function(READY)
        page.evaluate(SIDE_BY_SIDE, NODES)
        fit(page)

    return show


def help_page(kind: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        title = page.evaluate(ALONE, kind)
        page.wait_for_timeout(1000)
        page.mouse.click(*title)
        page.wait_for_timeout(1000)
        # Not by the mouse: the oldest frontend has a warning of its own above them.
        page.get_by_role("button", name="Toggle properties panel").dispatch_event("click")
        page.get_by_role("tab", name="Info").dispatch_event("click")
        page.wait_for_timeout(2500)

    return show


def form_without_model(page: Page) -> None:
    form(LOCAL)(page)
    page.get_by_role("button", name="Run", exact=True).last.click()
    page.wait_for_timeout(2500)


def template_search(words: str) -> Callable[[Page], None]:
    def show(page: Page) -> None:
        page.get_by_role("button", name="Templates", exact=True).click()
        page.get_by_role("dialog").get_by_placeholder("Search").fill(words)
        page.wait_for_timeout(2500)

    return show


def templates(page: Page) -> None:
    open_template_browser(page)
    page.wait_for_timeout(2500)


CASES: dict[str, Callable[[Page], None]] = {
    "templates": templates,
    **{f"templates {words}": template_search(words) for words in ("cosmos", "nvidia")},
    **{f"open {name}": template(name) for name in WORKFLOWS},
    **{f"run {name}": finished(name) for name in WORKFLOWS},
    **{f"form {name}": form(name) for name in WORKFLOWS},
    **{f"subgraph {name}": subgraph(name) for name in SUBGRAPHS},
    **{f"all nodes {language}": all_nodes(language) for language in LANGUAGES},
    "form error no model": form_without_model,
    "error no model": refusal(LOADER, {}, LOCAL),
    "error no key": refusal(GENERATE_FAL, {}, FAL),
    "error endpoint": refusal(GENERATE_FAL, {"endpoint": "nonsense"}, FAL),
    "error blank prompt": refusal(PROMPT, {"prompt": " "}),
    "error nothing connected": nothing_connected,
    "error both connected": both_connected,
    "error width": refusal(SAMPLER, {"width": 100}),
    "error linked width": linked_value_out_of_range,
    "error background": refusal(EXPORT, {"background": "reddish"}),
    "error prefix": refusal(EXPORT, {"filename_prefix": "../cosmos"}),
    "error single files": refusal(LOADER, {"checkpoint": "single files"}),
    "error guardrail": refusal(LOADER, {"guardrail": True}),
    **{
        f"preview {format.split()[0]}": finished(DEMO, **{EXPORT: {"format": format}})
        for format in ("X264 (.mp4)", "VP9 (.webm)", "PRORES4444 (.mov)", "GIF (.gif)")
    },
    "note no shape": finished(DEMO, **{PROMPT: {"prompt": "A cat."}, SAMPLER: {"width": 128}}),
    "library": library("cosmos predict2.5"),
    **{f"library {words}": library(words) for words in SEARCHES},
    **{f"search {words}": search(words) for words in SEARCHES},
    **{f"help {kind}": help_page(kind) for kind in NODES},
}


ON_ONE_PAGE = ("run", "error", "preview", "note")
"""Cases that begin with a workflow and leave nothing else open: a page takes long to load."""


NOT_OURS = re.compile(r"api\.comfy\.org|docs/\w+/en\.md")
"""What the frontend asks for a node that failed, and for a help page before the one without a language."""


class Problems:
    """What the browser's console says of this pack."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.case = ""

    def watch(self, page: Page) -> None:
        page.on("console", self.read)
        page.on("pageerror", lambda error: self.found.append(f"{self.case}: {error}"))

    def read(self, message: ConsoleMessage) -> None:
        said = f"{message.text} {message.location.get('url')}"
        if message.type == "error" and "cosmos" in said.lower() and not NOT_OURS.search(said):
            self.found.append(f"{self.case}: {message.text[:200]}")


def new_page(browser: Browser, server: ComfyUI, mode: str, problems: Problems) -> Page:
    plain = {"Comfy.ColorPalette": "dark", "Comfy.Minimap.Visible": False, "Comfy.Locale": "en"}
    server.request("/settings", {**SETTINGS, **plain, **MODES[mode]})
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(300_000)  # a timeout only ends a hang
    problems.watch(page)
    page.goto(server.url)
    page.wait_for_function(READY)
    page.evaluate(RECORD)
    return page


def take(browser: Browser, server: ComfyUI, frontend: str, options: argparse.Namespace, problems: Problems) -> None:
    for mode in options.mode:
        page = new_page(browser, server, mode, problems)
        for name in options.only:
            where = f"{name} {mode} {frontend}"
            print(where, flush=True)
            problems.case = where
            try:
                CASES[name](page)
            except PlaywrightError as error:
                problems.found.append(f"{where}: {error}")
            page.mouse.move(700, 960)  # a canvas that nobody touches is not drawn again
            page.wait_for_timeout(300)
            page.screenshot(path=options.folder / f"{where}.png")
            if name.split()[0] in ON_ONE_PAGE:
                page.evaluate(DISMISS)
            elif name != options.only[-1]:
                page.close()
                page = new_page(browser, server, mode, problems)
        page.close()


def take_help_pictures(browser: Browser, server: ComfyUI) -> None:
    """Each node as it is in a workflow that has run, or alone. Also lists the sockets on the pictures."""
    page = new_page(browser, server, "nodes2", Problems())
    left = list(NODES)
    for name in PICTURED:
        open_workflow(page, name)
        for kind, changed in WITH_DEMO.items():
            page.evaluate(SET, [kind, changed])
        if name != FAL:
            run(page)
        left = [kind for kind in left if not take_help_picture(page, kind)]
    for kind in left:
        page.evaluate(ALONE, kind)
        take_help_picture(page, kind)
    page.close()
    infos = server.object_info()
    sockets = {kind: sockets_of(infos[kind]) for kind in NODES}
    SOCKETS.write_text(json.dumps(sockets, indent=2) + "\n", encoding="utf-8")


def take_help_picture(page: Page, kind: str) -> bool:
    """Return whether the open workflow has a node of this type, of which a picture was made."""
    place = page.evaluate(SHOW, kind)
    if place:
        page.wait_for_timeout(1500)
        save_picture(page.locator(f"[data-node-id='{place}']").first, HELP / f"{kind}.webp")
    return bool(place)


def take_readme_picture(browser: Browser, server: ComfyUI) -> None:
    """The demo's graph after its run, cut to its nodes, with the video where it is in the middle."""
    page = new_page(browser, server, "nodes2", Problems())
    page.set_viewport_size({"width": 1800, "height": 1500})
    template(DEMO)(page)
    run(page)
    page.wait_for_function("document.querySelector('video')?.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA")
    page.evaluate(PAUSE)
    place = page.evaluate(FRAME, 24)
    page.evaluate(MOVE, CLEAR_OF_MENUS)
    place["x"], place["y"] = place["x"] + CLEAR_OF_MENUS, place["y"] + CLEAR_OF_MENUS
    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.screenshot(clip=place))).convert("RGB")
    picture.thumbnail((README_WIDTH, picture.height))
    picture.save(README_PICTURE, optimize=True)
    page.close()
    print(f"Saved {README_PICTURE}", flush=True)


def save_picture(node: Locator, path: Path) -> None:
    picture = Image.open(io.BytesIO(node.screenshot()))
    picture.convert("RGB").save(path, quality=80, method=6)
    print(f"Saved {path}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SCREENSHOTS)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--frontend", nargs="*", choices=FRONTENDS, default=list(FRONTENDS))
    parser.add_argument("--mode", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--help-pictures", action="store_true")
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = environment.comfyui_checkout() or environment.source_folder(environment.NEWEST)
    no_key = dict.fromkeys(("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"), "")
    problems = Problems()
    of_documents = options.help_pictures or options.readme
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=environment.find_chromium(), args=CHROMIUM_ARGUMENTS)
        for frontend in ["bundled"] if of_documents else options.frontend:
            version = FRONTENDS[frontend]
            chosen = ["--front-end-root", str(environment.fetch_frontend(version))] if version else []
            chosen += ["--preview-method", "none"] if of_documents else []
            with tempfile.TemporaryDirectory() as base:
                environ = {**no_key, "HOME": base}
                with ComfyUI(source, Path(base), environment.REPO, arguments=chosen, environ=environ) as server:
                    if options.readme:
                        take_readme_picture(browser, server)
                    if options.help_pictures:
                        take_help_pictures(browser, server)
                    if not of_documents:
                        take(browser, server, frontend, options, problems)
        browser.close()
    if problems.found:
        sys.exit("\n".join(["screenshots.py found:", *problems.found]))


if __name__ == "__main__":
    os.environ.setdefault("COSMOS_PREDICT25_CHECKOUT", str(environment.REPO))
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"screenshots.py: {error}")
