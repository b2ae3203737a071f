import type { CallPart, Scanner } from './call-scanner.ts'
import { newCallScanner } from './call-scanners.ts'
import { possibleBeginning } from './marks.ts'
import { ReasoningSplitter, type ReasoningStart } from './reasoning.ts'
import { newCallId, type ToolFormat } from './tools.ts'

/** A piece of an answer. `index` counts the calls of one answer. */
export type OutputPart =
  | { type: 'text'; text: string }
  | { type: 'reasoning'; text: string }
  | { type: 'tool_call'; index: number; id: string; name: string }
  | { type: 'tool_arguments'; index: number; text: string }

export interface OutputParserOptions {
  reasoning: ReasoningStart
  /** How calls are written; undefined where there are no tools, so that nothing is taken for a call. */
  tools?: { format: ToolFormat; names: readonly string[]; parallel: boolean }
}

/**
 * Parts an answer, while it grows, into text, reasoning and tool calls. What looks like a call and turns out to be none
 * comes out as text.
 */
export class OutputParser {
  readonly #reasoning: ReasoningSplitter
  readonly #calls: ToolCallParser | undefined

  constructor({ reasoning, tools }: OutputParserOptions) {
    this.#reasoning = new ReasoningSplitter(reasoning)
    this.#calls = tools && new ToolCallParser(tools)
  }

  /** Tool calls so far. */
  get calls(): number {
    return this.#calls?.count ?? 0
  }

  get thinking(): boolean {
    return this.#reasoning.thinking
  }

  push(text: string): OutputPart[] {
    return this.#parts(this.#reasoning.push(text))
  }

  /** What was held back, once no more can come. */
  end(): OutputPart[] {
    return [...this.#parts(this.#reasoning.end()), ...(this.#calls?.end() ?? [])]
  }

  #parts({ reasoning, answer }: { reasoning: string; answer: string }): OutputPart[] {
    const parts: OutputPart[] = reasoning === '' ? [] : [{ type: 'reasoning', text: reasoning }]
    if (answer === '') return parts
    return [...parts, ...(this.#calls?.push(answer) ?? [{ type: 'text' as const, text: answer }])]
  }
}

type State = 'begin' | 'text' | 'between' | 'call' | 'closing'

/** Finds the calls in an answer. */
class ToolCallParser {
  readonly #format: ToolFormat
  readonly #names: ReadonlySet<string>
  readonly #parallel: boolean
  #state: State
  #held = ''
  #scanner: Scanner
  count = 0

  constructor({ format, names, parallel }: NonNullable<OutputParserOptions['tools']>) {
    this.#format = format
    this.#names = new Set(names)
    this.#parallel = parallel
    this.#state = format.opening === '' ? 'begin' : 'text'
    this.#scanner = this.#newScanner()
  }

  push(text: string): OutputPart[] {
    this.#held += text
    const parts: OutputPart[] = []
    // Each step consumes held text or says that it needs more.
    while (this.#held !== '' && this.#step(parts)) {}
    return parts
  }

  end(): OutputPart[] {
    const parts: OutputPart[] = []
    if (this.#state === 'call' && !this.#named) this.#tell(this.#scanner.end(), parts)
    const text = this.#state === 'call' ? this.#scanner.raw + this.#held : this.#held
    const isRest =
      this.#state === 'text' || this.#state === 'begin' || (this.#state === 'call' && !this.#named)
    this.#held = ''
    if (parts.length > 0) return parts
    return isRest && text.trim() !== '' ? [{ type: 'text', text }] : []
  }

  #named = false

  #step(parts: OutputPart[]): boolean {
    switch (this.#state) {
      case 'begin':
        return this.#begin()
      case 'text':
        return this.#text(parts)
      case 'between':
        return this.#between()
      case 'call':
        return this.#call(parts)
      case 'closing':
        return this.#closing()
    }
  }

  /** An answer that begins with JSON, perhaps behind a mark, may be calls; else it is text to its end. */
  #begin(): boolean {
    const text = this.#held.trimStart()
    if (text === '') return false
    for (const mark of this.#format.markers) {
      if (text.startsWith(mark)) {
        this.#held = text.slice(mark.length)
        return true
      }
      if (mark.startsWith(text)) return false
    }
    if (this.#format.plainCall !== undefined) return this.#beginName(text)
    this.#state = text[0] === '{' || text[0] === '[' ? 'between' : 'text'
    return true
  }

  /** An answer that begins with a tool's name on a line. */
  #beginName(text: string): boolean {
    const heads = [...this.#names].map((name) => name + this.#format.plainCall!.beforeArguments)
    if (heads.some((head) => text.startsWith(head))) this.#state = 'between'
    else if (heads.some((head) => head.startsWith(text))) return false
    else this.#state = 'text'
    return true
  }

  #text(parts: OutputPart[]): boolean {
    const { opening } = this.#format
    const at = opening === '' ? -1 : this.#held.indexOf(opening)
    const safe =
      at >= 0 ? at : this.#held.length - (opening === '' ? 0 : possibleBeginning(this.#held, opening))
    const text = this.#held.slice(0, safe)
    this.#held = this.#held.slice(at >= 0 ? at + opening.length : safe)
    if (at >= 0) this.#state = 'between'
    // Blank space around calls is layout.
    if (text !== '' && !(this.count > 0 && text.trim() === '') && !(at >= 0 && text.trim() === '')) {
      parts.push({ type: 'text', text })
    }
    return at >= 0
  }

  /** Before a call: blank space, and the brackets and separators of a list. */
  #between(): boolean {
    const { plainCall, opening } = this.#format
    const isName = plainCall !== undefined && opening !== ''
    const text = isName ? this.#held : this.#held.replace(/^[\s[,;]+/, '')
    this.#held = text
    if (text === '') return false
    if (text.startsWith(']')) {
      this.#held = text.slice(1)
      this.#state = this.#format.opening === '' ? 'between' : 'text'
      return true
    }
    this.#scanner = this.#newScanner()
    this.#named = false
    this.#state = 'call'
    return true
  }

  #call(parts: OutputPart[]): boolean {
    const scanned = this.#scanner.push(this.#held)
    this.#held = scanned.rest
    this.#tell(scanned.parts, parts)
    if (this.#scanner.state === 'failed') this.#giveUp(parts)
    else if (this.#scanner.state === 'done') this.#state = this.#behindCall()
    return this.#scanner.state !== 'open'
  }

  #behindCall(): State {
    const { opening, closing, list } = this.#format
    if (closing !== '') return 'closing'
    return list || opening === '' ? 'between' : 'text'
  }

  /** Hands on what was read of a call. */
  #tell(read: readonly CallPart[], parts: OutputPart[]): void {
    const isExtra = !this.#parallel && this.count - (this.#named ? 1 : 0) >= 1
    for (const part of read) {
      if ('name' in part) {
        this.#named = true
        if (isExtra) continue
        parts.push({ type: 'tool_call', index: this.count++, id: newCallId(this.#format), name: part.name })
      } else if (!isExtra) {
        parts.push({ type: 'tool_arguments', index: this.count - 1, text: part.arguments })
      }
    }
  }

  /** This was no call: it is text, with the mark before it. */
  #giveUp(parts: OutputPart[]): void {
    parts.push({ type: 'text', text: this.#format.opening + this.#scanner.raw })
    this.#state = 'text'
  }

  #closing(): boolean {
    const text = this.#held.trimStart()
    const { closing } = this.#format
    if (closing.startsWith(text) && text !== closing) return false
    this.#held = text.startsWith(closing) ? text.slice(closing.length) : text
    this.#state = 'text'
    return true
  }

  #newScanner(): Scanner {
    // A marked call is one whatever its name; bare JSON with a name may be an ordinary answer.
    const marked = this.#format.opening !== ''
    return newCallScanner(this.#format, (name) => marked || this.#names.has(name))
  }
}
