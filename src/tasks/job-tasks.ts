import type { ExportFormat, ExportMethod } from '../../engine/export/formats.ts'
import type { GgufFileType } from '../../engine/export/gguf-types.ts'
import type { WeightDType } from '../../engine/weights/dtypes.ts'
import type { EvaluationTask } from '../evaluation/task.ts'
import type { Job, JobKind } from '../jobs/types.ts'
import type { SourceModel } from '../models/source-model.ts'
import type { TrainTask } from '../training/task.ts'

/** What a merge is made of. */
export interface MergeTask {
  /** The adapter's model: the parent of the merge. */
  model: SourceModel
  base: string
  baseFolder: string
  adapterFolder: string
}

/** An export's request with everything decided. */
export interface ExportTask {
  model: SourceModel
  /** The PEFT folder, for the formats that take an adapter. */
  adapterFolder: string | undefined
  bits: number
  format: ExportFormat
  dtype: WeightDType
  /** Bytes in one shard at most. */
  shardBytes: number
  ggufType: GgufFileType | undefined
  method: ExportMethod | undefined
  groupSize: number
  symmetric: boolean
  actOrder: boolean
  damping: number
  seed: number
  calibration: { dataset: string; samples: number; length: number } | undefined
  report: { dataset: string; tokens: number } | undefined
  maxKld: number | undefined
  datasetDir: string
  /** What it writes at most; jobs of older versions do not say. */
  neededBytes?: number
}

/** What an import reads and makes. */
export interface ImportTask {
  /** Absolute path of the GGUF file. */
  file: string
  name: string
  dtype?: WeightDType
}

/** What `resolved` of a job's row holds, by the job's kind: a service writes it, the job's child reads it. */
export interface JobTasks {
  train: TrainTask
  merge: MergeTask
  export: ExportTask
  import: ImportTask
  evaluation: EvaluationTask
}

/** A job's task. The row is JSON, so this is where it gets its type back. */
export function taskOf<K extends JobKind>(
  { kind, resolved }: Pick<Job, 'kind' | 'resolved'>,
  wanted: K,
): JobTasks[K] {
  if (kind !== wanted) throw new Error(`a job of kind ${kind} came where ${wanted} was read`)
  return resolved as unknown as JobTasks[K]
}
