import { EngineError } from '../errors.ts'

/** What a reader gets whose signal was aborted. */
export function cancelledError(): EngineError {
  return new EngineError('cancelled', 'cancelled', 'The generation was cancelled.')
}

/** What a reader gets whose request found no place; worth trying again a little later. */
export function queueFullError(waiting: number): EngineError {
  return new EngineError(
    'unavailable',
    'queue_full',
    `This model is busy and ${waiting} requests are waiting already; try again shortly.`,
  )
}
