"""Makes the workflows, their thumbnails and the subgraphs anew, with the newest frontend in a headless browser.

    .demo/env/bin/python scripts/save_workflows.py

Run it before a release, after scripts/test, which installs all that it needs. It builds each graph on the canvas of a
running ComfyUI and saves what the frontend exports.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI
from cosmos_predict25.devtools.frontend import READY
from cosmos_predict25.scripts.templates.canvas import SUBGRAPHS, WORKFLOWS, save, save_subgraph
from cosmos_predict25.scripts.templates.cards import save_card, save_registry_pictures
from cosmos_predict25.scripts.templates.graphs import BLUEPRINTS, GRAPHS

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.PromptFilename": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}


def main() -> None:
    source = environment.comfyui_checkout() or environment.source_folder(environment.NEWEST)
    # The newest frontend saves widgets' values by name too.
    newest = ["--front-end-root", str(environment.fetch_frontend())]
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyUI(source, Path(base), environment.REPO, arguments=newest) as server,
    ):
        server.request("/settings", SETTINGS)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=environment.find_chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1800, "height": 1400})
            page.goto(server.url)
            page.wait_for_function(READY)
            for name in GRAPHS:
                save(page, name)
                save_card(server, browser, name)
                print(f"Saved {WORKFLOWS / name}.json and .jpg")
            for name in BLUEPRINTS:
                save_subgraph(page, name)
                print(f"Saved {SUBGRAPHS / name}.json")
            save_registry_pictures(browser)
            browser.close()


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"save_workflows.py: {error}")
