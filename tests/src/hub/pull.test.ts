import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { pullModel, readRepository } from '../../../src/hub/pull.ts'
import { anneal } from '../cli/run-anneal.ts'
import { tinyLlama } from '../engine-host/tiny-llama.ts'
import { type PublishedServer, publish, startEmptyServer } from '../published.ts'

const MERGE = 'merge-0123456789ab'
const KEY = 'a-key-of-this-test'
let server: PublishedServer
let source: string
let models: string
let hub: { endpoint: string; token: string }

beforeAll(async () => {
  server = await startEmptyServer({ ANNEAL_API_KEY: KEY })
  source = await publish(server, 'merge', MERGE, tinyLlama())
  hub = { endpoint: `${server.url}/hub`, token: KEY }
})
afterAll(async () => {
  await server.close()
  rmSync(server.root, { recursive: true })
})
beforeEach(() => {
  models = mkdtempSync(join(tmpdir(), 'anneal-pull-'))
})
afterEach(() => rmSync(models, { recursive: true }))

const pull = (word: string, changes: Partial<Parameters<typeof pullModel>[0]> = {}) =>
  pullModel({ word, hub, directories: [models], ...changes })

describe('pullModel from our own hub', () => {
  it('fetches a base model that appears whole, with every byte right', async () => {
    const seen: number[] = []
    const pulled = await pull(`anneal/${MERGE}@main`, {
      name: 'tiny',
      onProgress: ({ done, total }) => seen.push(done / total),
    })
    expect(readdirSync(models)).toEqual(['tiny'])
    for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) {
      expect(readFileSync(join(pulled.folder, name)).equals(readFileSync(join(source, name))), name).toBe(
        true,
      )
    }
    expect(seen.at(-1)).toBe(1)
    expect(await pull(`${MERGE}@${pulled.commit}`, { name: 'again' })).toMatchObject({
      commit: pulled.commit,
    })
  })

  it('says what is missing, closed or taken', async () => {
    mkdirSync(join(models, 'taken'))
    writeFileSync(join(models, 'taken/config.json'), '{}')
    await expect(pull('anneal/absent', { name: 'x' })).rejects.toMatchObject({ code: 'hub_not_found' })
    await expect(pull(`${MERGE}@v2`, { name: 'x' })).rejects.toThrow(/has the revisions main and/)
    await expect(pull(MERGE, { name: 'x', hub: { ...hub, token: 'no' } })).rejects.toMatchObject({
      code: 'hub_access_denied',
    })
    await expect(pull(MERGE, { name: 'taken' })).rejects.toMatchObject({ code: 'model_exists' })
    await expect(pull(MERGE)).rejects.toMatchObject({ code: 'invalid_model_name' }) // looks like a job
    expect(readdirSync(models)).toEqual(['taken'])
  })

  it('works from the command line with HF_ENDPOINT and HF_TOKEN', async () => {
    const env = {
      HF_ENDPOINT: hub.endpoint,
      HF_TOKEN: KEY,
      ANNEAL_MODELS_DIR: models,
      ANNEAL_SAVES_DIR: join(models, 'saves'),
    }
    const { code, stdout } = await anneal(['pull', MERGE, '--name', 'tiny', '--json'], { env })
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      name: 'tiny',
      commit: expect.stringMatching(/^[0-9a-f]{40}$/),
    })
    expect(readdirSync(join(models, 'tiny'))).toContain('model.safetensors')
  })
})

/** A hub of a few files that can be told to misbehave. */
class FakeHub {
  files: Record<string, Buffer> = {}
  /** Ends a connection after so many bytes of a file's content. */
  breaksAfter = Number.POSITIVE_INFINITY
  /** Changes what a file's content is listed as. */
  lists: (entry: Record<string, unknown>) => object = (entry) => entry
  ignoresRanges = false
  readonly ranges: (string | undefined)[] = []
  readonly #server = createServer((request, response) => this.#answer(request, response))

  async start(): Promise<string> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  stop(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname } = new URL(request.url!, 'http://hub')
    if (pathname.includes('/revision/')) return void response.end(JSON.stringify({ sha: 'c'.repeat(40) }))
    if (pathname.includes('/tree/')) return void response.end(JSON.stringify(this.#tree()))
    const path = decodeURIComponent(pathname.split(`/resolve/${'c'.repeat(40)}/`)[1]!)
    this.#send(this.files[path]!, request.headers.range, response)
  }

  /** Files of git have its SHA-1, larger ones the SHA-256 of LFS. */
  #tree(): object[] {
    return Object.entries(this.files).map(([path, content]) => {
      const git = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
      const lfs = {
        oid: createHash('sha256').update(content).digest('hex'),
        size: content.length,
        pointerSize: 1,
      }
      return this.lists({
        type: 'file',
        path,
        size: content.length,
        oid: git,
        ...(path.endsWith('.safetensors') ? { lfs } : {}),
      })
    })
  }

  #send(content: Buffer, range: string | undefined, response: ServerResponse): void {
    this.ranges.push(range)
    const start = this.ignoresRanges ? 0 : Number(/bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0)
    const rest = content.subarray(start)
    response.writeHead(start > 0 ? 206 : 200, { 'content-length': rest.length })
    if (rest.length <= this.breaksAfter) return void response.end(rest)
    response.write(rest.subarray(0, this.breaksAfter), () => response.destroy())
  }
}

describe('pullModel from a hub that misbehaves', () => {
  const weights = Buffer.from(Uint8Array.from({ length: 400_000 }, (_, i) => (i * 7) % 251))
  let fake: FakeHub
  let broken: { endpoint: string }

  beforeEach(async () => {
    fake = new FakeHub()
    fake.files = {
      'config.json': Buffer.from('{"model_type":"llama"}'),
      'tokenizer.json': Buffer.from('{}'),
      'model.safetensors': weights,
    }
    broken = { endpoint: await fake.start() }
  })
  afterEach(() => fake.stop())
  const pullFake = (changes: Partial<Parameters<typeof pullModel>[0]> = {}) =>
    pull('org/model', { hub: broken, ...changes })
  const arrived = () => readFileSync(join(models, 'model/model.safetensors')).equals(weights)

  it('goes on after each break of the connection', async () => {
    fake.breaksAfter = 150_000
    await pullFake()
    expect(arrived()).toBe(true)
    expect(fake.ranges.filter((range) => range !== undefined).length).toBeGreaterThanOrEqual(2)
  })

  it('goes on with what an earlier pull has left, and hashes that as well', async () => {
    const partial = join(models, `.model.pull-${'c'.repeat(40)}`)
    mkdirSync(partial)
    writeFileSync(join(partial, 'model.safetensors.part'), weights.subarray(0, 123_456))
    await pullFake()
    expect(fake.ranges).toContain('bytes=123456-')
    expect(arrived()).toBe(true)
    expect(readdirSync(models)).toEqual(['model'])
  })

  it('takes a hub without ranges', async () => {
    fake.ignoresRanges = true
    const partial = join(models, `.model.pull-${'c'.repeat(40)}`)
    mkdirSync(partial)
    writeFileSync(join(partial, 'model.safetensors.part'), weights.subarray(0, 123_456))
    await pullFake()
    expect(arrived()).toBe(true)
  })

  it('throws away a file whose digest is wrong, also when only its beginning of an earlier pull is', async () => {
    const partial = join(models, `.model.pull-${'c'.repeat(40)}`)
    mkdirSync(partial)
    writeFileSync(join(partial, 'model.safetensors.part'), Buffer.alloc(1000, 9))
    await expect(pullFake()).rejects.toMatchObject({ code: 'download_digest_wrong' })
    expect(readdirSync(models)).not.toContain('model')
    await pullFake() // begins that file anew
    expect(arrived()).toBe(true)
  })

  it('refuses a small file that is not what git lists, and one that is longer than listed', async () => {
    fake.lists = (entry) => (entry.path === 'tokenizer.json' ? { ...entry, oid: '0'.repeat(40) } : entry)
    await expect(pullFake()).rejects.toMatchObject({ code: 'download_digest_wrong' })
    fake.lists = (entry) => (entry.path === 'tokenizer.json' ? { ...entry, size: 1 } : entry)
    await expect(pullFake()).rejects.toMatchObject({ code: 'download_size_wrong' })
    expect(readdirSync(models)).not.toContain('model')
  })

  it('refuses pickles, and models that need code of their own before their weights are fetched', async () => {
    fake.files['config.json'] = Buffer.from('{"auto_map":{"AutoModel":"modeling.Mine"}}')
    await expect(pullFake()).rejects.toMatchObject({ kind: 'refused', code: 'remote_code_refused' })
    expect(fake.ranges).toHaveLength(1)
    expect(readdirSync(models)).toEqual([])
    fake.files = { 'config.json': Buffer.from('{}'), 'pytorch_model.bin': Buffer.from('a pickle') }
    await expect(pullFake()).rejects.toMatchObject({ kind: 'refused', code: 'pickle_refused' })
  })

  it('leaves adapters, other formats and folders where they are', async () => {
    fake.files = {
      ...fake.files,
      'onnx/model.onnx': weights,
      'training_args.bin': weights,
      'adapter_model.safetensors': weights,
    }
    await pullFake()
    expect(readdirSync(join(models, 'model')).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ])
  })

  it.each(['../evil.json', '/etc/evil.json', 'a/../../evil.json', 'a\\b.json', 'c:evil.json', 'x\0.json'])(
    'refuses a repository that lists %j',
    async (path) => {
      fake.lists = (entry) => (entry.path === 'tokenizer.json' ? { ...entry, path } : entry)
      await expect(pullFake()).rejects.toMatchObject({ code: 'hub_path_refused' })
      expect(readdirSync(models)).toEqual([])
    },
  )

  it('stops when it is told to, and keeps what it has for the next time', async () => {
    const stop = new AbortController()
    const onProgress = ({ message }: { message: string }) => message === 'model.safetensors' && stop.abort()
    await expect(pullFake({ signal: stop.signal, onProgress })).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(models)).toEqual([`.model.pull-${'c'.repeat(40)}`])
    await pullFake()
    expect(arrived()).toBe(true)
  })

  it('says that a hub cannot be reached, and how to name another', async () => {
    fake.stop()
    const stop = AbortSignal.timeout(20_000)
    await expect(pullFake({ hub: { endpoint: 'http://127.0.0.1:1' }, signal: stop })).rejects.toThrow(
      /cannot be reached .*HF_ENDPOINT/,
    )
  }, 30_000)
})

describe('readRepository', () => {
  it('reads an optional namespace and revision', () => {
    expect(readRepository('gpt2')).toEqual({ repository: 'gpt2', revision: 'main' })
    expect(readRepository('org/name@refs/pr/1')).toEqual({ repository: 'org/name', revision: 'refs/pr/1' })
  })

  it.each(['', '../x', 'a/b/c', '/etc', 'a/..', 'http://x/y', 'a b', 'a@', 'a/b@../x'])(
    'refuses %j',
    (word) => {
      expect(() => readRepository(word)).toThrow(/names no repository/)
    },
  )
})
