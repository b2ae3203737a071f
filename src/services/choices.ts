import { setMaxListeners } from 'node:events'
import { EventQueue } from '../../engine/generate/event-queue.ts'
import type { AnswerEvent } from '../engine-host/protocol.ts'

/** An event of one of several answers. */
export interface ChoiceEvent {
  choice: number
  event: AnswerEvent
}

/** Answers of one request that are worked on at the same time, so that no request fills the queue alone. */
export const CONCURRENT_ANSWERS = 8

/** Begins one answer. */
export type Begin = (signal: AbortSignal) => AsyncIterable<AnswerEvent>

/**
 * Reads several answers at the same time, at most `concurrency` of them, and hands on their events as they come. When one
 * fails, all end with its error. To stop reading, or to abort `signal`, ends all.
 */
export async function* interleave(
  answers: readonly Begin[],
  concurrency: number,
  signal: AbortSignal,
): AsyncGenerator<ChoiceEvent, void, void> {
  const [only] = answers
  if (answers.length === 1) {
    for await (const event of only!(signal)) yield { choice: 0, event }
    return
  }
  const abort = new AbortController()
  setMaxListeners(0, abort.signal)
  const follow = () => abort.abort()
  if (signal.aborted) abort.abort()
  signal.addEventListener('abort', follow, { once: true })
  const queue = new EventQueue<ChoiceEvent>()
  let next = 0
  const work = async () => {
    while (next < answers.length) {
      const choice = next++
      for await (const event of answers[choice]!(abort.signal)) queue.push({ choice, event })
    }
  }
  const workers = Array.from({ length: Math.min(concurrency, answers.length) }, work)
  Promise.all(workers).then(
    () => queue.end(),
    (error) => {
      queue.fail(error)
      abort.abort()
    },
  )
  yield* queue.read(() => {
    signal.removeEventListener('abort', follow)
    abort.abort()
  })
}

/**
 * Holds events back until `count` answers have started, so that what is wrong with any of them is thrown before the
 * first event.
 */
export async function* afterStarts(
  events: AsyncIterable<ChoiceEvent>,
  count: number,
): AsyncGenerator<ChoiceEvent, void, void> {
  const held: ChoiceEvent[] = []
  let starts = 0
  for await (const item of events) {
    if (starts >= count) yield item
    else {
      held.push(item)
      if (item.event.type === 'start') starts++
      if (starts >= count) yield* held
    }
  }
}
