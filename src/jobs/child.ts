import { EngineError, messageOf } from '../../engine/errors.ts'
import { event } from './event.ts'
import { failureOf } from './failure.ts'
import type { FromWorker, Task, ToWorker, WorkerJob } from './protocol.ts'
import type { JobKind } from './types.ts'

/**
 * Runs one job in this child process: waits for `start`, reports, and ends. The process also ends when its supervisor
 * does, since nobody would hear of its work any more; a training run then goes on from its last checkpoint.
 *
 * @param tasks loads a kind's task, so that a merge does not load what training needs.
 */
export function runChild(tasks: Record<JobKind, () => Promise<Task>>): void {
  const stop = new AbortController()
  process.on('disconnect', () => process.exit(1))
  // Ctrl-C and a service manager signal the whole group. The supervisor decides what that means, and says so.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})
  process.on('message', (message: ToWorker) => {
    if (message.type === 'stop') stop.abort()
    else void runJob(message.job, tasks[message.job.kind], stop.signal)
  })
  void send({ type: 'ready' })
}

async function runJob(job: WorkerJob, load: () => Promise<Task>, signal: AbortSignal): Promise<void> {
  const last = await perform(job, load, signal)
  await send(last)
  process.exit(0)
}

async function perform(job: WorkerJob, load: () => Promise<Task>, signal: AbortSignal): Promise<FromWorker> {
  try {
    const task = await load()
    const report = (...args: Parameters<typeof event>) => void send({ type: 'event', event: event(...args) })
    return { type: 'succeeded', result: await task({ job, signal, report }) }
  } catch (error) {
    if (isStop(error, signal)) return { type: 'stopped', message: messageOf(error) }
    // The cause belongs to the operator's log; the row gets what a client may see.
    console.error(error)
    return { type: 'failed', error: failureOf(error) }
  }
}

function isStop(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false
  if (error instanceof EngineError) return error.kind === 'cancelled'
  return error === signal.reason || (error instanceof Error && error.name === 'AbortError')
}

function send(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected || !process.send) resolve()
    else process.send(message, undefined, undefined, () => resolve())
  })
}
