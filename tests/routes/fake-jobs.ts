import type {
  Evaluation,
  ExportJob,
  ImportJob,
  JobEvent,
  Jobs,
  Merge,
  TrainingRun,
} from '../../routes/services.ts'
import { trainConfig } from './fake-config.ts'
import {
  FakeError,
  fakeEvaluation,
  fakeExport,
  fakeImport,
  fakeMerge,
  fakeRun,
  notFound,
  sha256,
  storedBytes,
} from './fake-resources.ts'

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

export class FakeTraining extends FakeJobs<TrainingRun> {
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

export class FakeMerges extends FakeJobs<Merge> {
  readonly requests: unknown[] = []

  async create(request: unknown) {
    this.requests.push(request)
    return this.add(fakeMerge('merge-1'))
  }
}

export class FakeExports extends FakeJobs<ExportJob> {
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

export class FakeImports extends FakeJobs<ImportJob> {
  readonly requests: unknown[] = []

  async create(request: unknown) {
    this.requests.push(request)
    return this.add(fakeImport('import-1'))
  }
}

export class FakeEvaluations extends FakeJobs<Evaluation> {
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

/** The fake exports as repositories. */
export class FakeHub {
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

export class FakeOllama {
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
