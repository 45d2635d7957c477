// Shows on the nodes what must stay when a job is over: their results, and why one refused to run.

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'

const RESULT = 'cosmos_predict25' // in a node's `ui` output
const OUR_ERROR = /^cosmos_predict25\./
const TEXT_WIDGET = '$$node-text-preview' // where ComfyUI shows a node's progress text
const [LETTER, LINE] = [7.5, 18] // pixels on the canvas at most
const ENDS = ['execution_success', 'execution_error', 'execution_interrupted']

/** Texts by node id. Newer frontends clear those of all nodes of a job when it ends, of cached ones too. */
const texts = new Map()
const refusing = new Set()

/** The id of the workflow that a job is of, by the job's id. */
const workflows = new Map()

// All that follows are niceties: a frontend without one of the names that they take loses that one and nothing else.

const root = () => app.rootGraph ?? app.graph

/** Of an id such as 5:3, node 3 in the subgraph 5. */
const nodeOf = (id) => id.split(':').reduce((node, part) => (node?.subgraph ?? node)?.getNodeById?.(part), root())

/** Jobs go on while another workflow is open, whose nodes have the same ids. */
const isOpen = ({ prompt_id }) => [undefined, root()?.id].includes(workflows.get(prompt_id))

/** Puts `make` of a function of the frontend's in its place. No official hook does what the two that are changed do. */
function change(name, make) {
  if (typeof api[name] === 'function') api[name] = make(api[name])
}

function show(id, text) {
  const node = nodeOf(id)
  if (node && !node.type?.startsWith('CosmosPredict25')) return // the job is that of a workflow which is not shown now
  api.dispatchCustomEvent?.('progress_text', { nodeId: id, text })
  requestAnimationFrame(() => growToShow(nodeOf(id), text))
}

/** The classic canvas gives a node's text two lines, however long it is. */
function growToShow(node, text) {
  if (!node || globalThis.LiteGraph?.vueNodesMode) return
  const widget = node.widgets?.find(({ name }) => name === TEXT_WIDGET)
  if (!widget?.options || !node.computeSize || !node.setSize) return
  const [width, height] = node.size
  const lines = text.split('\n').reduce((sum, line) => sum + Math.ceil(line.length / (width / LETTER)), 0)
  widget.options.getMinHeight = () => Math.max(2, lines) * LINE + LINE
  node.setSize([width, Math.max(height, node.computeSize()[1])])
  node.setDirtyCanvas?.(true, true)
}

function hide(id) {
  const node = nodeOf(id)
  const widget = node?.widgets?.find(({ name }) => name === TEXT_WIDGET)
  if (widget) node.removeWidget?.(widget)
}

function forgetRefusals() {
  refusing.forEach(hide)
  refusing.clear()
}

function showFpsForImagesOnly(node) {
  const fps = node.widgets?.find(({ name }) => name === 'fps')
  const images = () => node.inputs?.find(({ name }) => name === 'images')
  if (!fps?.options || !images()) return
  const update = () => {
    fps.hidden = fps.options.hidden = images()?.link == null
    node.setDirtyCanvas?.(true, true)
  }
  const before = node.onConnectionsChange
  node.onConnectionsChange = function (...change) {
    before?.apply(this, change)
    update()
  }
  update()
}

/** ComfyUI lists the templates as the disk does, which can be the one that costs money first. */
function listPaidTemplatesLast(asListed) {
  const pack = decodeURIComponent(import.meta.url.match(/\/extensions\/([^/]+)\//)?.[1] ?? '')
  const isPaid = (name) => name.includes('on fal')
  return async function (...options) {
    const templates = await asListed.apply(this, options)
    const ours = templates?.[pack]
    if (Array.isArray(ours)) ours.sort((a, b) => isPaid(a) - isPaid(b) || a.localeCompare(b))
    return templates
  }
}

function rememberWorkflows(queue) {
  return async function (number, prompt, ...options) {
    const answer = await queue.call(this, number, prompt, ...options)
    if (answer?.prompt_id) workflows.set(answer.prompt_id, prompt?.workflow?.id)
    return answer
  }
}

change('getWorkflowTemplates', listPaidTemplatesLast)
change('queuePrompt', rememberWorkflows)

/** A seed that changes after each run would have a job that is kept at fal sent, and paid for, again. */
function keepSeed(node) {
  const control = node.widgets?.find(({ name }) => name === 'control_after_generate')
  if (control) control.value = 'fixed'
}

app.registerExtension({
  name: 'cosmospredict25.texts',

  setup() {
    api.addEventListener('execution_start', forgetRefusals)
    api.addEventListener('execution_cached', ({ detail }) => {
      if (isOpen(detail)) for (const id of texts.keys()) if (!detail.nodes?.includes(id)) texts.delete(id)
    })
    api.addEventListener('executed', ({ detail }) => {
      const lines = detail.output?.[RESULT]
      if (!lines || !isOpen(detail)) return
      const id = String(detail.display_node ?? detail.node)
      if (!lines.length) return hide(id)
      texts.set(id, lines.join('\n'))
      show(id, lines.join('\n'))
    })
    api.addEventListener('execution_error', ({ detail }) => {
      if (!OUR_ERROR.test(detail.exception_type) || !isOpen(detail)) return
      texts.set(String(detail.node_id), detail.exception_message.trim().replace(/(.{1,44})(?:\s|$)/g, '$1\n').trim())
      refusing.add(String(detail.node_id))
    })
    for (const end of ENDS)
      api.addEventListener(end, () => setTimeout(() => texts.forEach((text, id) => show(id, text))))
  },

  afterConfigureGraph() {
    texts.clear()
    refusing.clear()
  },

  nodeCreated(node) {
    if (node.comfyClass === 'CosmosPredict25ExportVideo') showFpsForImagesOnly(node)
    if (node.comfyClass === 'CosmosPredict25SamplerSettings') keepSeed(node)
  },

  /** A job of the history was opened, or another workflow. */
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs ?? {}))
      if (output?.[RESULT]?.length) show(id, output[RESULT].join('\n'))
  }
})
