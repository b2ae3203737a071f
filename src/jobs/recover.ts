import { isAlive, killAndWait } from './process-identity.ts'
import type { JobOutcome, JobQueue } from './queue.ts'
import type { Job } from './types.ts'

/** A job that took its supervisor with it this often in a row (as memory ran out, say) would only do it again. */
const MAX_CRASHES = 4

/**
 * Gives back the jobs whose process died without a word: running ones to the queue (a training run goes on from its
 * last checkpoint), cancelled ones to rest. Jobs of processes that live, such as `anneal train` in a terminal, are left
 * alone. Returns what was settled, oldest first.
 */
export async function recoverJobs(queue: JobQueue): Promise<Job[]> {
  const settled: Job[] = []
  for (const job of await queue.owned()) {
    if (isAlive({ pid: job.ownerPid, startedAt: job.ownerStartedAt })) continue
    // A child inside a long computation notices the loss of its supervisor late, and must not write beside its successor.
    if (job.workerPid !== null && job.workerStartedAt !== null) {
      await killAndWait({ pid: job.workerPid, startedAt: job.workerStartedAt })
    }
    const outcome = await queue.settle(job.id, outcomeOf(job))
    if (outcome) settled.push(outcome)
  }
  return settled
}

function outcomeOf(job: Job): JobOutcome {
  if (job.status === 'cancelling')
    return { status: 'cancelled', message: 'Cancelled while its process died.' }
  const crashes = job.crashes + 1
  if (crashes > MAX_CRASHES) {
    const message = `${job.id} was running ${crashes} times when its server died, and is not started again by itself.`
    return { status: 'failed', error: { kind: 'internal', code: 'too_many_crashes', message, param: null } }
  }
  const message = 'The process that ran this job died; it goes on from where it left off.'
  return { status: 'queued', message, crashes: job.status === 'queued' ? job.crashes : crashes }
}
