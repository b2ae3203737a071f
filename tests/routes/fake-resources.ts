import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type {
  Evaluation,
  ExportJob,
  ImportJob,
  JobEvent,
  Merge,
  Model,
  StoredBytes,
  TrainingRun,
} from '../../routes/services.ts'

/** An error of the shape that the application throws. */
export class FakeError extends Error {
  readonly kind: string
  readonly code: string
  readonly param: string | undefined

  constructor(kind: string, code: string, message: string, param?: string) {
    super(message)
    this.kind = kind
    this.code = code
    this.param = param
  }
}

export const notFound = (what: string) => new FakeError('not_found', 'not_found', `There is no ${what}.`)

const idle = { created_at: 1, started_at: null, finished_at: null, error: null }

export const fakeRun = (id: string, status: TrainingRun['status'] = 'succeeded'): TrainingRun => ({
  id,
  object: 'training.run',
  model: 'tiny',
  stage: 'sft',
  finetuning_type: 'lora',
  datasets: ['identity'],
  output_dir: 'tiny/lora/one',
  config: { lora_rank: 8 },
  progress: null,
  metrics: null,
  ...idle,
  status,
})

export const fakeMerge = (id: string): Merge => ({
  id,
  object: 'merge',
  base: 'tiny',
  adapter: 'run-1',
  progress: null,
  bytes: null,
  ...idle,
  status: 'queued',
})

export const fakeExport = (id: string): ExportJob => ({
  id,
  object: 'export',
  model: 'merge-1',
  bits: 16,
  format: 'safetensors',
  dtype: null,
  method: null,
  progress: null,
  bytes: null,
  ...idle,
  status: 'succeeded',
})

export const fakeImport = (id: string): ImportJob => ({
  id,
  object: 'import',
  file: 'tiny.gguf',
  model: 'tiny',
  dtype: null,
  progress: null,
  bytes: null,
  ...idle,
  status: 'queued',
})

export const fakeEvaluation = (id: string): Evaluation => ({
  id,
  object: 'evaluation',
  models: ['tiny'],
  dataset: 'demo',
  task: null,
  progress: null,
  results: [],
  ...idle,
  status: 'queued',
})

export const fakeModel = (id: string): Model => ({
  id,
  object: 'model',
  created: 1,
  owned_by: 'anneal',
  root: 'tiny',
  parent: null,
  kind: 'base',
  state: 'unloaded',
  device: null,
  memory_bytes: null,
  max_model_len: 512,
})

export const fakeEvent = (id: number, type: JobEvent['type'] = 'progress'): JobEvent => ({
  id,
  object: 'job.event',
  type,
  created_at: id,
  message: `event ${id}`,
  data: { step: id },
})

/** Bytes in memory that remember what was read of them. */
export function storedBytes(content: Uint8Array): StoredBytes & { reads: [number, number][] } {
  const reads: [number, number][] = []
  return {
    size: content.length,
    reads,
    read: async (start, end) => {
      reads.push([start, end])
      return Readable.from([Buffer.from(content.subarray(start, end + 1))])
    },
  }
}

export const sha256 = (content: Uint8Array) => createHash('sha256').update(content).digest('hex')
