import { EngineError, messageOf } from '../../engine/errors.ts'
import type { JobFailure } from './types.ts'

/** An error in the form that a row keeps. */
export function failureOf(error: unknown): JobFailure {
  if (error instanceof EngineError) {
    return { kind: error.kind, code: error.code, message: error.message, param: error.param ?? null }
  }
  const message = messageOf(error)
  return { kind: 'internal', code: 'internal_error', message, param: null }
}
