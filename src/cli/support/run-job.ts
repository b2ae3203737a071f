import { EngineError } from '../../../engine/errors.ts'
import type { JobEvent, Jobs } from '../../../routes/services.ts'
import type { Application } from '../../application.ts'
import { onInterrupt } from '../../interrupts.ts'
import { createProgressView, type ProgressPoint } from './progress.ts'

/** What every kind of job looks like on the wire. */
interface JobView {
  id: string
  status: string
  error: { code: string; message: string; param: string | null } | null
}

/**
 * Runs a job that this process submitted for itself, in a child process as the server would, and shows its progress.
 * The first Ctrl-C cancels it cleanly (a training run writes a checkpoint), the second ends everything at once.
 *
 * @throws EngineError with the job's own error when it failed, `cancelled` when it was stopped.
 */
export async function runJob<T extends JobView>(
  application: Application,
  service: Jobs<T>,
  id: string,
  pointOf: (data: Record<string, unknown>) => ProgressPoint | undefined,
): Promise<T> {
  const view = createProgressView()
  const interrupts = onInterrupt((count) => {
    if (count > 1) process.exit(130)
    view.log('Stopping cleanly. Ctrl-C again ends it at once.')
    // A job that ends in the same moment is no trouble: its own end is reported.
    service.cancel(id).catch(() => {})
  })
  try {
    const running = application.supervisor.runOwn(id)
    const shown = showEvents(service.events(id, 0, new AbortController().signal))
    await Promise.all([running, shown])
  } finally {
    interrupts.close()
    view.close()
  }
  const job = await service.get(id)
  if (job.status === 'failed') throw failureOf(job)
  if (job.status !== 'succeeded')
    throw new EngineError('cancelled', 'job_cancelled', `${id} was ${job.status}.`)
  return job

  async function showEvents(events: AsyncIterable<JobEvent>): Promise<void> {
    for await (const event of events) {
      const point = event.type === 'progress' ? pointOf(event.data) : undefined
      if (point) view.update(point)
      const line = lineOf(event)
      if (line) view.log(line)
    }
  }
}

/** Where a job's files lie, absolute; the wire has only what a client may know. */
export async function jobFolder({ queue }: Application, id: string): Promise<string> {
  const job = await queue.get(id)
  if (!job) throw new EngineError('not_found', 'job_not_found', `There is no job ${id}.`)
  return job.outputDir
}

/** The events that deserve a line of their own. */
function lineOf({ type, message, data }: JobEvent): string | undefined {
  if (type === 'warning') return `Warning: ${message}`
  if (type === 'checkpoint') return message
  if (type === 'started' && data.device !== 'cpu') return message
  // The running loss stands behind the bar already.
  if (type === 'log' && data.step === undefined) return message
  if (type === 'evaluation') {
    const { eval_loss: loss } = data
    return typeof loss === 'number' ? `Evaluation: loss ${loss.toFixed(4)}` : message
  }
  return undefined
}

function failureOf({ id, error }: JobView): Error {
  if (error === null) return new Error(`${id} failed without saying why.`)
  return new EngineError('invalid', error.code, `${id} failed: ${error.message}`, {
    param: error.param ?? undefined,
  })
}
