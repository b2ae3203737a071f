import type { Row } from '../readers/index.ts'
import { RowError } from './row-error.ts'

/**
 * The text under a column. Absent, null or unnamed columns give undefined.
 * @throws RowError when it is something else than text.
 */
export function textField(row: Row, column: string | null): string | undefined {
  const value = column === null ? undefined : row[column]
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw new RowError(`\`${column}\` must be text, not ${typeName(value)}`)
  return value
}

/** The tools of a row as JSON text; a list or an object is written as JSON. */
export function toolsField(row: Row, column: string | null): string | undefined {
  const value = column === null ? undefined : row[column]
  if (value === undefined || value === null || value === '') return undefined
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** `undefined` for an empty text, which stands for no system message. */
export function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
}

/** A value's type in words. */
export function typeName(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'a list' : `a ${typeof value}`
}
