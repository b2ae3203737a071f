import { EngineError } from '../../engine/errors.ts'

/** A mark of rows whose text is longer than the model can read: they are counted, and the evaluation goes on. */
export interface TooLong {
  too_long?: true
}

/** Another result in place of work that fails because its text is too long. */
export async function unlessTooLong<T extends TooLong>(work: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (error instanceof EngineError && error.code === 'context_length_exceeded') return otherwise
    throw error
  }
}

/** How many rows were too long, under a metric's name; nothing where none was. */
export function tooLongMetric(name: string, rows: readonly TooLong[]): Record<string, number> {
  const count = rows.filter(({ too_long: isTooLong }) => isTooLong).length
  return count > 0 ? { [name]: count } : {}
}
