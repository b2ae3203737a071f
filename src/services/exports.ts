import { createReadStream } from 'node:fs'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { checkFreeSpace } from '../../engine/weights/atomic-folder.ts'
import type { WeightDType } from '../../engine/weights/dtypes.ts'
import type {
  ExportFile,
  ExportJob,
  ExportRequest,
  ExportService,
  StoredFile,
} from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import { checkExport } from '../policy.ts'
import { artifactFolder, bytesOf, inspect, type SourceModel, sourceOf, taskProgressOf } from './artifacts.ts'
import type { ServiceContext } from './context.ts'
import { checkQueueSpace, conflict, findJob, jobFieldsOf, jobService, newJobId } from './jobs.ts'
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
      return manifestOf(await findJob(queue, 'export', id))
    },
    async file(id, path) {
      const job = await findJob(queue, 'export', id)
      const entry = manifestOf(job).find((file) => file.path === path)
      if (!entry) {
        throw new EngineError(
          'not_found',
          'file_not_found',
          `${id} has no file ${JSON.stringify(path.slice(0, 200))}.`,
        )
      }
      return storedFile(join(job.outputDir, entry.path), entry)
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

/** The paths that exist for a client: those that the finished export hashed. */
function manifestOf(job: Job): ExportFile[] {
  if (job.status !== 'succeeded') {
    throw conflict(
      'export_not_finished',
      `${job.id} is ${job.status}; its files exist once it has succeeded.`,
    )
  }
  const { files } = job.result as { files: { path: string; bytes: number; sha256: string }[] }
  return files.map((file) => ({ object: 'export.file', ...file }))
}

function storedFile(absolute: string, { path, bytes, sha256 }: ExportFile): StoredFile {
  return {
    path,
    sha256,
    size: bytes,
    async read(start, end) {
      await access(absolute)
      return createReadStream(absolute, { start, end })
    },
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
