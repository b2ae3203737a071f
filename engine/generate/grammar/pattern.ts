import { EngineError } from '../../errors.ts'
import { type CharacterSet, complement, isSingle, jsonCharacters, normalized } from './character-set.ts'

const DIGITS: CharacterSet = [[0x30, 0x39]]
const WORD: CharacterSet = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
]
const BLANKS: CharacterSet = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
]
/** Of these only line feed and return are left out of `.`: the grammar can leave out no single character beyond ASCII. */
const LINE_ENDS: CharacterSet = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
]
const CLASSES: Readonly<Record<string, CharacterSet>> = { d: DIGITS, w: WORD, s: BLANKS }
const CONTROLS: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, '0': 0 }
/**
 * The JSON strings that match a regular expression of JSON Schema (ECMA-262), as an expression of a grammar
 * (xgrammar's EBNF). Any text may stand where an expression has no anchor. Fewer strings than match may come out, never others:
 * characters beyond ASCII are left out where a set holds many of them, but not all. What JSON escapes is escaped, which the
 * library's own patterns do not do.
 *
 * @param pattern a valid expression. @throws EngineError invalid 'invalid_schema' naming what cannot be followed.
 */
export function patternGrammar(pattern: string, param: string): string {
  return `"\\"" (${new Parser(pattern, param, ANY_TEXT).parse()}) "\\""`
}

/**
 * Refuses an expression for names of properties that the library would not follow: those go into its grammar as they are.
 *
 * @throws EngineError invalid 'invalid_schema'.
 */
export function checkNamePattern(pattern: string, param: string): void {
  const isPlain = !/\\\\|\\U|\[\^/.test(new Parser(pattern, param, '""').parse())
  if (isPlain && !/[$^]/.test(pattern.slice(1, -1))) return
  const message = `${param} is an expression for names; only ASCII without quotes and anchors inside can be enforced there.`
  throw new EngineError('invalid', 'invalid_schema', message, { param })
}

/** Any characters of a JSON string. */
const ANY_TEXT = '([^\\x00-\\x1f\\x22\\x5c] | "\\\\" [\\x22\\x5cbfnrt])*'

class Parser {
  readonly #characters: string[]
  readonly #param: string
  /** What may stand before and after an expression without anchors. */
  readonly #around: string
  #at = 0

  constructor(pattern: string, param: string, around: string) {
    this.#around = around
    this.#characters = [...pattern]
    this.#param = param
  }

  parse(): string {
    const all = this.#alternatives(true)
    if (this.#at < this.#characters.length) throw this.#unsupported(`'${this.#characters[this.#at]}'`)
    return all
  }

  #alternatives(outermost: boolean): string {
    const found = [this.#sequence(outermost)]
    while (this.#take('|')) found.push(this.#sequence(outermost))
    return found.join(' | ')
  }

  #sequence(outermost: boolean): string {
    const parts: string[] = []
    if (outermost && !this.#takeAll('^')) parts.push(this.#around)
    for (let next = this.#peek(); next !== undefined && next !== '|' && next !== ')'; next = this.#peek()) {
      if (outermost && this.#endsHere()) return parts.length === 0 ? '""' : parts.join(' ')
      parts.push(this.#repeated(this.#atom()))
    }
    if (outermost) parts.push(this.#around)
    return parts.length === 0 ? '""' : parts.join(' ')
  }

  /** Anchors at the end of an alternative, which is the end of the text anyway. */
  #endsHere(): boolean {
    const start = this.#at
    if (this.#takeAll('$') && [undefined, '|'].includes(this.#peek())) return true
    this.#at = start
    return false
  }

  #atom(): string {
    const next = this.#next()
    switch (next) {
      case '^':
      case '$':
        throw this.#unsupported(`'${next}' in the middle`)
      case '.':
        return this.#set(complement(LINE_ENDS))
      case '[':
        return this.#set(this.#class())
      case '(':
        return this.#group()
      case '\\':
        return this.#set(this.#escape(false))
      default:
        return this.#set([[next.codePointAt(0)!, next.codePointAt(0)!]])
    }
  }

  #group(): string {
    if (this.#take('?')) {
      const kind = this.#next()
      if (kind === '<' && !['=', '!'].includes(this.#peek()!)) while (this.#next() !== '>') {}
      else if (kind !== ':') throw this.#unsupported('looking ahead or behind')
    }
    const inside = this.#alternatives(false)
    this.#next() // the closing one, as the expression is valid
    return `(${inside})`
  }

  #repeated(atom: string): string {
    const rest = this.#characters.slice(this.#at, this.#at + 24).join('')
    const [found, sign, low, comma, high] = /^(?:([*+?])|\{(\d+)(,?)(\d*)\})/.exec(rest) ?? []
    if (found === undefined) return atom
    this.#at += found.length
    this.#take('?') // how greedily it matches changes nothing in what matches
    if (sign !== undefined) return `(${atom})${sign}`
    const most = comma === '' ? low! : high!
    if (most !== '' && Number(most) === 0) return '""'
    return `(${atom}){${Number(low)},${most === '' ? '' : Number(most)}}`
  }

  #class(): CharacterSet {
    const isNegated = this.#take('^')
    const ranges: (readonly [number, number])[] = []
    while (!this.#take(']')) {
      const first = this.#member()
      const isRange = this.#peek() === '-' && this.#peek(1) !== ']' && isSingle(first)
      const members = [...first]
      if (isRange) {
        this.#next()
        const last = this.#member()
        // Beside a class such as \d the hyphen stands for itself.
        if (isSingle(last)) members.splice(0, 1, [first[0]![0], last[0]![0]])
        else members.push([0x2d, 0x2d], ...last)
      }
      ranges.push(...members)
    }
    return isNegated ? complement(normalized(ranges)) : normalized(ranges)
  }

  #member(): CharacterSet {
    const next = this.#next()
    if (next === '\\') return this.#escape(true)
    return [[next.codePointAt(0)!, next.codePointAt(0)!]]
  }

  #escape(inClass: boolean): CharacterSet {
    const next = this.#next()
    const lower = next.toLowerCase()
    if (CLASSES[lower]) return lower === next ? CLASSES[lower] : complement(CLASSES[lower])
    const single = (code: number): CharacterSet => [[code, code]]
    if (next === 'b' && inClass) return single(8)
    if (lower === 'b') throw this.#unsupported('a word boundary')
    if (lower === 'p') throw this.#unsupported(`\\${next}`)
    if (next === 'k' || /[1-9]/.test(next)) throw this.#unsupported('a reference to a group')
    if (next === 'c') return single(this.#next().codePointAt(0)! % 32)
    if (next in CONTROLS) return single(CONTROLS[next]!)
    if (next === 'x') return single(this.#hexadecimal(2))
    if (next === 'u') {
      if (!this.#take('{')) return single(this.#hexadecimal(4))
      let digits = ''
      while (!this.#take('}')) digits += this.#next()
      return single(Number.parseInt(digits, 16))
    }
    return single(next.codePointAt(0)!)
  }

  #hexadecimal(digits: number): number {
    const text = this.#characters.slice(this.#at, this.#at + digits).join('')
    this.#at += digits
    const code = Number.parseInt(text, 16)
    if (!/^[0-9a-f]+$/i.test(text) || (code >= 0xd800 && code <= 0xdfff)) {
      throw this.#unsupported(`the escape ${text}`)
    }
    return code
  }

  /** One character of a set. */
  #set(set: CharacterSet): string {
    const alternatives = jsonCharacters(set)
    if (alternatives.length === 0) throw this.#unsupported('a set of characters beyond ASCII')
    return alternatives.length === 1 ? alternatives[0]! : `(${alternatives.join(' | ')})`
  }

  #peek(ahead = 0): string | undefined {
    return this.#characters[this.#at + ahead]
  }

  #next(): string {
    const next = this.#characters[this.#at++]
    if (next === undefined) throw this.#unsupported('its end')
    return next
  }

  /** Whether there is at least one. */
  #takeAll(character: string): boolean {
    const start = this.#at
    while (this.#take(character)) {}
    return this.#at > start
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false
    this.#at++
    return true
  }

  #unsupported(what: string): EngineError {
    const message = `${this.#param} holds ${what}, which cannot be enforced; write the expression without it.`
    return new EngineError('invalid', 'invalid_schema', message, { param: this.#param })
  }
}
