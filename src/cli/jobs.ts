import { readFile } from 'node:fs/promises'
import { Command, Option } from 'commander'
import { EngineError } from '../../engine/errors.ts'
import type { Application } from '../application.ts'
import { onInterrupt } from '../interrupts.ts'
import { followEvents } from '../jobs/follow.ts'
import { logFileOf } from '../jobs/log-file.ts'
import { ACTIVE_STATUSES, JOB_KINDS, type Job, type JobKind } from '../jobs/types.ts'
import { removeFolder } from '../models/remove.ts'
import { withApplication } from './support/application.ts'
import { formatSeconds, formatTable } from './support/format.ts'
import { note, print, printJson } from './support/terminal.ts'

const ID = 'id of a run, merge, export, import or evaluation'

/** `anneal ps`: jobs of this store, whoever runs them. */
export function psCommand(): Command {
  return new Command('ps')
    .description('List jobs that wait or run, newest first.')
    .option('-a, --all', 'finished ones too')
    .addOption(new Option('--kind <name>', 'only these').choices(JOB_KINDS))
    .option('--json', 'print them as JSON')
    .addHelpText('after', '\nExample:\n  anneal ps --all --kind train')
    .action(({ all, kind, json }: { all?: boolean; kind?: JobKind; json?: boolean }) =>
      withApplication(async ({ queue }) => {
        const jobs = await queue.list({ kind, statuses: all ? undefined : ACTIVE_STATUSES })
        if (json) return printJson(jobs.map(summaryOf))
        if (jobs.length === 0)
          return note(all ? 'There are no jobs.' : 'Nothing waits or runs. --all lists all.')
        const rows = jobs.map((job) => [job.id, job.kind, job.status, shareOf(job), ageOf(job)])
        print(formatTable([['JOB', 'KIND', 'STATUS', 'DONE', 'CREATED'], ...rows]))
      }),
    )
}

/** `anneal logs`: what a job wrote, or what it tells from now on. */
export function logsCommand(): Command {
  return new Command('logs')
    .description("Print a job's log.")
    .argument('<job>', ID)
    .option('-f, --follow', 'print its events instead, until it ends; Ctrl-C leaves the job alone')
    .option('--json', 'print events as JSON, one to a line; with --follow live ones too')
    .addHelpText('after', '\nExample:\n  anneal logs run-3f9a1c07b2de --follow')
    .action((id: string, { follow, json }: { follow?: boolean; json?: boolean }) =>
      withApplication(async (application) => {
        const job = await findJob(application, id)
        if (follow || json)
          return showEvents(application, job, { follow: follow ?? false, json: json ?? false })
        const file = logFileOf(job, application.settings.directories.saves)
        const text = await readFile(file, 'utf8').catch(() => '')
        if (text === '') return note(`${id} has written no log yet; it is ${job.status}.`)
        process.stdout.write(text)
      }),
    )
}

/** `anneal cancel`: stops a job; a training run writes a checkpoint first. */
export function cancelCommand(): Command {
  return new Command('cancel')
    .description('Stop a job. A training run writes a checkpoint and can be resumed.')
    .argument('<job>', ID)
    .option('--json', 'print the job as JSON')
    .addHelpText('after', '\nExample:\n  anneal cancel run-3f9a1c07b2de')
    .action((id: string, { json }: { json?: boolean }) =>
      withApplication(async (application) => {
        const job = await findJob(application, id)
        await serviceOf(application, job.kind).cancel(id)
        const stopped = await findJob(application, id)
        if (json) return printJson(summaryOf(stopped))
        print(
          stopped.status === 'cancelling'
            ? `${id} stops after its current step.`
            : `${id} is ${stopped.status}.`,
        )
      }),
    )
}

/** `anneal rm`: removes a finished job with what it made. */
export function rmCommand(): Command {
  return new Command('rm')
    .description(
      'Delete a finished job and its files: a run with its checkpoints, a merge, an export, an evaluation.',
    )
    .argument('<job>', ID)
    .option('--json', 'print what was deleted as JSON')
    .addHelpText('after', '\nExample:\n  anneal rm run-3f9a1c07b2de')
    .action((id: string, { json }: { json?: boolean }) =>
      withApplication(async (application) => {
        await remove(application, await findJob(application, id))
        if (json) return printJson({ id, deleted: true })
        print(`${id} is deleted.`)
      }),
    )
}

async function findJob({ queue }: Application, id: string): Promise<Job> {
  const job = await queue.get(id)
  if (job) return job
  throw new EngineError('not_found', 'job_not_found', `There is no job ${id}. anneal ps --all lists them.`, {
    param: 'job',
  })
}

function serviceOf({ services }: Application, kind: JobKind): { cancel(id: string): Promise<unknown> } {
  const { training, merges, exports, imports, evaluations } = services
  return { train: training, merge: merges, export: exports, import: imports, evaluation: evaluations }[kind]
}

async function remove({ services, queue, settings }: Application, job: Job): Promise<void> {
  const { id, kind, status, outputDir } = job
  if (kind === 'train') return services.training.delete(id)
  if (kind === 'evaluation') return services.evaluations.delete(id)
  const isModel = (await services.models.list()).some((model) => model.id === id)
  if (isModel) return services.models.delete(id)
  if (!(await queue.delete(id))) {
    throw new EngineError('conflict', 'job_active', `${id} is ${status}; cancel it first.`)
  }
  // What an import made is a base model, which only its owner removes.
  if (kind !== 'import') await removeFolder(outputDir, settings.directories.saves)
}

async function showEvents(
  { queue }: Application,
  job: Job,
  { follow, json }: { follow: boolean; json: boolean },
): Promise<void> {
  const stop = new AbortController()
  const watch = onInterrupt(() => stop.abort())
  try {
    const last = follow ? undefined : (await queue.eventsAfter(job.id, 0, 1_000_000)).at(-1)?.seq
    for await (const event of followEvents(queue, job.id, 0, stop.signal)) {
      if (json) print(JSON.stringify(event))
      else print(`${event.createdAt.toISOString()} ${event.type.padEnd(10)} ${event.message}`)
      if (event.seq === last) break
    }
  } finally {
    watch.close()
  }
}

function summaryOf({ id, kind, status, progress, error, createdAt, startedAt, finishedAt }: Job) {
  return { id, kind, status, progress, error, createdAt, startedAt, finishedAt }
}

/** '42 %' of a job that tells how far it is. */
function shareOf({ progress, status }: Job): string {
  if (status === 'succeeded') return '100 %'
  const { fraction, step, total_steps: total } = progress ?? {}
  const share =
    typeof fraction === 'number'
      ? fraction
      : typeof step === 'number' && typeof total === 'number' && total > 0
        ? step / total
        : undefined
  return share === undefined ? '-' : `${Math.floor(100 * share)} %`
}

function ageOf({ createdAt }: Job): string {
  return `${formatSeconds(Math.max(0, (Date.now() - createdAt.getTime()) / 1000))} ago`
}
