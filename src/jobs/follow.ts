import { EngineError } from '../../engine/errors.ts'
import type { JobQueue } from './queue.ts'
import { isTerminal, type JobEventRow } from './types.ts'

/** How soon events of a job that another process runs are seen. */
const POLL_MS = 500

const PAGE = 500

/**
 * Events of a job after `seq`: the stored ones, then live ones, each once and in order. The table is the only source;
 * notifications merely wake the reader, so there is no seam between replay and live. Ends when the job is at rest and
 * everything was read, when it was deleted, or when `signal` aborts.
 *
 * @throws EngineError `not_found` before the first event.
 */
export async function* followEvents(
  queue: JobQueue,
  id: string,
  seq: number,
  signal: AbortSignal,
): AsyncGenerator<JobEventRow> {
  if (!(await queue.get(id))) throw new EngineError('not_found', 'job_not_found', `There is no job ${id}.`)
  let last = seq
  const changes = watchJob(queue, id, signal)
  try {
    while (!signal.aborted) {
      changes.reset()
      // The state is read before the events: a job seen at rest has all its events in the table.
      const job = await queue.get(id)
      const rows = await queue.eventsAfter(id, last, PAGE)
      for (const row of rows) {
        if (signal.aborted) return
        last = row.seq
        yield row
      }
      if (rows.length === PAGE) continue
      if (!job || isTerminal(job.status)) return
      await changes.next()
    }
  } finally {
    changes.close()
  }
}

/** Remembers a change that comes between `reset` and `next`, so that none is slept through. */
function watchJob(queue: JobQueue, id: string, signal: AbortSignal) {
  let changed = false
  let wake: (() => void) | undefined
  const notify = () => {
    changed = true
    wake?.()
  }
  const unwatch = queue.watch((changedId) => {
    if (changedId === id) notify()
  })
  signal.addEventListener('abort', notify)
  return {
    reset: () => {
      changed = false
    },
    next: async () => {
      if (changed || signal.aborted) return
      let timer: NodeJS.Timeout | undefined
      await new Promise<void>((resolve) => {
        wake = resolve
        timer = setTimeout(resolve, POLL_MS)
      })
      clearTimeout(timer)
    },
    close: () => {
      unwatch()
      signal.removeEventListener('abort', notify)
    },
  }
}
