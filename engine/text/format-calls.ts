import { EngineError, messageOf } from '../errors.ts'
import { readJson } from './python-json.ts'
import { isJsonObject, type JsonObject } from './tokenizer-files.ts'
import type { WrittenCall } from './tool-words.ts'

/** A message that calls tools: what stands before the calls, and the calls. */
export interface CallMessage {
  before: string
  calls: WrittenCall[]
}

/** What calls may stand between in a row, beside the thought before them. */
const CALL_MARKS = ['<tool_call>', '</tool_call>'] as const

/**
 * Reads a row's function message as LLaMA-Factory does (data/formatter.py): the JSON of one call or a list of them, alone,
 * behind a thought, or between <tool_call> marks with any text around. Arguments that are JSON within a string count as
 * that JSON.
 * @throws EngineError `malformed_tool_call` when there is no such JSON.
 */
export function readCallMessage(
  content: string,
  thoughtWords: readonly [string, string] | undefined,
): CallMessage {
  const marked = thoughtWords === undefined ? undefined : between(content, CALL_MARKS)
  if (marked !== undefined) {
    return { before: content.replaceAll(marked.whole, ''), calls: readCalls(marked.inner) }
  }
  const thought = thoughtWords && between(content, thoughtWords)
  if (thought === undefined) return { before: '', calls: readCalls(content) }
  return { before: thought.whole, calls: readCalls(content.replaceAll(thought.whole, '')) }
}

/** The first passage between two marks, with them and without. */
function between(text: string, [open, close]: readonly [string, string]) {
  const start = text.indexOf(open)
  const end = start < 0 ? -1 : text.indexOf(close, start + open.length)
  if (end < 0) return undefined
  return { whole: text.slice(start, end + close.length), inner: text.slice(start + open.length, end) }
}

function readCalls(json: string): WrittenCall[] {
  const value = parse(json)
  const calls = (Array.isArray(value) ? value : [value]).map((call: unknown) => {
    if (!isJsonObject(call) || typeof call.name !== 'string' || call.arguments === undefined) {
      throw malformed(json, 'a call needs a name and arguments')
    }
    return { name: call.name, arguments: argumentsOf(call.arguments) }
  })
  if (calls.length === 0) throw malformed(json, 'it calls nothing')
  return calls
}

/** Arguments of a call, also where a client wrote them as JSON text. */
export function argumentsOf(given: unknown): unknown {
  if (typeof given !== 'string') return given
  try {
    return readJson(given)
  } catch {
    return given
  }
}

function parse(json: string): unknown {
  try {
    return readJson(json)
  } catch (cause) {
    throw malformed(json, messageOf(cause))
  }
}

const malformed = (json: string, reason: string) =>
  new EngineError(
    'invalid',
    'malformed_tool_call',
    `A message that calls tools must be JSON as in {"name": …, "arguments": {…}}: ${reason}: ${json.slice(0, 80)}`,
    { param: 'messages' },
  )

/**
 * The tools of a row or a request, a JSON list of objects or such a list itself.
 * @throws EngineError `malformed_tools`.
 */
export function readTools(given: string | readonly unknown[] | undefined): JsonObject[] {
  if (given === undefined || given === '') return []
  const text = typeof given === 'string' ? given : JSON.stringify(given)
  if (text.trim() === '') return []
  let value: unknown
  try {
    value = readJson(text)
  } catch (cause) {
    throw new EngineError(
      'invalid',
      'malformed_tools',
      `The tools are not valid JSON: ${text.slice(0, 80)}`,
      { param: 'tools', cause },
    )
  }
  const tools = Array.isArray(value) ? value : [value]
  if (tools.every(isJsonObject)) return tools
  throw new EngineError(
    'invalid',
    'malformed_tools',
    `Each tool must be a JSON object: ${text.slice(0, 80)}`,
    { param: 'tools' },
  )
}
