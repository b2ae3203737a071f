import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError, messageOf } from '../errors.ts'

export type JsonObject = Record<string, unknown>

/** The special tokens that a tokenizer names, as strings; a token that the files leave out is undefined. */
export interface NamedTokens {
  bos?: string
  eos?: string
  pad?: string
  unk?: string
}

/** True for a plain JSON object (not null, not an array). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Reads a JSON object from `folder/name`.
 *
 * @returns undefined when the file does not exist.
 * @throws EngineError `malformed_file` naming the file when it cannot be read or is not a JSON object.
 */
export function readJsonObject(folder: string, name: string): JsonObject | undefined {
  const text = readTextFile(folder, name)
  if (text === undefined) return undefined
  const path = join(folder, name)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new EngineError('invalid', 'malformed_file', `${path} is not valid JSON: ${messageOf(cause)}`, {
      cause,
    })
  }
  if (!isJsonObject(value)) {
    throw new EngineError('invalid', 'malformed_file', `${path} must hold a JSON object.`)
  }
  return value
}

/** As readJsonObject, but a missing file is an EngineError `missing_file`. */
export function requireJsonObject(folder: string, name: string): JsonObject {
  const value = readJsonObject(folder, name)
  if (value === undefined) {
    throw new EngineError(
      'not_found',
      'missing_file',
      `${join(folder, name)} is missing; a model folder needs it for its tokenizer.`,
    )
  }
  return value
}

/** Reads `folder/name` as UTF-8, without a byte order mark; undefined when it does not exist. */
function readTextFile(folder: string, name: string): string | undefined {
  const path = join(folder, name)
  try {
    return readFileSync(path, 'utf8').replace(/^\uFEFF/, '')
  } catch (cause) {
    if (isMissing(cause)) return undefined
    throw new EngineError('invalid', 'malformed_file', `${path} cannot be read: ${messageOf(cause)}`, {
      cause,
    })
  }
}

/**
 * The names of the special tokens: tokenizer_config.json first, special_tokens_map.json where that says nothing. Both
 * write a token as a string or as an object with `content`.
 */
export function readNamedTokens(config: JsonObject, map: JsonObject | undefined): NamedTokens {
  const named = (key: string) => tokenContent(config[key]) ?? tokenContent(map?.[key])
  return {
    bos: named('bos_token'),
    eos: named('eos_token'),
    pad: named('pad_token'),
    unk: named('unk_token'),
  }
}

/** The text of a special token in any of its written forms. */
export function tokenContent(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (isJsonObject(value) && typeof value.content === 'string') return value.content
  return undefined
}

/**
 * The folder's chat template, in transformers' order: chat_template.jinja, chat_template.json, then `chat_template` of
 * tokenizer_config.json, which is a string or a list of {name, template} of which `default` is taken.
 */
export function readChatTemplate(folder: string, config: JsonObject): string | undefined {
  const jinja = readTextFile(folder, 'chat_template.jinja')
  if (jinja !== undefined) return jinja
  const inFile = readJsonObject(folder, 'chat_template.json')?.chat_template
  return templateText(inFile) ?? templateText(config.chat_template)
}

/** The `eos_token_id` of config.json and generation_config.json: a number, a list or nothing in each. */
export function readModelEosIds(folder: string): number[] {
  const ids: number[] = []
  for (const name of ['config.json', 'generation_config.json']) {
    const value = readJsonObject(folder, name)?.eos_token_id
    for (const id of Array.isArray(value) ? value : [value]) {
      if (typeof id === 'number' && Number.isInteger(id) && id >= 0) ids.push(id)
    }
  }
  return ids
}

function templateText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (Array.isArray(value)) {
    const entry = value.find((item) => isJsonObject(item) && item.name === 'default')
    return isJsonObject(entry) && typeof entry.template === 'string' ? entry.template : undefined
  }
  return isJsonObject(value) && typeof value.default === 'string' ? value.default : undefined
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}
