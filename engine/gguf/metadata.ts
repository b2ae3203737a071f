import { EngineError } from '../errors.ts'
import { malformedGguf } from './cursor.ts'
import type { GgufScalar, GgufValue } from './header.ts'

/** The metadata of one file, read by key and type; a value of another type is an error that names the key. */
export class GgufMetadata {
  readonly path: string
  readonly #values: ReadonlyMap<string, GgufValue>

  constructor(path: string, values: ReadonlyMap<string, GgufValue>) {
    this.path = path
    this.#values = values
  }

  has(key: string): boolean {
    return this.#values.has(key)
  }

  text(key: string): string | undefined {
    return this.#typed(key, 'a text', (value) => typeof value === 'string')
  }

  flag(key: string): boolean | undefined {
    return this.#typed(key, 'true or false', (value) => typeof value === 'boolean')
  }

  /** A finite number. */
  number(key: string): number | undefined {
    return this.#typed(key, 'a number', (value) => typeof value === 'number' && Number.isFinite(value))
  }

  /** A whole number from `least` to `most`. */
  count(key: string, least = 1, most = 2 ** 31 - 1): number | undefined {
    const inRange = (value: GgufValue) =>
      typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most
    return this.#typed(key, `a whole number from ${least} to ${most}`, inRange)
  }

  texts(key: string): readonly string[] | undefined {
    return this.#list(key, 'a list of texts', (value) => typeof value === 'string')
  }

  numbers(key: string): readonly number[] | undefined {
    return this.#list(key, 'a list of numbers', (value) => typeof value === 'number')
  }

  /** A whole number, or a list of marks: truth values, or numbers of which 0 means no. */
  countOrMarks(key: string): number | readonly boolean[] {
    if (typeof this.#values.get(key) === 'number') return this.count(key)!
    const isMark = (value: GgufScalar) => typeof value === 'boolean' || typeof value === 'number'
    return (this.#list(key, 'a whole number or a list of marks', isMark) ?? []).map(Boolean)
  }

  /** The value that `read` found. @throws EngineError `invalid` when the key is missing. */
  require<T>(key: string, read: (key: string) => T | undefined): T {
    const value = read.call(this, key)
    if (value !== undefined) return value
    throw malformedGguf(this.path, `its metadata has no ${key}`)
  }

  /** The error for a value that is right in form but not read here. */
  unsupported(key: string, value: unknown, supported: string): EngineError {
    return new EngineError(
      'unsupported',
      'gguf_unsupported',
      `${this.path}: ${key} = ${JSON.stringify(value)} is not supported; ${supported}`,
    )
  }

  #typed<T extends GgufValue>(
    key: string,
    expected: string,
    matches: (value: GgufValue) => boolean,
  ): T | undefined {
    const value = this.#values.get(key)
    if (value === undefined || matches(value)) return value as T | undefined
    throw malformedGguf(this.path, `${key} is ${describe(value)}, not ${expected}`)
  }

  #list<T extends GgufScalar>(
    key: string,
    expected: string,
    matches: (value: GgufScalar) => boolean,
  ): readonly T[] | undefined {
    return this.#typed(key, expected, (value) => Array.isArray(value) && value.every(matches))
  }
}

function describe(value: GgufValue): string {
  if (Array.isArray(value)) return `a list of ${value.length} values`
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : String(value)
}
