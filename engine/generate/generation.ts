import { EngineError } from '../errors.ts'

/** What a reader gets whose signal was aborted. */
export function cancelledError(): EngineError {
  return new EngineError('cancelled', 'cancelled', 'The generation was cancelled.')
}
