import { EngineError } from '../../engine/errors.ts'
import { checkFreeSpace } from '../../engine/weights/atomic-folder.ts'
import type { WeightDType } from '../../engine/weights/dtypes.ts'
import type { ExportJob, ExportRequest, ExportService } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import { checkExport } from '../policy.ts'
import { artifactFolder, bytesOf, inspect, type SourceModel, sourceOf, taskProgressOf } from './artifacts.ts'
import type { ServiceContext } from './context.ts'
import { checkQueueSpace, findJob, jobFieldsOf, jobService, newJobId } from './jobs.ts'
import { fileOf, filesOf } from './published.ts'
import type { SubmitOptions } from './submit.ts'

/** What tasks/export.ts gets. */
export interface ExportTask {
  model: SourceModel
  bits: number
  format: ExportRequest['format']
  dtype: WeightDType
  /** Bytes in one shard at most. */
  shardBytes: number
}

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
      checkExport(subject, request.bits, settings.policy)
      checkSupported(request)
      // LLaMA-Factory's choice: the model's own 16-bit type, and bfloat16 for a wider one.
      const dtype = request.dtype ?? (facts.dtype === 'F16' ? 'float16' : 'bfloat16')
      checkFreeSpace(settings.directories.saves, facts.parameters * ELEMENT_BYTES[dtype])
      await checkQueueSpace(context, 'export')
      const id = newJobId('export')
      const resolved: ExportTask = {
        model: sourceOf(model),
        bits: request.bits,
        format: request.format,
        dtype,
        shardBytes: Math.floor(request.export_size * 1e9),
      }
      const outputDir = artifactFolder(settings.directories.saves, 'exports', id)
      const job = {
        id,
        kind: 'export',
        request: { ...request },
        resolved: { ...resolved },
        outputDir,
        owner,
      } as const
      return toWire(await queue.submit(job))
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

/** Widths and formats that the policy allows but no writer makes yet. */
function checkSupported({ bits, format }: ExportRequest): void {
  if (bits !== 16) {
    throw new EngineError(
      'unsupported',
      'bits_not_supported',
      `Exports of ${bits} bits are not written yet. 16 bits are.`,
      { param: 'bits' },
    )
  }
  if (format !== 'safetensors') {
    throw new EngineError(
      'unsupported',
      'format_not_supported',
      `The format ${format} is not written yet. safetensors is.`,
      { param: 'format' },
    )
  }
}

function toWire(job: Job): ExportJob {
  const { model, bits, format, dtype } = job.resolved as unknown as ExportTask
  return {
    id: job.id,
    object: 'export',
    model: model.id,
    bits,
    format,
    dtype,
    progress: taskProgressOf(job),
    bytes: bytesOf(job),
    ...jobFieldsOf(job),
  }
}
