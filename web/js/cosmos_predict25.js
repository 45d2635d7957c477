// Shows on the nodes what must stay when a job is over: their results, and why one refused to run.

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'
import { followLanguage, translated } from './language.js'

const RESULT = 'cosmos_predict25' // in a node's `ui` output, and an event of a node that is ComfyUI's own
const OURS = /^CosmosPredict25/ // types of nodes
const TELLING = /^(CosmosPredict25|CLIPTextEncode|TextEncode)/ // and of those that encode prompts
const OUR_ERROR = /^cosmos_predict25\./
const SAYING_OURS = /^(cosmos_predict25\.|ExecutionBlocked$)/ // the second: where an item of a list was refused
const REFUSED = 'custom_validation_failed' // by a node's own check of its inputs
const LOADER = 'CosmosPredict25Loader'
const PRELOAD = '/cosmos_predict25/preload' // nodes/host/preload.py
const NOTE = 'MarkdownNote'
const NO_OUTPUT = 'prompt_no_outputs'
const TEXT_WIDGET = '$$node-text-preview' // where ComfyUI shows a node's progress text
const [LINE, PADDING, HIGHEST, MARGINS] = [16, 16, 200, 20] // pixels of that text on the canvas
const SIDES = 70 // pixels of a node's width that its text does not get, a scroll bar's with them
// A letter of Chinese or Japanese, with the punctuation that cannot begin a line; a word; spaces.
const WORDS = /[\u3040-\u9fff][\u3001\u3002\u300d\u201d\uff01\uff09\uff0c\uff1a\uff1b\uff1f]*|[^\s\u3040-\u9fff]+\s*|\s+|^$/g
const ENDS = ['execution_success', 'execution_error', 'execution_interrupted']
const JOBS_READ = 50

/** Texts by node id. Newer frontends clear those of all nodes of a job when it ends, of cached ones too. */
const texts = new Map()
const refusing = new Set()
const toasts = new Set()

/** What was sent, by the job's id: the id of its workflow, and its nodes. */
const jobs = new Map()
let running // the job's id
let preloaded = false

// All that follow are niceties: a frontend without one of the names that they take loses that one and nothing else.

const root = () => app.rootGraph ?? app.graph

/** Of an id such as 5:3, node 3 in the subgraph 5. */
const nodeOf = (id) => id.split(':').reduce((node, part) => (node?.subgraph ?? node)?.getNodeById?.(part), root())

/** Jobs go on while another workflow is open, whose nodes may have the same ids. */
const isOpen = ({ prompt_id }) => [undefined, root()?.id].includes(jobs.get(prompt_id)?.workflow)

/** Whether the graph is on the screen that is open now, and not a form or another subgraph. */
const isOnCanvas = (node) => !node?.graph || !app.canvas?.graph || node.graph === app.canvas.graph
const isForm = () => {
  const workflow = app.extensionManager?.workflow?.activeWorkflow
  return (workflow?.activeMode ?? workflow?.initialMode) === 'app'
}

/** Puts `make` of a function of the frontend's in its place. No official hook does what the two that are changed do. */
function change(name, make) {
  if (typeof api[name] === 'function') api[name] = make(api[name])
}

function show(id, text) {
  const node = nodeOf(id)
  if (node && !TELLING.test(node.type)) return // the job is that of a workflow which is not shown now
  if (!isOnCanvas(node)) return
  const lines = wrapped(translated(text), node)
  // Two spaces, as Nodes 2.0 reads it as Markdown, where they end a line.
  api.dispatchCustomEvent?.('progress_text', { nodeId: id, text: lines.join('  \n'), [RESULT]: true })
  requestAnimationFrame(() => growToShow(nodeOf(id), lines.length))
}

/** Lines that fit a node. The frontend breaks those that do not between any two letters. */
function wrapped(text, node) {
  const pen = document.createElement('canvas').getContext('2d')
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`
  const fits = (line) => pen.measureText(line).width <= (node?.size?.[0] ?? Infinity) - SIDES
  return text.split('\n').flatMap((paragraph) =>
    paragraph.match(WORDS).reduce((lines, word) => {
      const longer = `${lines.at(-1) ?? ''}${word}`
      return lines.length && !fits(longer.trimEnd()) ? [...lines, word] : [...lines.slice(0, -1), longer]
    }, [])
  )
}

/** The classic canvas gives a node's text two lines, however long it is. */
function growToShow(node, lines) {
  if (!node || globalThis.LiteGraph?.vueNodesMode) return
  const widget = node.widgets?.find(({ name }) => name === TEXT_WIDGET)
  if (!widget?.options || !node.computeSize || !node.setSize) return
  const [width, height] = node.size
  widget.options.getMinHeight = () => Math.min(HIGHEST, Math.max(2, lines) * LINE + PADDING) + MARGINS
  node.setSize([width, Math.max(height, node.computeSize()[1])])
  node.setDirtyCanvas?.(true, true)
}

function hide(id) {
  const node = nodeOf(id)
  const widget = node?.widgets?.find(({ name }) => name === TEXT_WIDGET)
  if (widget) node.removeWidget?.(widget)
}

/** Keeps why a node refuses to run. A form shows no nodes, and a subgraph none of its own from outside. */
function refuse(id, message) {
  const text = `\u26a0 ${translated(message.trim())}`
  texts.set(id, text)
  refusing.add(id)
  if (isForm() || !isOnCanvas(nodeOf(id))) tell(nodeOf(id)?.title, text)
}

function tell(name = '', english) {
  const [title, text] = [name, english].map(translated)
  const toast = app.extensionManager?.toast
  const older = { severity: 'error', summary: title, detail: text }
  if (toast?.error) toasts.add(toast.error(title, { description: text }))
  else toasts.add(older) && toast?.add?.(older)
}

function takeBack(toast) {
  const { dismiss, remove } = app.extensionManager?.toast ?? {}
  dismiss ? dismiss(toast) : remove?.(toast)
}

function forgetRefusals() {
  for (const id of refusing) {
    hide(id)
    texts.delete(id)
  }
  refusing.clear()
  toasts.forEach(takeBack)
  toasts.clear()
}

function showAll() {
  setTimeout(() => texts.forEach((text, id) => show(id, text)))
}

/** A line of a job's progress goes to the node of its id, in whatever workflow is open. */
function clearOfOtherWorkflows({ detail }) {
  const id = String(detail.nodeId)
  if (detail[RESULT] || isOpen({ prompt_id: detail.prompt_id ?? running })) return
  setTimeout(() => (texts.has(id) ? show(id, texts.get(id)) : hide(id)))
}

/** A tab that was just opened knows nothing of what ComfyUI has kept of earlier runs. Its history does. */
async function recall({ nodes = [], prompt_id }) {
  const unknown = nodes.filter((id) => OURS.test(nodeOf(id)?.type) && !texts.has(id))
  if (!unknown.length || !api.fetchApi) return
  const answer = await api.fetchApi(`/history?max_items=${JOBS_READ}`)
  const past = Object.values(await answer.json()).reverse()
  const isSame = (id, [, , sent, { extra_pnginfo: extra } = {}]) =>
    extra?.workflow?.id === root()?.id &&
    JSON.stringify(sent?.[id]?.inputs) === JSON.stringify(jobs.get(prompt_id)?.nodes?.[id]?.inputs)
  for (const id of unknown) {
    const lines = past.find(({ outputs, prompt }) => outputs?.[id]?.[RESULT] && isSame(id, prompt))?.outputs[id][RESULT]
    if (lines?.length && isOpen({ prompt_id })) texts.set(id, lines.join('\n'))
  }
  showAll()
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
function listDemoFirstAndPaidLast(asListed) {
  const pack = decodeURIComponent(import.meta.url.match(/\/extensions\/([^/]+)\//)?.[1] ?? '')
  const rank = (name) => name.includes('on fal') - name.includes('(demo)')
  return async function (...options) {
    const templates = await asListed.apply(this, options)
    const ours = templates?.[pack]
    if (Array.isArray(ours)) ours.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    return templates
  }
}

/** Remembers what was sent, and tells why ComfyUI did not take it, or not all of it. */
function followJobs(queue) {
  return async function (number, prompt, ...options) {
    forgetRefusals()
    try {
      const answer = await queue.call(this, number, prompt, ...options)
      if (answer?.prompt_id) jobs.set(answer.prompt_id, { workflow: prompt?.workflow?.id, nodes: prompt?.output })
      readRefusals(answer)
      return answer
    } catch (error) {
      readRefusals(error?.response)
      throw error
    }
  }
}

function readRefusals(answer) {
  for (const [id, { class_type, errors }] of Object.entries(answer?.node_errors ?? {})) {
    const own = OURS.test(class_type) && errors?.find(({ type }) => type === REFUSED)
    if (!own) continue
    const input = `${own.extra_info?.input_name} - `
    const message = translated(own.details.replace(input, ''))
    own.details = `${input}${message}`
    refuse(id, message)
  }
  if (answer?.error?.type === NO_OUTPUT && root()?.nodes?.some(hasOurs))
    tell('Nothing saves the video', "Connect the output video to Export Video (Cosmos Predict2.5), and Run again.")
  if (refusing.size) showAll()
}

const hasOurs = (node) => OURS.test(node.type) || node.subgraph?.nodes?.some(hasOurs)

/** The frontend's own box of an error, and a node's progress. */
function sayInLanguage(dispatch) {
  return function (name, detail) {
    if (name === 'execution_error' && SAYING_OURS.test(detail.exception_type))
      detail = { ...detail, exception_message: translated(detail.exception_message) }
    if (name === 'progress_text' && !detail[RESULT] && TELLING.test(nodeOf(String(detail.nodeId))?.type))
      detail = { ...detail, text: translated(detail.text) }
    return dispatch.call(this, name, detail)
  }
}

/** A template of this pack is known by its notes, which become those of the user's language with its titles and labels. */
function sayTemplateInLanguage() {
  const nodes = root()?.nodes ?? []
  const texts = nodes.filter(({ type }) => type === NOTE).flatMap(({ widgets }) => widgets ?? [])
  if (!texts.some(({ value }) => translated(value) !== value)) return
  for (const text of texts) text.value = translated(text.value)
  for (const node of nodes) {
    node.title = translated(node.title ?? '')
    for (const slot of [...(node.inputs ?? []), ...(node.widgets ?? [])])
      if (slot.label) slot.label = translated(slot.label)
  }
}

change('dispatchCustomEvent', sayInLanguage)
change('getWorkflowTemplates', listDemoFirstAndPaidLast)
change('queuePrompt', followJobs)

/** A seed that changes after each run would have a job that is kept at fal sent, and paid for, again. */
function keepSeed(node) {
  const control = node.widgets?.find(({ name }) => name === 'control_after_generate')
  if (control) control.value = 'fixed'
}

/** The first run waits seconds for imports that ComfyUI can do while the page is read. */
function preload() {
  if (preloaded) return
  preloaded = true
  api.fetchApi?.(PRELOAD, { method: 'POST' })?.catch(() => {})
}

app.registerExtension({
  name: 'cosmospredict25.texts',

  async setup() {
    await followLanguage()
    api.addEventListener('execution_start', ({ detail }) => {
      running = detail.prompt_id
      if (isOpen(detail)) forgetRefusals()
    })
    api.addEventListener('progress_text', clearOfOtherWorkflows)
    api.addEventListener('execution_cached', ({ detail }) => {
      if (!isOpen(detail)) return
      for (const id of texts.keys()) if (!detail.nodes?.includes(id)) texts.delete(id)
      recall(detail)
    })
    for (const told of ['executed', RESULT])
      api.addEventListener(told, ({ detail }) => {
        const lines = detail.output?.[RESULT]
        if (!lines || !isOpen(detail)) return
        const id = String(detail.display_node ?? detail.node)
        if (!lines.length) return hide(id)
        texts.set(id, lines.join('\n'))
        show(id, lines.join('\n'))
      })
    api.addEventListener('execution_error', ({ detail }) => {
      if (OUR_ERROR.test(detail.exception_type) && isOpen(detail)) refuse(String(detail.node_id), detail.exception_message)
    })
    for (const end of ENDS) api.addEventListener(end, showAll)
  },

  afterConfigureGraph() {
    texts.clear()
    refusing.clear()
    sayTemplateInLanguage()
  },

  nodeCreated(node) {
    if (node.comfyClass === LOADER) preload()
    if (node.comfyClass === 'CosmosPredict25ExportVideo') showFpsForImagesOnly(node)
    if (node.comfyClass === 'CosmosPredict25SamplerSettings') keepSeed(node)
  },

  /** A job of the history was opened, or another workflow. */
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs ?? {}))
      if (output?.[RESULT]?.length) show(id, output[RESULT].join('\n'))
  }
})
