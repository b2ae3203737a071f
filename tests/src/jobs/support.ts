import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDatabase } from '../../../src/db/client.ts'
import { SqliteJobQueue } from '../../../src/db/job-queue.ts'
import { JobQueries } from '../../../src/db/queries.ts'
import { followEvents } from '../../../src/jobs/follow.ts'
import { identityOf } from '../../../src/jobs/process-identity.ts'
import { JobSupervisor, type SupervisorOptions } from '../../../src/jobs/supervisor.ts'
import type { Job, JobEventRow, JobKind, NewJob } from '../../../src/jobs/types.ts'

export const self = identityOf(process.pid)!

let counter = 0

/** A job for the fake worker. */
export function fakeJob(script: string, changes: Partial<NewJob> & { steps?: number } = {}): NewJob {
  const { steps, ...rest } = changes
  const id = `run-${String(++counter).padStart(12, '0')}`
  return { id, kind: 'train', request: {}, resolved: { script, steps }, outputDir: '/nowhere', ...rest }
}

export function openQueue(folder = mkdtempSync(join(tmpdir(), 'anneal-jobs-'))) {
  const file = join(folder, 'jobs.db')
  const { db, close } = openDatabase(file)
  const queries = new JobQueries(db)
  return { folder, file, queries, queue: new SqliteJobQueue(queries, file), close }
}

export type OpenQueue = ReturnType<typeof openQueue>

export function fakeSupervisor({ queue, folder }: OpenQueue, changes: Partial<SupervisorOptions> = {}) {
  const concurrency: Record<JobKind, number> = { train: 1, merge: 1, export: 1, import: 1, evaluation: 1 }
  return new JobSupervisor({
    queue,
    owner: self,
    concurrency,
    cancelGraceMs: 30_000,
    logFile: (job) => join(folder, job.id, 'running_log.txt'),
    entry: new URL('./fake-worker.ts', import.meta.url),
    ...changes,
  })
}

/** Follows a job until an event passes the test. */
export async function untilEvent(
  { queue }: Pick<OpenQueue, 'queue'>,
  id: string,
  test: (event: JobEventRow) => boolean,
): Promise<JobEventRow> {
  const stop = new AbortController()
  for await (const event of followEvents(queue, id, 0, stop.signal)) if (test(event)) return event
  throw new Error(`${id} ended without the expected event`)
}

/** Waits until a job is at rest. */
export async function atRest({ queue }: Pick<OpenQueue, 'queue'>, id: string): Promise<Job> {
  for await (const _ of followEvents(queue, id, 0, new AbortController().signal));
  return (await queue.get(id))!
}
