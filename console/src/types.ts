/** The answers of the HTTP API, as far as the pages read them (/openapi.json has the whole). */

export interface List<T> {
  data: T[]
  has_more?: boolean
}

export interface Model {
  id: string
  kind: 'base' | 'run' | 'checkpoint' | 'merge' | 'export'
  root: string
  parent: string | null
  max_model_len: number | null
  state?: string
}

export type JobStatus = 'queued' | 'running' | 'cancelling' | 'succeeded' | 'failed' | 'cancelled'

export interface Job {
  id: string
  status: JobStatus
  created_at: number
  started_at: number | null
  finished_at: number | null
  error: { code: string; message: string; param: string | null } | null
}

export interface Run extends Job {
  model: string
  stage: string
  finetuning_type: string
  datasets: string[]
  output_dir: string
  config: Record<string, unknown>
  progress: {
    step: number
    total_steps: number
    epoch: number
    loss: number | null
    learning_rate: number | null
    tokens_per_second: number | null
    elapsed_seconds: number
    remaining_seconds: number | null
  } | null
  metrics: Record<string, number> | null
}

export interface TaskJob extends Job {
  progress: { fraction: number; message: string; remaining_seconds: number | null } | null
  bytes?: number | null
}

export interface ExportJob extends TaskJob {
  model: string
  bits: number
  format: string
}

export interface Evaluation extends TaskJob {
  models: string[]
  dataset: string | null
  task: string | null
  results: { model: string; metrics: Record<string, number> }[]
}

export interface Checkpoint {
  id: string
  step: number
  loss: number | null
  eval_loss: number | null
  bytes: number
}

export interface Dataset {
  name: string
  formatting: string
  file_name: string
  rows: number | null
  bytes: number | null
  error: string | null
}

export interface Token {
  id: number
  text: string
  trained: boolean
}

export interface DatasetPreview {
  total_rows: number | null
  data: {
    index: number
    raw: unknown
    text: string | null
    tokens: Token[] | null
    rejected_tokens?: Token[] | null
    truncated: boolean
    error: string | null
  }[]
}

export interface TrainingPreview {
  config: Record<string, unknown>
  command: string
  yaml: string
  train_examples: number
  eval_examples: number
  truncated_examples: number
  tokens_per_epoch: number
  trained_tokens_per_epoch: number
  total_steps: number
  total_parameters: number
  trainable_parameters: number
  memory: { required_bytes: number; available_bytes: number; fits: boolean }
  warnings: { code: string; message: string }[]
}

export interface ExportFile {
  path: string
  bytes: number
  sha256: string
}
