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
  let running = true
  const ended = () => {
    if (running) metrics.chatsRunning.dec()
    running = false
  }
  metrics.chatsRunning.inc()
  try {
    for await (const event of events) {
      const now = performance.now()
      if (event.type === 'finish') {
        ended() // a reader may not come back after the last event
        metrics.promptTokens.inc(label, event.promptTokens)
        metrics.generationTokens.inc(label, event.completionTokens)
        metrics.chatsSucceeded.inc({ ...label, finished_reason: event.reason })
        metrics.chatLatency.observe(label, (now - start) / 1000)
      } else if (event.type !== 'start') {
        if (lastPart === undefined) metrics.timeToFirstToken.observe(label, (now - start) / 1000)
        else metrics.interTokenLatency.observe(label, (now - lastPart) / 1000)
        lastPart = now
      }
      yield event
    }
  } finally {
    ended()
  }
}
