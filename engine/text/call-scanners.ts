import { type CallPart, CallScanner, type Scanner } from './call-scanner.ts'
import { possibleBeginning } from './marks.ts'
import type { ToolFormat } from './tools.ts'

/** What reads one call of a format, from behind its opening mark on. */
export function newCallScanner(format: ToolFormat, isKnown: (name: string) => boolean): Scanner {
  if (format.plainCall !== undefined) return new PlainCallScanner(format.plainCall.beforeArguments, isKnown)
  if (format.elements !== undefined) return new ElementScanner(format, isKnown)
  return new CallScanner(isKnown)
}

/** A name, `beforeArguments` and the JSON of the arguments, which is handed on as it comes. */
class PlainCallScanner implements Scanner {
  readonly #separator: string
  readonly #isKnown: (name: string) => boolean
  /** Reads the arguments as if they stood in an object with the name. */
  #json: CallScanner | undefined
  raw = ''
  #failed = false

  constructor(beforeArguments: string, isKnown: (name: string) => boolean) {
    this.#separator = beforeArguments.trim()
    this.#isKnown = isKnown
  }

  get state(): 'open' | 'done' | 'failed' {
    if (this.#failed || this.#json?.state === 'failed') return 'failed'
    return this.#json?.state === 'done' ? 'done' : 'open'
  }

  end(): CallPart[] {
    return []
  }

  push(text: string): { parts: CallPart[]; rest: string } {
    if (this.#json !== undefined) return this.#arguments(text)
    this.raw += text
    const name = /^\s*([^\s]+)\s/.exec(this.raw)?.[1]
    if (name === undefined) return { parts: [], rest: '' }
    const rest = this.raw.slice(this.raw.indexOf(name) + name.length).trimStart()
    if (rest.length < this.#separator.length && this.#separator.startsWith(rest))
      return { parts: [], rest: '' }
    const json = rest.slice(this.#separator.length).trimStart()
    if (rest.startsWith(this.#separator) && json === '') return { parts: [], rest: '' }
    if (!rest.startsWith(this.#separator) || !json.startsWith('{') || !this.#isKnown(name)) {
      this.#failed = true
      return { parts: [], rest: '' }
    }
    this.raw = this.raw.slice(0, this.raw.length - json.length)
    this.#json = new CallScanner(() => true)
    const head = this.#json.push(`{"name": ${JSON.stringify(name)}, "arguments": `)
    const { parts, rest: behind } = this.#arguments(json)
    return { parts: [...head.parts, ...parts], rest: behind }
  }

  /** The arguments with the brace behind them that the text does not have. */
  #arguments(text: string): { parts: CallPart[]; rest: string } {
    const parts: CallPart[] = []
    for (let at = 0; at < text.length; at++) {
      parts.push(...this.#json!.push(text[at]!).parts)
      this.raw += text[at]
      if (!this.#json!.isInside) {
        this.#json!.push('}')
        return { parts: join(parts), rest: text.slice(at + 1) }
      }
    }
    return { parts: join(parts), rest: '' }
  }
}

/** Pieces of arguments as one. */
function join(parts: readonly CallPart[]): CallPart[] {
  const named = parts.filter((part) => 'name' in part)
  const text = parts.map((part) => ('arguments' in part ? part.arguments : '')).join('')
  return text === '' ? named : [...named, { arguments: text }]
}

const FUNCTION = /^\s*<function=\s*([^\s<>]+)\s*>?/
const PARAMETER = /<parameter=(.*?)>(.*?)<\/parameter>/gs
const LEADING_NAME = /^\s*([^\s<>]+)/
const ARGUMENT = /<arg_key>(.*?)<\/arg_key>\s*<arg_value>(.*?)<\/arg_value>/gs

/** A call whose arguments are elements: read when its closing mark or the answer's end is there. JSON is read as JSON. */
class ElementScanner implements Scanner {
  readonly #format: ToolFormat
  readonly #isKnown: (name: string) => boolean
  #json: CallScanner | undefined
  raw = ''
  state: 'open' | 'done' | 'failed' = 'open'

  constructor(format: ToolFormat, isKnown: (name: string) => boolean) {
    this.#format = format
    this.#isKnown = isKnown
  }

  push(text: string): { parts: CallPart[]; rest: string } {
    if (this.#json === undefined && (this.raw + text).trimStart().startsWith('{')) {
      this.#json = new CallScanner(this.#isKnown)
      return this.#pushJson(this.raw + text)
    }
    if (this.#json !== undefined) return this.#pushJson(text)
    this.raw += text
    const at = this.raw.indexOf(this.#format.closing)
    if (at < 0) return { parts: [], rest: '' }
    const rest = this.raw.slice(at)
    this.raw = this.raw.slice(0, at)
    const parts = this.#read()
    this.state = parts.length > 0 ? 'done' : 'failed'
    return { parts, rest }
  }

  end(): CallPart[] {
    const cut = possibleBeginning(this.raw, this.#format.closing)
    this.raw = this.raw.slice(0, this.raw.length - cut)
    return this.#json === undefined ? this.#read() : []
  }

  #pushJson(text: string): { parts: CallPart[]; rest: string } {
    const read = this.#json!.push(text)
    this.raw = this.#json!.raw
    this.state = this.#json!.state
    return read
  }

  #read(): CallPart[] {
    const isParameter = this.#format.elements === 'parameter'
    const name = (isParameter ? FUNCTION : LEADING_NAME).exec(this.raw)?.[1]
    if (name === undefined || !this.#isKnown(name)) return []
    const found = [...this.raw.matchAll(isParameter ? PARAMETER : ARGUMENT)]
    const values = Object.fromEntries(found.map(([, key, value]) => [key!.trim(), readValue(value!.trim())]))
    return [{ name }, { arguments: JSON.stringify(values) }]
  }
}

/** JSON where it is JSON, else text, as LLaMA-Factory reads such values. */
function readValue(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
