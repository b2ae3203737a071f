import { createReadStream, statSync } from 'node:fs'
import { access, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { latestCheckpoint, listCheckpoints } from '../../engine/train/checkpoint.ts'
import { checkFits } from '../../engine/train/estimate.ts'
import { prepareOutput } from '../../engine/train/output-dir.ts'
import { drawLoss } from '../../engine/train/run-folder.ts'
import type { TrainingPreview, TrainingRun, TrainingService } from '../../routes/services.ts'
import { removeCopiedRows } from '../fine-tuning/job-folder.ts'
import { logFileOf, RUN_LOG_FILE } from '../jobs/log-file.ts'
import { isAlive } from '../jobs/process-identity.ts'
import { ACTIVE_STATUSES, type Job } from '../jobs/types.ts'
import { removeFolder } from '../models/remove.ts'
import { capacityOf } from '../training/memory.ts'
import { planRun } from '../training/plan-run.ts'
import type * as Preview from '../training/preview.ts'
import type { ServiceContext } from './context.ts'
import { checkAtRest, checkQueueSpace, conflict, findJob, jobService, newJobId } from './jobs.ts'
import { checkUnused } from './models.ts'
import type { SubmitOptions } from './submit.ts'
import { checkpointToWire, previewToWire, runToWire } from './training-wire.ts'

export interface Training extends TrainingService {
  create(body: Record<string, unknown>, options?: SubmitOptions): Promise<TrainingRun>
  preview(body: Record<string, unknown>, options?: SubmitOptions): Promise<TrainingPreview>
}

/** What would be trained is counted with half of the engine, which a server that answers need not load. */
const previewRun: typeof Preview.previewRun = async (...run) =>
  (await import('../training/preview.ts')).previewRun(...run)

/** Training runs: checks, the queue, and what a run's folder holds. */
export function trainingService(context: ServiceContext): Training {
  const { queue, settings, devices } = context
  const { saves } = settings.directories
  const find = (id: string) => findJob(queue, 'train', id)
  const toWire = (job: Job) => runToWire(job, saves)
  let last: Promise<unknown> = Promise.resolve()
  const oneByOne = <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work)
    last = result.catch(() => {})
    return result
  }
  return {
    ...jobService(context, 'train', toWire),
    async create(body, { owner, trusted = false } = {}) {
      const { task } = await planRun(context, body, trusted)
      await checkQueueSpace(context, 'train')
      const capacity = await capacityOf(devices, task.device)
      const { memory } = await previewRun(task, body, capacity)
      checkFits(memory, capacity.availableBytes)
      return oneByOne(async () => {
        // Planned again: while the data was read, another run may have taken the folder.
        const { outputDir, output, task: planned } = await planRun(context, body, trusted)
        await releaseOutput(context, outputDir)
        if (output.action === 'overwrite') {
          await checkUnused(context, { id: outputDir, folder: outputDir })
          await rm(join(outputDir, RUN_LOG_FILE), { force: true })
        }
        // Now, so that no start of this run can take an earlier run's checkpoints for its own.
        prepareOutput(outputDir, output)
        const id = newJobId('train')
        const resolved = { ...planned, expectedBytes: memory.total }
        const job = { id, kind: 'train', request: body, resolved, outputDir, owner } as const
        return toWire(await queue.submit(job))
      })
    },
    async preview(body, { trusted = false } = {}) {
      const { task } = await planRun(context, body, trusted)
      const capacity = await capacityOf(devices, task.device)
      return previewToWire(task, await previewRun(task, body, capacity), capacity.availableBytes)
    },
    async resume(id) {
      const job = await find(id)
      if (job.status !== 'failed' && job.status !== 'cancelled') {
        throw conflict(
          'run_not_resumable',
          `${id} is ${job.status}; only failed and cancelled runs are resumed.`,
        )
      }
      // One that has not come to its first checkpoint begins anew; one whose checkpoints are of no use would lose them.
      if (listCheckpoints(job.outputDir).length > 0 && !latestCheckpoint(job.outputDir)) {
        throw conflict('no_checkpoint', `${id} has no checkpoint to go on from. Start a new run instead.`)
      }
      await checkOwnsFolder(context, job)
      await releaseOutput(context, job.outputDir)
      return toWire((await queue.resume(id)) ?? (await find(id)))
    },
    async delete(id) {
      const job = await find(id)
      checkAtRest(job)
      const isOwner = !(await queue.heirOf(job))
      if (isOwner) await checkUnused(context, { id, folder: job.outputDir })
      await queue.delete(id)
      if (isOwner) await removeFolder(job.outputDir, saves)
      await removeCopiedRows(job, saves)
    },
    async checkpoints(id) {
      const job = await find(id)
      if (await queue.heirOf(job)) return []
      return listCheckpoints(job.outputDir).map((info) => checkpointToWire(id, info))
    },
    async log(id) {
      const job = await find(id)
      await checkOwnsFolder(context, job)
      const file = logFileOf(job, saves)
      const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0
      return {
        size,
        async read(start, end) {
          await access(file)
          return createReadStream(file, { start, end })
        },
      }
    },
    async lossPicture(id) {
      const job = await find(id)
      await checkOwnsFolder(context, job)
      const picture = drawLoss(job.outputDir)
      if (picture) return picture
      throw new EngineError('not_found', 'no_loss_yet', `${id} has logged no loss yet.`)
    },
  }
}

/** @throws EngineError `conflict` when a later run has written over the run's folder, or gone on in it. */
async function checkOwnsFolder({ queue }: ServiceContext, job: Job): Promise<void> {
  const heir = await queue.heirOf(job)
  if (!heir) return
  throw conflict('output_dir_taken', `The folder of ${job.id} was taken over by ${heir}; see that run.`)
}

/** @throws EngineError `conflict` when another job that waits or runs writes into the folder. */
async function releaseOutput({ queue }: ServiceContext, outputDir: string): Promise<void> {
  for (const job of await queue.list({ kind: 'train', statuses: ACTIVE_STATUSES })) {
    if (job.outputDir !== outputDir) continue
    const owner = { pid: job.ownerPid, startedAt: job.ownerStartedAt }
    if (job.ownerPid === null || isAlive(owner)) {
      throw conflict(
        'output_dir_in_use',
        `${job.id}, which is ${job.status}, writes into ${outputDir}.`,
        'output_dir',
      )
    }
    // A run from a terminal that was killed: the new one takes its place.
    const message = `The process that ran ${job.id} died, and another run took over its folder.`
    const error = { kind: 'internal', code: 'owner_died', message, param: null }
    await queue.settle(job.id, { status: 'failed', error })
  }
}
