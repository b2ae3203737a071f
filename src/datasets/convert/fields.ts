import type { Row } from '../readers/index.ts'
import { typeName } from '../type-name.ts'
import { RowError } from './row-error.ts'

/**
 * The text under a column. Absent, null or unnamed columns give undefined.
 * @throws RowError when it is something else than text.
 */
export function textField(row: Row, column: string | null): string | undefined {
  const value = column === null ? undefined : row[column]
  if (value === undefined || value === null) return undefined
  return wellFormed(value, `\`${column}\``)
}

/** `value`, where it is text. @throws RowError that calls it `what`. */
export function wellFormed(value: unknown, what: string): string {
  if (typeof value !== 'string') throw new RowError(`${what} must be text, not ${typeName(value)}`)
  // Tokenizers read UTF-8, which has no halves of a character.
  if (/\p{Surrogate}/u.test(value))
    throw new RowError(`${what} holds half of a surrogate pair, which is no text`)
  return value
}

/** The tools of a row as JSON text; a list or an object is written as JSON. @throws RowError for other text. */
export function toolsField(row: Row, column: string | null): string | undefined {
  const value = column === null ? undefined : row[column]
  if (value === undefined || value === null) return undefined
  const text = typeof value === 'string' ? wellFormed(value, `\`${column}\``) : JSON.stringify(value)
  if (text.trim() === '') return undefined
  const tools = [parseJson(text)].flat()
  if (tools.every((tool) => typeof tool === 'object' && tool !== null)) return text
  throw new RowError(`\`${column}\` must be a list of tools as JSON, not ${text.slice(0, 80)}`)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** `undefined` for an empty text, which stands for no system message. */
export function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
}
