import { FORMAT_RULES } from '../../engine/export/formats.ts'
import { checkFreeSpace } from '../../engine/weights/atomic-folder.ts'
import type { WeightDType } from '../../engine/weights/dtypes.ts'
import type { ExportJob, ExportRequest, ExportService } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import type { ModelFacts } from '../models/model-folder.ts'
import { checkAdapterExport, checkExport } from '../policy.ts'
import { type ExportTask, taskOf } from '../tasks/job-tasks.ts'
import { bytesOf, inspect, submitArtifact, taskProgressOf } from './artifacts.ts'
import type { ServiceContext } from './context.ts'
import { planExport } from './export-plan.ts'
import { findJob, jobFieldsOf, jobService } from './jobs.ts'
import { fileOf, filesOf } from './published.ts'
import type { SubmitOptions } from './submit.ts'

export interface Exports extends ExportService {
  create(request: ExportRequest, options?: SubmitOptions): Promise<ExportJob>
}

/** Bytes of an element as safetensors names its type. */
const ELEMENT_BYTES: Record<WeightDType, number> = { float32: 4, float16: 2, bfloat16: 2 }

/** Exports whole models for other programs, and hands out their files. */
export function exportService(context: ServiceContext): Exports {
  const { queue, settings } = context
  return {
    ...jobService(context, 'export', toWire),
    async create(request, { owner } = {}) {
      const model = await context.models.resolve(request.model)
      const { facts, subject } = inspect(model)
      if (FORMAT_RULES[request.format].adapter) checkAdapterExport(subject)
      else checkExport(subject, request.bits, settings.policy)
      const { datasets } = settings.directories
      const plan = await planExport(request, model, facts, context.datasets, datasets)
      const resolved = { ...plan, neededBytes: spaceFor(plan, facts) }
      checkFreeSpace(settings.directories.saves, resolved.neededBytes)
      return toWire(await submitArtifact(context, 'export', { request, resolved, owner }))
    },
    async files(id) {
      return filesOf(await findJob(queue, 'export', id))
    },
    async file(id, path) {
      return fileOf(await findJob(queue, 'export', id), path, context.leases)
    },
    async hold(id) {
      return context.leases.acquire((await findJob(queue, 'export', id)).outputDir)
    },
  }
}

/** Bytes that an export needs at most: finished layers wait beside the files that they become. */
function spaceFor(
  { adapterFolder, bits, dtype }: ExportTask,
  { parameters, weightBytes }: ModelFacts,
): number {
  if (adapterFolder !== undefined) return 0
  return bits === 16 ? parameters * ELEMENT_BYTES[dtype] : weightBytes + parameters * (bits / 8)
}

function toWire(job: Job): ExportJob {
  const { model, bits, format, dtype, method } = taskOf(job, 'export')
  return {
    id: job.id,
    object: 'export',
    model: model.id,
    bits,
    format,
    dtype,
    method: method ?? null,
    progress: taskProgressOf(job),
    bytes: bytesOf(job),
    ...jobFieldsOf(job),
  }
}
