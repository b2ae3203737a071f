import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../errors.ts'
import { type SequenceDecoder, SequenceFeed } from './feed.ts'
import { type GenerationEvent, type GenerationRequest, Sequence } from './sequence.ts'

/** What a reader gets whose signal was aborted. */
export function cancelledError(): EngineError {
  return new EngineError('cancelled', 'cancelled', 'The generation was cancelled.')
}

/**
 * Answers one request with a decoder that nobody else uses meanwhile; several requests share one through Scheduler.
 * `signal` is looked at between steps.
 * @throws EngineError as Sequence's constructor does, before any work; cancelled when `signal` is aborted.
 */
export async function* generate(
  decoder: SequenceDecoder,
  request: GenerationRequest,
  signal?: AbortSignal,
): AsyncGenerator<GenerationEvent, void, void> {
  const sequence = new Sequence(decoder.maxPositions, request)
  const feed = new SequenceFeed(decoder, sequence)
  yield sequence.startEvent
  while (!sequence.finished) {
    if (signal?.aborted) throw cancelledError()
    const take = await feed.step()
    yield* take()
    await setImmediate() // forward blocks the event loop: let timers and messages in
  }
}
