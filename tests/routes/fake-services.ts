import type { Readable } from 'node:stream'
import { z } from '@hono/zod-openapi'
import type {
  ChatEvent,
  ChatRequest,
  CompletionEvent,
  CompletionRequest,
} from '../../routes/generation-services.ts'
import type { Scope } from '../../routes/scopes.ts'
import type {
  AppOptions,
  Dataset,
  Evaluation,
  ExportJob,
  Health,
  ImportJob,
  JobEvent,
  Jobs,
  Merge,
  Services,
  TrainingRun,
} from '../../routes/services.ts'
import {
  FakeError,
  fakeEvaluation,
  fakeExport,
  fakeImport,
  fakeMerge,
  fakeModel,
  fakeRun,
  notFound,
  sha256,
  storedBytes,
} from './fake-resources.ts'

export * from './fake-resources.ts'

/** Jobs in a map, with events in an array; a job that isn't finished waits for `signal` after its stored events. */
class FakeJobs<T extends { id: string; status: TrainingRun['status'] }> implements Jobs<T> {
  readonly items = new Map<string, T>()
  readonly stored = new Map<string, JobEvent[]>()
  aborted = 0

  add(item: T, events: JobEvent[] = []): T {
    this.items.set(item.id, item)
    this.stored.set(item.id, events)
    return item
  }

  async list({ after, limit }: { after?: string | undefined; limit: number }) {
    const all = [...this.items.values()]
    const start = after === undefined ? 0 : all.findIndex((item) => item.id === after) + 1
    return { data: all.slice(start, start + limit), hasMore: start + limit < all.length }
  }

  async get(id: string) {
    const item = this.items.get(id)
    if (!item) throw notFound(`job ${id}`)
    return item
  }

  async *events(id: string, after: number, signal: AbortSignal) {
    const item = await this.get(id)
    for (const event of this.stored.get(id) ?? []) if (event.id > after) yield event
    if (item.status !== 'running') return
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    this.aborted += 1
  }

  async cancel(id: string) {
    const item = await this.get(id)
    if (item.status !== 'running') throw new FakeError('conflict', 'already_finished', `${id} is finished.`)
    return { ...item, status: 'cancelling' as const }
  }
}

class FakeTraining extends FakeJobs<TrainingRun> {
  readonly bodies: Record<string, unknown>[] = []
  text = storedBytes(Buffer.from('loss 1.0\nloss 0.5\nBär\n'))
  failure: unknown

  async create(body: Record<string, unknown>) {
    if (this.failure) throw this.failure
    this.bodies.push(body)
    return this.add(fakeRun(`run-${this.items.size + 1}`, 'queued'))
  }

  async preview(body: Record<string, unknown>) {
    trainConfig.parse(body)
    return {
      object: 'training.preview' as const,
      model: 'tiny',
      config: body,
      command: 'anneal train lora_rank=8',
      yaml: 'lora_rank: 8\n',
      train_examples: 10,
      eval_examples: 0,
      truncated_examples: 0,
      tokens_per_epoch: 100,
      trained_tokens_per_epoch: 50,
      steps_per_epoch: 5,
      total_steps: 15,
      total_parameters: 4_000_000,
      trainable_parameters: 40_000,
      memory: { required_bytes: 1, available_bytes: 2, fits: true },
      warnings: [],
    }
  }

  async resume(id: string) {
    return { ...(await this.get(id)), status: 'queued' as const }
  }

  async delete(id: string) {
    const run = await this.get(id)
    if (run.status === 'running') throw new FakeError('conflict', 'still_running', `${id} is running.`)
    this.items.delete(id)
  }

  async checkpoints(id: string) {
    await this.get(id)
    const checkpoint = { epoch: 1, loss: 0.5, eval_loss: null, bytes: 10, created_at: 1 }
    return [
      {
        id: `${id}:ckpt-step-5`,
        object: 'training.checkpoint' as const,
        run_id: id,
        step: 5,
        ...checkpoint,
      },
    ]
  }

  async log(id: string) {
    await this.get(id)
    return this.text
  }

  async lossPicture(id: string) {
    await this.get(id)
    return new Uint8Array([0x89, 0x50, 0x4e, 0x47])
  }
}

class FakeMerges extends FakeJobs<Merge> {
  readonly requests: unknown[] = []

  async create(request: unknown) {
    this.requests.push(request)
    return this.add(fakeMerge('merge-1'))
  }
}

class FakeExports extends FakeJobs<ExportJob> {
  readonly contents = new Map<string, Uint8Array>()
  readonly opened: string[] = []
  readonly reads: [string, number, number][] = []
  /** Downloads that keep the files now. */
  held = 0

  async create({ bits }: { bits: number }) {
    if (bits < 4) throw new FakeError('refused', 'bits_not_allowed', `${bits} bits are refused.`, 'bits')
    return this.add(fakeExport('export-1'))
  }

  async files(id: string) {
    await this.get(id)
    return [...this.contents].map(([path, content]) => ({
      object: 'export.file' as const,
      path,
      bytes: content.length,
      sha256: sha256(content),
    }))
  }

  async hold(id: string) {
    await this.get(id)
    this.held += 1
    return () => {
      this.held -= 1
    }
  }

  async file(id: string, path: string) {
    await this.get(id)
    const content = this.contents.get(path)
    if (!content) throw notFound(`file ${path}`)
    this.opened.push(path)
    const bytes = storedBytes(content)
    return {
      path,
      sha256: sha256(content),
      size: bytes.size,
      read: (start: number, end: number) => {
        this.reads.push([path, start, end])
        return bytes.read(start, end)
      },
    }
  }
}

class FakeImports extends FakeJobs<ImportJob> {
  readonly requests: unknown[] = []

  async create(request: unknown) {
    this.requests.push(request)
    return this.add(fakeImport('import-1'))
  }
}

/** The fake exports as repositories. */
class FakeHub {
  readonly #exports: FakeExports

  constructor(exports: FakeExports) {
    this.#exports = exports
  }

  async repository(id: string) {
    const files = (await this.#exports.files(id)).sort((a, b) => (a.path < b.path ? -1 : 1))
    return {
      id,
      commit: sha256(Buffer.from(JSON.stringify(files))).slice(0, 40),
      createdAt: new Date(0),
      files,
    }
  }

  file(id: string, path: string) {
    return this.#exports.file(id, path)
  }
}

class FakeOllama {
  readonly #exports: FakeExports

  constructor(exports: FakeExports) {
    this.#exports = exports
  }

  async manifest(id: string) {
    const [file] = await this.#exports.files(id)
    const layer = { mediaType: 'model', digest: `sha256:${file?.sha256}`, size: file?.bytes ?? 0 }
    return {
      schemaVersion: 2 as const,
      mediaType: 'application/vnd.docker.distribution.manifest.v2+json' as const,
      config: layer,
      layers: [layer],
    }
  }

  async blob(id: string, digest: string) {
    const found = (await this.#exports.files(id)).find((file) => file.sha256 === digest)
    if (!found) throw notFound(`blob ${digest}`)
    return this.#exports.file(id, found.path)
  }
}

const none = async (id: string): Promise<never> => {
  throw notFound(id)
}

/** No files: what the routes do with them is tested over the real service. */
const fakeFiles = (): Services['files'] => ({
  stage: none,
  create: none,
  list: async () => ({ data: [], hasMore: false }),
  get: none,
  content: none,
  delete: none,
})

const fakeFineTuning = (): Services['fineTuning'] => ({
  create: ({ training_file }) => none(training_file),
  list: async () => ({ data: [], hasMore: false }),
  get: none,
  cancel: none,
  pause: none,
  resume: none,
  events: none,
  checkpoints: none,
})

class FakeEvaluations extends FakeJobs<Evaluation> {
  readonly requests: unknown[] = []

  async create(request: unknown) {
    this.requests.push(request)
    return this.add(fakeEvaluation('eval-1'))
  }

  async resume(id: string) {
    return this.get(id)
  }

  async delete(id: string) {
    await this.get(id)
  }

  async predictions(id: string) {
    await this.get(id)
    return storedBytes(Buffer.from('{"prompt":"p","predict":"a","label":"b"}\n'))
  }
}

class FakeDatasets {
  readonly registered = new Map<string, { fields: unknown; content: Buffer; fileName: string }>()
  /** Staged files that neither became a dataset nor were discarded. */
  staged = new Map<object, { content: Buffer; fileName: string }>()
  stageStarts = 0
  stageFailures = 0

  private entry(name: string): Dataset {
    return {
      name,
      object: 'dataset',
      formatting: 'alpaca',
      file_name: `${name}.json`,
      columns: null,
      tags: null,
      rows: null,
      bytes: 1,
      error: null,
    }
  }

  async list() {
    return [...this.registered.keys()].map((name) => this.entry(name))
  }

  async stage(fileName: string, content: Readable) {
    this.stageStarts += 1
    const chunks: Buffer[] = []
    try {
      for await (const chunk of content) chunks.push(chunk as Buffer)
    } catch (error) {
      this.stageFailures += 1
      throw error
    }
    const upload = {
      fileName,
      bytes: Buffer.concat(chunks).length,
      discard: async () => {
        this.staged.delete(upload)
      },
    }
    this.staged.set(upload, { content: Buffer.concat(chunks), fileName })
    return upload
  }

  async create(fields: { name: string }, upload: object) {
    const staged = this.staged.get(upload)
    if (!staged) throw new Error('not staged')
    if (this.registered.has(fields.name)) throw new FakeError('conflict', 'name_taken', 'taken', 'name')
    this.registered.set(fields.name, { fields, ...staged })
    return this.entry(fields.name)
  }

  async convert(_name: string, { name }: { name: string }) {
    return this.entry(name)
  }

  async preview(name: string, query: { offset: number; model?: string | undefined }) {
    return {
      object: 'dataset.preview' as const,
      dataset: name,
      model: query.model ?? null,
      offset: query.offset,
      total_rows: 1,
      data: [
        {
          index: query.offset,
          raw: { instruction: 'hi' },
          text: null,
          tokens: null,
          rejected_tokens: null,
          truncated: false,
          error: null,
        },
      ],
    }
  }
}

class FakeModels {
  readonly adapters = new Set<string>()
  readonly ids = new Set(['tiny', 'run-1:ckpt-step-5', 'org/model:tag'])

  async list() {
    return [...this.ids].map(fakeModel)
  }

  async get(id: string) {
    if (!this.ids.has(id)) throw new FakeError('not_found', 'model_not_found', `no model ${id}`, 'model')
    return fakeModel(id)
  }

  async loadAdapter(id: string) {
    await this.get(id)
    if (this.adapters.has(id)) throw new FakeError('conflict', 'adapter_loaded', `${id} is loaded.`)
    this.adapters.add(id)
  }

  async unloadAdapter(id: string) {
    if (!this.adapters.delete(id)) throw new FakeError('not_found', 'adapter_not_loaded', `${id} is not.`)
  }

  async delete(id: string) {
    await this.get(id)
    if (id === 'tiny') throw new FakeError('refused', 'base_model', 'A base model is not deleted.')
    this.ids.delete(id)
  }
}

const fakeUsage = { promptTokens: 7, completionTokens: 4, cachedTokens: 2, reasoningTokens: 1 }

class FakeCompletions {
  readonly requests: CompletionRequest[] = []

  async *complete(request: CompletionRequest): AsyncGenerator<CompletionEvent> {
    this.requests.push(request)
    yield { type: 'start', systemFingerprint: 'fp_test' }
    const count = request.prompts.length * (request.n ?? 1)
    for (let choice = 0; choice < count; choice++) {
      const logprob = { token: 'ab', bytes: [97, 98], logprob: -0.5, top: [{ token: 'ab', logprob: -0.5 }] }
      yield {
        type: 'text',
        choice,
        text: 'ab',
        ...(request.logprobs !== undefined && { logprobs: [logprob] }),
      }
      yield {
        type: 'text',
        choice,
        text: 'ab',
        ...(request.logprobs !== undefined && { logprobs: [logprob] }),
      }
      yield { type: 'finish', choice, reason: 'length' }
    }
    yield { type: 'usage', usage: fakeUsage }
  }
}

class FakeText {
  async tokenize({ text }: { text: string }) {
    const texts = [...text]
    return { tokens: texts.map((character) => character.codePointAt(0)!), texts, maxPositions: 512 }
  }

  async detokenize({ tokens }: { tokens: number[] }) {
    return { text: String.fromCodePoint(...tokens) }
  }
}

class FakeEmbeddings {
  async embed({ inputs }: { inputs: (string | number[])[] }) {
    const vector = Buffer.from(new Float32Array([0.6, 0.8]).buffer).toString('base64')
    return { vectors: inputs.map(() => vector), promptTokens: 3 * inputs.length }
  }
}

class FakeChat {
  readonly requests: ChatRequest[] = []
  pieces = ['Hello', ', ', 'wörld ', '🌍']
  /** Events behind the pieces. */
  parts: ChatEvent[] = []
  /** Thrown before the start event, or after this many pieces. */
  failure: { error: unknown; afterPieces: number } | undefined
  /** Waits after the pieces until the client has gone. */
  hangs = false
  aborted = 0
  closed = 0

  async *complete(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    this.requests.push(request)
    try {
      if (this.failure?.afterPieces === 0) throw this.failure.error
      yield { type: 'start', systemFingerprint: 'fp_test' }
      for (const [index, text] of this.pieces.entries()) {
        if (this.failure?.afterPieces === index) throw this.failure.error
        yield { type: 'text', choice: 0, text }
      }
      for (const part of this.parts) yield part
      if (this.hangs) {
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve()
          signal.addEventListener('abort', () => resolve(), { once: true })
        })
        this.aborted += 1
        throw new FakeError('cancelled', 'cancelled', 'The client has gone.')
      }
      for (let choice = 0; choice < (request.n ?? 1); choice++)
        yield { type: 'finish', choice, reason: 'stop' }
      yield { type: 'usage', usage: fakeUsage }
    } finally {
      this.closed += 1
    }
  }

  async render(request: { messages: { content: string }[] }) {
    return { text: request.messages.map(({ content }) => content).join('\n'), tokens: [1, 2, 3] }
  }
}

/** A configuration schema as small as the tests need. */
export const trainConfig = z.strictObject({
  model_name_or_path: z.string(),
  dataset: z.string(),
  lora_rank: z.int().min(1).default(8).describe('Rank of the adapter.'),
})

/** All services in memory, with what they were asked for in their fields. */
export class FakeServices {
  keys: string[] = []
  /** Scopes of keys that are not good for everything. */
  scopes: Record<string, Scope[]> = {}
  readonly auth = {
    isRequired: () => this.keys.length > 0,
    authenticate: (key: string) =>
      this.keys.includes(key) ? (this.scopes[key] ?? ['admin' as const]) : undefined,
    get required() {
      return this.isRequired()
    },
  }
  readonly training = new FakeTraining()
  readonly datasets = new FakeDatasets()
  readonly merges = new FakeMerges()
  readonly exports = new FakeExports()
  readonly imports = new FakeImports()
  readonly hub = new FakeHub(this.exports)
  readonly ollama = new FakeOllama(this.exports)
  readonly evaluations = new FakeEvaluations()
  readonly files = fakeFiles()
  readonly fineTuning = fakeFineTuning()
  readonly models = new FakeModels()
  readonly chat = new FakeChat()
  readonly completions = new FakeCompletions()
  readonly text = new FakeText()
  readonly embeddings = new FakeEmbeddings()
  healthStatus: Health['status'] = 'ok'
  readonly system = {
    health: async () => ({
      status: this.healthStatus,
      failedModels: this.healthStatus === 'preload_failed' ? [{ id: 'big', code: 'unsupported_model' }] : [],
      version: '1.2.3',
      device: 'cpu',
      deviceReason: 'It is asked for.',
      uptimeSeconds: 1.5,
    }),
    metrics: async () => ({ contentType: 'text/plain; version=0.0.4', body: 'anneal_runs_total 1\n' }),
  }

  /** The same object in the type that createApp takes: it must satisfy the interfaces. */
  asServices(): Services {
    return this
  }
}

export const fakeOptions = (overrides: Partial<AppOptions> = {}): AppOptions => ({
  version: '1.2.3',
  allowedHosts: [],
  allowedOrigins: [],
  maxJsonBytes: 100_000,
  maxUploadBytes: 1_000_000,
  keepAliveMs: 10_000,
  onResponse: () => {},
  schemas: { trainConfig },
  ...overrides,
})
