/** A tool call's parts as its JSON arrives: the name once, then the arguments' text piece by piece. */
export type CallPart = { name: string } | { arguments: string }

/** Reads one call out of growing text. */
export interface Scanner {
  /** Everything of this call so far. */
  readonly raw: string
  /** 'failed': this is no call, and `raw` is plain text. Never after the first part was handed out. */
  readonly state: 'open' | 'done' | 'failed'
  /** Takes more text; `rest` is what stands behind the end of the call. */
  push(text: string): { parts: CallPart[]; rest: string }
  /** What is still known of a call that ends with its answer. */
  end(): CallPart[]
}

/** The keys that a call's JSON may begin with. */
const KEYS = new Set(['name', 'arguments', 'parameters', 'type', 'id', 'function'])
const FIRST_KEY = /^\s*\{\s*"((?:[^"\\]|\\.)*)"/
const HEADER = /^\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/

/**
 * Reads one call {"name": …, "arguments": {…}} out of growing text. In this order of keys the arguments are handed on
 * as they come; any other valid form is read once it is whole.
 */
export class CallScanner implements Scanner {
  readonly #isKnown: (name: string) => boolean
  raw = ''
  #depth = 0
  #inString = false
  #escaped = false
  #streaming = false
  /** Depth at which the streamed arguments end; 0 once they have. */
  #argumentsEnd = 0
  #state: 'open' | 'done' | 'failed' = 'open'

  constructor(isKnown: (name: string) => boolean) {
    this.#isKnown = isKnown
  }

  get state(): 'open' | 'done' | 'failed' {
    return this.#state
  }

  end(): CallPart[] {
    return []
  }

  /** Whether the text so far ends within the arguments that are streamed. */
  get isInside(): boolean {
    return this.#argumentsEnd > 0
  }

  push(text: string): { parts: CallPart[]; rest: string } {
    const parts: CallPart[] = []
    let streamed = ''
    let at = 0
    for (; at < text.length && this.#state === 'open'; at++) {
      const character = text[at]!
      this.raw += character
      if (this.#argumentsEnd > 0) streamed += character
      this.#track(character)
      if (this.#argumentsEnd > 0 && this.#depth < this.#argumentsEnd) this.#argumentsEnd = 0
      else if (!this.#streaming && character === '{' && !this.#inString) this.#tryHeader(parts)
      if (this.#depth === 0 && this.raw.trim() !== '') this.#close(parts)
      else if (!this.#streaming && character === '"') this.#checkFirstKey()
    }
    if (streamed !== '') parts.push({ arguments: streamed })
    return { parts: order(parts), rest: text.slice(at) }
  }

  #track(character: string): void {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false
      else if (character === '\\') this.#escaped = true
      else if (character === '"') this.#inString = false
    } else if (character === '"') this.#inString = true
    else if (character === '{' || character === '[') this.#depth++
    else if (character === '}' || character === ']') this.#depth--
  }

  /** The object that has just opened may be the arguments. */
  #tryHeader(parts: CallPart[]): void {
    if (this.#depth !== 2) return
    const name = HEADER.exec(this.raw)?.[1]
    if (name === undefined || !HEADER.test(this.raw) || !isAllHeader(this.raw)) return
    const parsed = parseString(name)
    if (parsed === undefined || !this.#isKnown(parsed)) this.#state = 'failed'
    else {
      this.#streaming = true
      this.#argumentsEnd = this.#depth
      parts.push({ name: parsed }, { arguments: '{' })
    }
  }

  #checkFirstKey(): void {
    const key = FIRST_KEY.exec(this.raw)?.[1]
    if (key !== undefined && !KEYS.has(key)) this.#state = 'failed'
  }

  #close(parts: CallPart[]): void {
    this.#state = 'done'
    if (this.#streaming) return
    const call = readCall(this.raw)
    if (call === undefined || !this.#isKnown(call.name)) this.#state = 'failed'
    else parts.push({ name: call.name }, { arguments: call.arguments })
  }
}

/** Whether the header takes up everything but the brace that has just opened. */
function isAllHeader(raw: string): boolean {
  return raw.replace(HEADER, '') === '{'
}

/** Joins pieces of arguments that follow each other. */
function order(parts: CallPart[]): CallPart[] {
  const joined: CallPart[] = []
  for (const part of parts) {
    const last = joined.at(-1)
    if ('arguments' in part && last !== undefined && 'arguments' in last) last.arguments += part.arguments
    else joined.push(part)
  }
  return joined
}

/** A whole call in any order of keys, also as {"type": "function", "function": {…}}; arguments as JSON text. */
function readCall(text: string): { name: string; arguments: string } | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const outer = value as { function?: unknown } | null
  const inner = (typeof outer?.function === 'object' && outer.function !== null ? outer.function : outer) as {
    name?: unknown
    arguments?: unknown
    parameters?: unknown
  } | null
  if (typeof inner?.name !== 'string') return undefined
  const given = inner.arguments ?? inner.parameters ?? {}
  return { name: inner.name, arguments: typeof given === 'string' ? given : JSON.stringify(given) }
}

function parseString(inner: string): string | undefined {
  try {
    return JSON.parse(`"${inner}"`) as string
  } catch {
    return undefined
  }
}
