import type { Readable } from 'node:stream'
import type { AppOptions } from '../../routes/app-options.ts'
import type { Scope } from '../../routes/scopes.ts'
import type { Dataset, Health, Services } from '../../routes/services.ts'
import { trainConfig } from './fake-config.ts'
import { FakeChat, FakeCompletions, FakeEmbeddings, FakeText } from './fake-generation.ts'
import {
  FakeEvaluations,
  FakeExports,
  FakeHub,
  FakeImports,
  FakeMerges,
  FakeOllama,
  FakeTraining,
} from './fake-jobs.ts'
import { FakeError, fakeModel, notFound } from './fake-resources.ts'

export * from './fake-resources.ts'

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
