"""What web/js takes from ComfyUI's frontend: without a name of it one nicety is gone, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

REPO = Path(__file__).resolve().parents[1]
ORIGIN = "http://frontend.test"
PACK = f"{ORIGIN}/extensions/cosmos-predict25"
API = """
class Api extends EventTarget {
    sent = []
    addEventListener(name, listener) { super.addEventListener(name, listener) }
    dispatchCustomEvent(name, detail) { this.sent.push([name, detail]) }
    async getWorkflowTemplates() {
        return { 'cosmos-predict25': ['A (on fal)', 'C', 'B'], another: ['B (on fal)', 'A'] }
    }
    async queuePrompt(number, prompt) { return { prompt_id: 'a-job' } }
}
export const api = new Api()
"""
APP = """
import { api } from './api.js'
const widget = (name) => ({ name, value: 'randomize', options: {} })
const text = { name: '$$node-text-preview', options: {} }
const node = (id, type, ...names) => ({
    id, type, comfyClass: type, size: [300, 100], widgets: [...names.map(widget), text],
    inputs: [{ name: 'images', link: null }],
    computeSize: () => [300, 400], setSize(size) { this.size = size }, setDirtyCanvas() {},
    removeWidget(gone) { this.widgets = this.widgets.filter((each) => each !== gone) }
})
const nodes = {
    1: node(1, 'CosmosPredict25ExportVideo', 'fps'),
    2: node(2, 'CosmosPredict25SamplerSettings', 'control_after_generate')
}
const graph = { id: 'a-graph', getNodeById: (id) => nodes[id] }
const setting = { get: () => 'zh' }
const settings = new EventTarget()
export const app = {
    api, nodes, rootGraph: graph, graph, extensionManager: { setting }, ui: { settings },
    registerExtension(extension) { this.extension = extension }
}
globalThis.LiteGraph = { vueNodesMode: false }
"""
NAMES = {
    "api.queuePrompt": {},
    "api.getWorkflowTemplates": {"templates": None},
    "api.dispatchCustomEvent": {"shown": None},
    "app.rootGraph": {},
    "app.ui": {},
    "app.extensionManager": {"shown": "Seed: 5."},
    "app.extensionManager.setting": {"shown": "Seed: 5."},
    "LiteGraph": {},
    "LiteGraph.vueNodesMode": {},
    "app.nodes[1].setDirtyCanvas": {},
    "app.nodes[1].removeWidget": {},
    "app.nodes[1].computeSize": {"height": 100},
    "app.nodes[1].setSize": {"height": 100},
    "app.nodes[1].inputs": {"fps hidden": False},
    "app.nodes[1].widgets": {"fps hidden": False, "height": 100},
    "app.nodes[1].widgets[0].options": {"fps hidden": False},
    "app.nodes[1].widgets[1].options": {"height": 100},
    "app.nodes[2].widgets": {"seed": None},
    "": {},
}
"""Each name, and what of `ALL` is lost without it."""
ALL = {
    "templates": ["B", "C", "A (on fal)"],
    "job": "a-job",
    "shown": "\u79cd\u5b50\uff1a5\u3002",
    "seed": "fixed",
    "fps hidden": True,
}
ALL |= {"height": 400}
USE = """async (name) => {
    const { app } = await import('/scripts/app.js')
    const { api } = await import('/scripts/api.js')
    const scope = { app, api, LiteGraph: globalThis.LiteGraph }
    const errors = []
    globalThis.addEventListener('error', ({ message }) => errors.push(message))
    globalThis.addEventListener('unhandledrejection', ({ reason }) => errors.push(String(reason)))
    const fps = app.nodes[1].widgets[0], seed = app.nodes[2].widgets[0]
    if (name === 'LiteGraph') delete globalThis.LiteGraph
    else if (name.startsWith('api.')) Object.defineProperty(api, name.slice(4), { value: undefined, writable: true })
    else if (name) new Function('scope', `with (scope) { ${name} = undefined }`)(scope)
    await import('/extensions/cosmos-predict25/js/cosmos_predict25.js')
    const { extension } = app
    await extension.setup()
    extension.nodeCreated(app.nodes[1])
    extension.nodeCreated(app.nodes[2])
    extension.afterConfigureGraph()
    const job = (await api.queuePrompt?.(0, { workflow: { id: 'a-graph' } }))?.prompt_id ?? 'a-job'
    const send = (event, detail) => api.dispatchEvent(new CustomEvent(event, { detail: { prompt_id: job, ...detail } }))
    send('execution_start')
    send('execution_cached', { nodes: [] })
    send('executed', { node: '1', output: { cosmos_predict25: ['Seed: 5.'] } })
    send('execution_success')
    extension.onNodeOutputsUpdated({ 1: { cosmos_predict25: ['Seed: 5.'] } })
    await new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done))))
    const height = app.nodes[1].size[1]
    send('execution_error', { node_id: 1, exception_type: 'cosmos_predict25.Error', exception_message: 'No.' })
    send('execution_start')
    return {
        errors, job, height,
        templates: (await api.getWorkflowTemplates?.())?.['cosmos-predict25'] ?? null,
        shown: api.sent.find(([event]) => event === 'progress_text')?.[1].text ?? null,
        seed: app.nodes[2].widgets ? seed.value : null,
        'fps hidden': fps.hidden ?? false
    }
}"""


def serve(route: Route) -> None:
    files = {
        f"{ORIGIN}/": "<!doctype html>",
        f"{ORIGIN}/scripts/api.js": API,
        f"{ORIGIN}/scripts/app.js": APP,
    }
    path = route.request.url.removeprefix(PACK)
    kind = "text/html" if path.endswith("/") else "text/javascript"
    body = files.get(path) or (REPO / "web" / path[1:]).read_text(encoding="utf-8")
    route.fulfill(body=body, content_type=kind)


@pytest.fixture
def empty_page(browser: Browser):
    page: Page = browser.new_page()
    page.route("**/*", serve)
    page.goto(f"{ORIGIN}/")
    yield page
    page.close()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name or "nothing")
def test_a_frontend_without(empty_page: Page, name: str) -> None:
    found: dict[str, Any] = empty_page.evaluate(USE, name)
    assert found == {"errors": [], **ALL, **NAMES[name]}
