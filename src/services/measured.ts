import type { AnswerEvent } from '../engine-host/protocol.ts'
import type { ModelEntry } from '../models/registry.ts'
import type { ServiceContext } from './context.ts'

/** Passes the events of one answer on and counts them. */
export async function* measured(
  { metrics }: Pick<ServiceContext, 'metrics'>,
  { id }: Pick<ModelEntry, 'id'>,
  events: AsyncIterable<AnswerEvent>,
): AsyncGenerator<AnswerEvent, void, void> {
  const start = performance.now()
  const label = { model_name: id }
  let lastPart: number | undefined
  let started = false
  let finished = false
  try {
    for await (const event of events) {
      const now = performance.now()
      if (event.type === 'finish') {
        finished = true
        const reason = event.reason === 'length' ? 'length' : 'stop'
        metrics.promptTokens.inc(label, event.promptTokens)
        metrics.generationTokens.inc(label, event.completionTokens)
        metrics.prefixQueries.inc(label, event.promptTokens)
        metrics.prefixHits.inc(label, event.cachedTokens)
        metrics.requestsSucceeded.inc({ ...label, finished_reason: reason })
        metrics.requestLatency.observe(label, (now - start) / 1000)
        if (event.queuedMs !== undefined) metrics.queueTime.observe(label, event.queuedMs / 1000)
      } else if (event.type === 'start') started = true
      else {
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
