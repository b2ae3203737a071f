import { EngineError } from '../../engine/errors.ts'
import { checkFreeSpace } from '../../engine/weights/atomic-folder.ts'
import type { Merge, MergeRequest, MergeService } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import type { ModelEntry } from '../models/registry.ts'
import { sourceOf } from '../models/source-model.ts'
import { checkMerge } from '../policy.ts'
import { type MergeTask, taskOf } from '../tasks/job-tasks.ts'
import { bytesOf, inspect, submitArtifact, taskProgressOf } from './artifacts.ts'
import type { ServiceContext } from './context.ts'
import { jobFieldsOf, jobService } from './jobs.ts'
import type { SubmitOptions } from './submit.ts'

export interface Merges extends MergeService {
  create(request: MergeRequest, options?: SubmitOptions): Promise<Merge>
}

/** Merges adapters into their bases. */
export function mergeService(context: ServiceContext): Merges {
  const { settings } = context
  return {
    ...jobService(context, 'merge', toWire),
    async create(request, { owner } = {}) {
      const { base, adapter } = await resolvePair(context, request)
      const { facts, subject } = inspect(base)
      checkMerge(subject)
      checkFreeSpace(settings.directories.saves, facts.weightBytes)
      const resolved: MergeTask = {
        model: { ...sourceOf(adapter), root: base.root },
        base: base.id,
        baseFolder: base.baseFolder,
        adapterFolder: adapter.adapterFolder!,
      }
      return toWire(await submitArtifact(context, 'merge', { request, resolved, owner }))
    },
  }
}

async function resolvePair({ models }: ServiceContext, request: MergeRequest) {
  const param = request.model === undefined ? 'adapter' : 'model'
  const adapter = await models.resolve(request.model ?? request.adapter ?? '', param)
  if (!adapter.adapterFolder) {
    throw new EngineError(
      'invalid',
      'not_an_adapter',
      `${adapter.id} is a whole model, so there is nothing to merge. Name a run or one of its checkpoints.`,
      { param },
    )
  }
  const base = request.base === undefined ? await baseOf(adapter) : await models.resolve(request.base, 'base')
  if (base.adapterFolder) {
    throw new EngineError(
      'invalid',
      'base_is_adapter',
      `${base.id} is an adapter itself. Merge it first, or name a whole model.`,
      { param: 'base' },
    )
  }
  return { base, adapter }
}

/** The whole model below an adapter; a run may have started from a merge, so its folder counts and not its root. */
async function baseOf(adapter: ModelEntry): Promise<ModelEntry> {
  return { ...adapter, id: adapter.root, adapterFolder: undefined }
}

function toWire(job: Job): Merge {
  const { model, base } = taskOf(job, 'merge')
  return {
    id: job.id,
    object: 'merge',
    base,
    adapter: model.id,
    progress: taskProgressOf(job),
    bytes: bytesOf(job),
    ...jobFieldsOf(job),
  }
}
