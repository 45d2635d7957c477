// Says the nodes' sentences in the user's language. Python sends them in English, with their values filled in;
// messages/LANGUAGE.json has each sentence with {0}, {1}, ... for its values, and its translation.

import { app } from '../../../scripts/app.js'

const LANGUAGES = ['zh', 'zh-TW', 'ja', 'ko', 'fr', 'es', 'ru']
const SETTING = 'Comfy.Locale'
const VALUE = /\{\d\}/
const NUMBER = /\{(\d)\}/g
const BEGINS = /^[A-Z,;:(]/ // a sentence of its own, or one that follows another
const JOINT = /^[,;:(]/
const JOINTS = /[,;:(]/g
const ENDS = /[.!?:]$/
const AFTER_WHOLE = /^(?:$|[\s,.;:)])/
const AFTER_PART = /^(?:$|[,;)])/
const UNKNOWN = /^(?:[\s,;:(]+|.+?(?:[.!?:](?=\s)|(?=[,;(])|$))/ // up to where a sentence can begin
const ENGLISH_SPACE = /(?<=[\u3001\u3002\uff01-\uff1f]) +/g // behind Chinese and Japanese punctuation
const COST = 0.001 // of a letter before a sentence's first word: of two readings the shorter value wins

let sentences = []

/** Reads the sentences of the language that is set, now and whenever another one is chosen. */
export async function followLanguage() {
  app.ui?.settings?.addEventListener?.(`${SETTING}.change`, readLanguage)
  await readLanguage()
}

async function readLanguage() {
  const language = app.extensionManager?.setting?.get?.(SETTING)
  const answer = LANGUAGES.includes(language) && (await fetch(new URL(`../messages/${language}.json`, import.meta.url)))
  const found = answer?.ok ? Object.entries(await answer.json()) : []
  sentences = found.map(([english, translation]) => ({ parts: english.split(VALUE), translation }))
}

/** A text in the user's language. An unknown sentence stays as it is. */
export function translated(text) {
  if (!sentences.length) return text
  const known = new Map()
  const lines = text.split('\n').map((line) => read(line, known).text.replace(ENGLISH_SPACE, ''))
  return lines.join('\n')
}

/** The reading of a line that knows most of its letters. */
function read(line, known) {
  if (!line) return { letters: 0, text: '' }
  if (!known.has(line)) {
    const [unknown] = line.match(UNKNOWN)
    const ends = [...joints(line), line.length]
    const readings = sentences.flatMap(({ parts, translation }) =>
      (parts.at(-1) ? [line.length] : ends).map((end) => readAs(parts, translation, line, end, known)).filter(Boolean)
    )
    readings.push(followed({ letters: 0, text: unknown }, line.slice(unknown.length), known))
    known.set(line, readings.reduce((best, other) => (other.letters > best.letters ? other : best)))
  }
  return known.get(line)
}

/** Where sentences begin that follow another, such as ", step 3 of 35". */
function joints(line) {
  const followers = sentences.filter(({ parts }) => JOINT.test(parts[0]))
  return [...line.matchAll(JOINTS)]
    .map(({ index }) => index)
    .filter((index) => index && followers.some(({ parts }) => match(parts, line.slice(index))))
}

/** A reading of a line as a sentence that ends at `end` at the latest. */
function readAs(parts, translation, line, end, known) {
  const found = match(parts, line.slice(0, end))
  if (!found) return null
  const values = found.values.map((value) => read(value, known))
  const inValues = values.reduce((sum, { letters }) => sum + letters, 0)
  const before = parts[0] ? 0 : found.values[0].length
  const text = translation.replace(NUMBER, (_, number) => values[number].text)
  return followed({ letters: parts.join('').length + inValues - COST * before, text }, line.slice(found.end), known)
}

function followed({ letters, text }, rest, known) {
  const after = read(rest, known)
  return { letters: letters + after.letters, text: text + after.text }
}

/** The values of a sentence that `line` begins with, and where it ends. */
function match(parts, line) {
  if (!line.startsWith(parts[0])) return null
  const isWhole = BEGINS.test(parts[0]) || ENDS.test(parts.at(-1))
  const after = isWhole ? AFTER_WHOLE : AFTER_PART
  const fits = (at, part) => after.test(line.slice(at + part.length))
  const values = []
  let end = parts[0].length
  for (const [place, part] of parts.slice(1).entries()) {
    const isLast = place === parts.length - 2
    let at = isLast && !part ? line.length : line.indexOf(part, end) // a last value goes to the end of the line
    while (isLast && at >= 0 && !fits(at, part)) at = line.indexOf(part, at + 1)
    if (at < 0) return null
    values.push(line.slice(end, at))
    end = at + part.length
  }
  const isCut = !isWhole && !parts.at(-1) && ENDS.test(line) // a part of a sentence does not end it
  const isEmpty = !parts[0] && !values[0]
  return isCut || isEmpty || !fits(end, '') ? null : { values, end }
}
