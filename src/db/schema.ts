import { index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type {
  JobEventData,
  JobEventType,
  JobFailure,
  JobKind,
  JobProgress,
  JobStatus,
} from '../jobs/types.ts'

/** Everything that takes long: training runs, merges, exports, imports, evaluations. One row for each, kept after its end. */
export const jobs = sqliteTable(
  'jobs',
  {
    /** Creation order, for claims and cursors. */
    position: integer('position').primaryKey({ autoIncrement: true }),
    /** The kind's prefix (jobs/types.ts) and twelve hexadecimal digits, such as `run-3f9a1c07b2de`. */
    id: text('id').notNull().unique(),
    kind: text('kind').$type<JobKind>().notNull(),
    status: text('status').$type<JobStatus>().notNull().default('queued'),
    /** What the client sent. */
    request: text('request', { mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    /** The task that the child process gets: defaults filled in, ids resolved to folders. */
    resolved: text('resolved', { mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    outputDir: text('output_dir').notNull(),
    progress: text('progress', { mode: 'json' }).$type<JobProgress>(),
    result: text('result', { mode: 'json' }).$type<Record<string, unknown>>(),
    error: text('error', { mode: 'json' }).$type<JobFailure>(),
    /** The process that supervises the job. A queued job with an owner is not for others to claim. */
    ownerPid: integer('owner_pid'),
    /** When that process started, as its system tells it: a process id alone may come back. */
    ownerStartedAt: text('owner_started_at'),
    /** The child process that does the work. */
    workerPid: integer('worker_pid'),
    workerStartedAt: text('worker_started_at'),
    /** How often the job was started. */
    attempts: integer('attempts').notNull().default(0),
    /** How often in a row its supervisor died while it ran. */
    crashes: integer('crashes').notNull().default(0),
    createdAt: integer('created_at', { mode: 'timestamp_ms' }).notNull(),
    startedAt: integer('started_at', { mode: 'timestamp_ms' }),
    finishedAt: integer('finished_at', { mode: 'timestamp_ms' }),
  },
  (table) => [
    index('jobs_by_kind_and_status').on(table.kind, table.status),
    index('jobs_by_output_dir').on(table.outputDir),
  ],
)

/** What a job reported, in order. `seq` counts from 1 in each job and is the id of its server-sent event. */
export const events = sqliteTable(
  'events',
  {
    jobId: text('job_id')
      .notNull()
      .references(() => jobs.id, { onDelete: 'cascade' }),
    seq: integer('seq').notNull(),
    type: text('type').$type<JobEventType>().notNull(),
    message: text('message').notNull(),
    data: text('data', { mode: 'json' }).$type<JobEventData>().notNull(),
    createdAt: integer('created_at', { mode: 'timestamp_ms' }).notNull(),
  },
  (table) => [primaryKey({ columns: [table.jobId, table.seq] })],
)
