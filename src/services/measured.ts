import type { AnswerEvent, FinishEvent } from '../engine-host/protocol.ts'
import type { ModelEntry } from '../models/registry.ts'
import type { ServiceContext } from './context.ts'

type Observers = Pick<ServiceContext, 'metrics' | 'logger'>

/** Passes the events of one answer on, counts them, and logs its numbers: never its text. */
export async function* measured(
  observers: Observers,
  { id }: Pick<ModelEntry, 'id'>,
  events: AsyncIterable<AnswerEvent>,
): AsyncGenerator<AnswerEvent, void, void> {
  const { metrics } = observers
  const start = performance.now()
  const label = { model_name: id }
  let lastPart: number | undefined
  let started = false
  let finished = false
  try {
    for await (const event of events) {
      const now = performance.now()
      if (event.type === 'start') started = true
      else if (event.type === 'finish') {
        finished = true
        recordFinish(observers, id, event, (now - start) / 1000)
      } else {
        if (lastPart === undefined) metrics.timeToFirstToken.observe(label, (now - start) / 1000)
        else metrics.interTokenLatency.observe(label, (now - lastPart) / 1000)
        lastPart = now
      }
      yield event
    }
  } finally {
    // As vLLM counts it: a request whose client has gone, or that failed on the way.
    if (started && !finished) metrics.requestsSucceeded.inc({ ...label, finished_reason: 'abort' })
  }
}

function recordFinish({ metrics, logger }: Observers, model: string, event: FinishEvent, seconds: number) {
  const { promptTokens, completionTokens, cachedTokens, guessed, queuedMs } = event
  const label = { model_name: model }
  // vLLM knows no other reason for the end of a call than for that of a text.
  const reason = event.reason === 'length' ? 'length' : 'stop'
  metrics.promptTokens.inc(label, promptTokens)
  metrics.generationTokens.inc(label, completionTokens)
  metrics.prefixQueries.inc(label, promptTokens)
  metrics.prefixHits.inc(label, cachedTokens)
  if (guessed) {
    metrics.guessedTokens.inc(label, guessed.tokens)
    metrics.acceptedGuesses.inc(label, guessed.accepted)
  }
  metrics.requestsSucceeded.inc({ ...label, finished_reason: reason })
  metrics.requestLatency.observe(label, seconds)
  if (queuedMs !== undefined) metrics.queueTime.observe(label, queuedMs / 1000)
  logger.info({ model, reason, promptTokens, completionTokens, cachedTokens, queuedMs, seconds }, 'generated')
}
