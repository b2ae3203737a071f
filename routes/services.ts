import type { Readable } from 'node:stream'
import type { ChatService, CompletionService, EmbeddingService, TextService } from './generation-services.ts'
import type { ExportFile, ExportJob, ExportRequest, Merge, MergeRequest } from './schemas/artifacts.ts'
import type { PageQuery } from './schemas/common.ts'
import type {
  Dataset,
  DatasetConversion,
  DatasetFields,
  DatasetPreview,
  DatasetPreviewQuery,
} from './schemas/datasets.ts'
import type { Evaluation, EvaluationRequest } from './schemas/evaluations.ts'
import type {
  FineTuningCheckpoint,
  FineTuningEvent,
  FineTuningJob,
  FineTuningRequest,
} from './schemas/fine-tuning.ts'
import type { ImportJob, ImportRequest } from './schemas/imports.ts'
import type { JobEvent } from './schemas/jobs.ts'
import type { Model } from './schemas/models.ts'
import type { ImageManifest } from './schemas/ollama.ts'
import type { FileObject, FilePurpose, FileQuery } from './schemas/openai-files.ts'
import type { Checkpoint, TrainingPreview, TrainingRun } from './schemas/training.ts'
import type { Scope } from './scopes.ts'

/*
 * What the routes need from the application. Every method that fails on purpose throws an error of the shape
 * { kind, code, message, param } (see errors.ts), before work starts where possible. Resources are returned in the form
 * in which they go over the wire.
 */

/** One page, newest first. `hasMore` says whether items follow the last one. An unknown `after` is kind 'invalid'. */
export interface Page<T> {
  data: T[]
  hasMore: boolean
}

/** Bytes at rest. */
export interface StoredBytes {
  /** Length in bytes, fixed at the time of the call. */
  size: number
  /**
   * Opens the bytes `start` to `end`, both inclusive, in chunks that keep their bytes only until the next is asked for.
   * Rejects when the file has gone. Called only with size > 0.
   */
  read(start: number, end: number): Promise<AsyncIterable<Uint8Array>>
}

/** A published file: it never changes under its digest. */
export interface StoredFile extends StoredBytes {
  /** Path inside the export, with `/`. */
  path: string
  /** 64 lower-case hexadecimal digits. */
  sha256: string
}

/** What every kind of job offers. `id` of another kind, or unknown: 'not_found'. */
export interface Jobs<T> {
  list(page: PageQuery): Promise<Page<T>>
  get(id: string): Promise<T>
  /**
   * Events with an id above `after`: those already stored first, then live ones. The iterable ends after the terminal
   * event of a job at rest, or when `signal` aborts. It throws before the first event when the job doesn't exist.
   */
  events(id: string, after: number, signal: AbortSignal): AsyncIterable<JobEvent>
  /** Asks the job to stop; returns it as it stands then. A finished job: 'conflict'. */
  cancel(id: string): Promise<T>
}

export interface TrainingService extends Jobs<TrainingRun> {
  /** Validates the body (LLaMA-Factory's field names, unknown ones are errors), checks policy and memory, and queues it. */
  create(body: Record<string, unknown>): Promise<TrainingRun>
  /** The same checks as `create`, without starting anything. A run that doesn't fit says so in the result. */
  preview(body: Record<string, unknown>): Promise<TrainingPreview>
  /**
   * Queues a failed or cancelled run again: from its last checkpoint, or from its start where it has not come to one. Another
   * state, or checkpoints of which none can be resumed: 'conflict'.
   */
  resume(id: string): Promise<TrainingRun>
  /** Removes a finished run and its folder. A queued or running one: 'conflict'. */
  delete(id: string): Promise<void>
  checkpoints(id: string): Promise<Checkpoint[]>
  /** The running log in UTF-8; empty before the run started. */
  log(id: string): Promise<StoredBytes>
  /** The loss curve as PNG. 'not_found' while there is no point to draw. */
  lossPicture(id: string): Promise<Uint8Array>
}

export interface MergeService extends Jobs<Merge> {
  create(request: MergeRequest): Promise<Merge>
}

export interface ExportService extends Jobs<ExportJob> {
  create(request: ExportRequest): Promise<ExportJob>
  /** The files of a finished export, sorted by path. An unfinished one: 'conflict'. */
  files(id: string): Promise<ExportFile[]>
  /** One file of `files(id)`; a path that isn't in the manifest: 'not_found'. */
  file(id: string, path: string): Promise<StoredFile>
  /** Keeps a finished export's files from being deleted until the returned function is called. */
  hold(id: string): Promise<() => void>
}

/** A finished export or merge as a model hub shows it. */
export interface HubRepository {
  id: string
  /** 40 hexadecimal digits that name this state of the files. */
  commit: string
  createdAt: Date
  /** Sorted by path. */
  files: ExportFile[]
}

export interface HubService {
  /** A finished export or merge; anything else: 'not_found'. */
  repository(id: string): Promise<HubRepository>
  /** One file of it; a path that isn't in its list: 'not_found'. */
  file(id: string, path: string): Promise<StoredFile>
}

export interface OllamaService {
  /** The image of an export that holds one GGUF file; anything else: 'not_found'. */
  manifest(id: string): Promise<ImageManifest>
  /** One of its layers, by SHA-256 digest; another digest: 'not_found'. */
  blob(id: string, sha256: string): Promise<StoredFile>
}

export interface ImportService extends Jobs<ImportJob> {
  /** Checks the file's header and queues the import. A name that is taken: 'conflict'. */
  create(request: ImportRequest): Promise<ImportJob>
}

export interface FileService {
  /** Writes the stream to a temporary file as it arrives. When the stream or the disk fails, nothing stays behind. */
  stage(fileName: string, content: Readable): Promise<StagedUpload>
  /** Keeps the staged file; one for fine-tuning is checked line by line. */
  create(purpose: FilePurpose, upload: StagedUpload): Promise<FileObject>
  list(query: FileQuery): Promise<Page<FileObject>>
  get(id: string): Promise<FileObject>
  content(id: string): Promise<StoredBytes>
  delete(id: string): Promise<void>
}

export interface FineTuningService {
  /** Checks the request and its files and queues a training run. */
  create(request: FineTuningRequest): Promise<FineTuningJob>
  /** `metadata`: only jobs that carry all of it. */
  list(query: PageQuery & { metadata: Record<string, string> }): Promise<Page<FineTuningJob>>
  get(id: string): Promise<FineTuningJob>
  /** A finished job: 'conflict'; so is one that is not paused, for `resume`. */
  cancel(id: string): Promise<FineTuningJob>
  pause(id: string): Promise<FineTuningJob>
  resume(id: string): Promise<FineTuningJob>
  events(id: string, query: PageQuery): Promise<Page<FineTuningEvent>>
  checkpoints(id: string, query: PageQuery): Promise<Page<FineTuningCheckpoint>>
}

export interface EvaluationService extends Jobs<Evaluation> {
  /** Finds models and data, and queues the evaluation. */
  create(request: EvaluationRequest): Promise<Evaluation>
  /** Queues a failed or cancelled evaluation again; finished rows are kept. Another state: 'conflict'. */
  resume(id: string): Promise<Evaluation>
  /** Removes a finished evaluation and its folder. A queued or running one: 'conflict'. */
  delete(id: string): Promise<void>
  /** generated_predictions.jsonl of one of its models, the first by default. None (yet): 'not_found'. */
  predictions(id: string, model: string | undefined): Promise<StoredBytes>
}

/** A file that was received but belongs to no dataset yet. */
export interface StagedUpload {
  fileName: string
  bytes: number
  /** Removes it. Harmless after `create` took it over. */
  discard(): Promise<void>
}

export interface DatasetService {
  list(): Promise<Dataset[]>
  /** Writes the stream to a temporary file as it arrives. When the stream or the disk fails, nothing stays behind. */
  stage(fileName: string, content: Readable): Promise<StagedUpload>
  /** Checks the staged file's rows and registers it in dataset_info.json. A taken name: 'conflict'. */
  create(fields: DatasetFields, upload: StagedUpload): Promise<Dataset>
  /** Writes a new dataset whose rows have their keys renamed. */
  convert(name: string, conversion: DatasetConversion): Promise<Dataset>
  preview(name: string, query: DatasetPreviewQuery): Promise<DatasetPreview>
}

export interface ModelService {
  list(): Promise<Model[]>
  get(id: string): Promise<Model>
  /** Has an adapter's model in memory before the first request; 'conflict' where it is there already. */
  loadAdapter(id: string): Promise<void>
  /** Lets an adapter's model go from memory; 'not_found' where it isn't there. */
  unloadAdapter(id: string): Promise<void>
  /** Removes a run's, checkpoint's, merge's or export's model. A base: 'refused'. One in use by a job: 'conflict'. */
  delete(id: string): Promise<void>
}

export interface Health {
  /** Anything but 'ok' answers 503. */
  status: 'ok' | 'starting' | 'preload_failed' | 'draining'
  /** Models that were to be loaded at the start and could not be, with the codes of the reasons. */
  failedModels: Array<{ id: string; code: string }>
  version: string
  /** What runs and models compute on where nothing else is asked for: 'cpu', 'webgpu', 'cuda', 'cuda:1'; 'auto' while that is found out. */
  device: string
  /** Why that device. */
  deviceReason: string
  uptimeSeconds: number
}

export interface SystemService {
  health(): Promise<Health>
  /** The registry in Prometheus' text format. */
  metrics(): Promise<{ contentType: string; body: string }>
}

export interface AuthService {
  /** Whether API keys are configured; when they are, every route except /health asks for one. */
  required: boolean
  /** What a key is good for; undefined for an unknown one. Compares its hash with the configured ones in constant time. */
  authenticate(key: string): readonly Scope[] | undefined
}

export interface Services {
  auth: AuthService
  training: TrainingService
  datasets: DatasetService
  merges: MergeService
  exports: ExportService
  imports: ImportService
  hub: HubService
  ollama: OllamaService
  evaluations: EvaluationService
  files: FileService
  fineTuning: FineTuningService
  models: ModelService
  chat: ChatService
  completions: CompletionService
  text: TextService
  embeddings: EmbeddingService
  system: SystemService
}

export type {
  Checkpoint,
  Dataset,
  DatasetPreviewQuery,
  Evaluation,
  ExportFile,
  ExportJob,
  ExportRequest,
  ImportJob,
  ImportRequest,
  JobEvent,
  Merge,
  MergeRequest,
  Model,
  PageQuery,
  TrainingPreview,
  TrainingRun,
}
