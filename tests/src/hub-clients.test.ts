import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { downloadFile, fileDownloadInfo, listFiles, modelInfo, snapshotDownload } from '@huggingface/hub'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { tinyLlama } from './engine-host/tiny-llama.ts'
import { type PublishedServer, publish, startEmptyServer } from './published.ts'

const run = promisify(execFile)
const EXPORT = 'export-0123456789ab'
const MERGE = 'merge-0123456789ab'
const KEY = 'a-key-of-this-test'
const weights = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 31) % 253)

let server: PublishedServer
let hub: string
let scratch: string

beforeAll(async () => {
  server = await startEmptyServer({ ANNEAL_API_KEY: KEY })
  hub = `${server.url}/hub`
  scratch = mkdtempSync(join(tmpdir(), 'anneal-clients-'))
  await publish(server, 'export', EXPORT, tinyLlama())
  await publish(server, 'merge', MERGE, { 'config.json': '{}', 'weights.bin': weights })
})

afterAll(async () => {
  await server.close()
  for (const folder of [scratch, server.root]) rmSync(folder, { recursive: true })
})

/** How a program is found, or why its test is skipped. */
function found(command: string, args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const python = process.env.JUDGE_PYTHON ?? 'python3'
const hasHub = found(python, ['-c', 'import huggingface_hub'])
const hasTransformers =
  hasHub &&
  found(python, [
    '-c',
    'import importlib.util as u; assert u.find_spec("transformers") and u.find_spec("torch")',
  ])
const hasCurl = found('curl', ['--version'])
const hasAria = found('aria2c', ['--version'])
const needs = (name: string, present: boolean) => (present ? '' : ` (skipped: ${name} is not installed)`)

const authorization = `Authorization: Bearer ${KEY}`
const file = (path: string, id = EXPORT) =>
  readFileSync(join(server.saves, id === EXPORT ? 'exports' : 'merges', id, path))

describe('@huggingface/hub', () => {
  // The client takes only tokens that begin with hf_, so the key is put in by its fetch.
  const fetchWithKey: typeof fetch = (input, init) => {
    const headers = new Headers(init?.headers)
    headers.set('authorization', `Bearer ${KEY}`)
    return fetch(input, { ...init, headers })
  }

  it('describes, lists and downloads, with and without a namespace', async () => {
    for (const repo of [EXPORT, `anneal/${EXPORT}`]) {
      const shared = { repo, hubUrl: hub, fetch: fetchWithKey }
      const info = await modelInfo({
        name: repo,
        hubUrl: hub,
        fetch: fetchWithKey,
        additionalFields: ['sha'],
      })
      expect(info.sha).toMatch(/^[0-9a-f]{40}$/)
      const paths: string[] = []
      for await (const entry of listFiles({ ...shared, recursive: true })) paths.push(entry.path)
      expect(paths).toEqual(expect.arrayContaining(['config.json', 'model.safetensors', 'SHA256SUMS']))
      const blob = await downloadFile({ ...shared, path: 'model.safetensors' })
      expect(file('model.safetensors').equals(new Uint8Array(await blob!.arrayBuffer()))).toBe(true)
      expect(await fileDownloadInfo({ ...shared, path: 'absent.json' })).toBeNull()
    }
  })

  it('downloads a snapshot into its cache', async () => {
    vi.spyOn(console, 'debug').mockImplementation(() => {}) // the client reports its progress there
    const cacheDir = join(scratch, 'js-cache')
    const folder = await snapshotDownload({ repo: EXPORT, hubUrl: hub, fetch: fetchWithKey, cacheDir })
    for (const name of ['config.json', 'model.safetensors', 'tokenizer.json']) {
      expect(readFileSync(join(folder, name)), name).toEqual(file(name))
    }
    vi.restoreAllMocks()
  })
})

/** Runs Python with the hub's address and key in its environment; returns the last line as JSON. */
async function runPython(code: string): Promise<Record<string, unknown>> {
  const env = {
    ...process.env,
    HF_ENDPOINT: hub,
    HF_TOKEN: KEY,
    HF_HOME: join(scratch, 'hf-home'),
    HF_HUB_DISABLE_TELEMETRY: '1',
    HF_HUB_DISABLE_PROGRESS_BARS: '1',
  }
  const { stdout } = await run(python, ['-c', code], { env })
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>
}

describe.skipIf(!hasHub)(
  `huggingface_hub${needs('huggingface_hub for Python (JUDGE_PYTHON)', hasHub)}`,
  () => {
    it('downloads files and a snapshot, tells what is missing, and finds a second download in its cache', async () => {
      const result = await runPython(`
import json, hashlib
from huggingface_hub import hf_hub_download, snapshot_download, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
digest = lambda path: hashlib.sha256(open(path, 'rb').read()).hexdigest()
def missing(*a, **k):
    try: hf_hub_download(*a, **k)
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as e: return type(e).__name__
one = hf_hub_download('${EXPORT}', 'model.safetensors')
two = hf_hub_download('anneal/${EXPORT}', 'model.safetensors')
folder = snapshot_download('${EXPORT}')
again = snapshot_download('${EXPORT}', local_files_only=True)
info = HfApi().model_info('${EXPORT}', files_metadata=True)
print(json.dumps({
  'one': digest(one), 'two': digest(two), 'same': folder == again, 'sha': info.sha,
  'names': sorted(s.rfilename for s in info.siblings),
  'paths': [p.path for p in HfApi().get_paths_info('${EXPORT}', ['config.json', 'absent'])],
  'entry': missing('${EXPORT}', 'absent.json'), 'repo': missing('export-000000000000', 'config.json'),
  'revision': missing('${EXPORT}', 'config.json', revision='v9'),
}))`)
      const digest = (await digests()).get('model.safetensors')
      expect(result).toMatchObject({
        one: digest,
        two: digest,
        same: true,
        sha: expect.stringMatching(/^[0-9a-f]{40}$/),
        paths: ['config.json'],
        entry: expect.stringContaining('EntryNotFoundError'),
        repo: 'RepositoryNotFoundError',
        revision: 'RevisionNotFoundError',
      })
      expect(result.names).toContain('SHA256SUMS')
    })
  },
)

async function digests(): Promise<Map<string, string>> {
  const response = await fetch(`${server.url}/v1/exports/${EXPORT}/files`, {
    headers: { authorization: `Bearer ${KEY}` },
  })
  const { data } = (await response.json()) as { data: { path: string; sha256: string }[] }
  return new Map(data.map(({ path, sha256 }) => [path, sha256]))
}

describe.skipIf(!hasTransformers)(
  `from_pretrained${needs('transformers with torch (JUDGE_PYTHON)', hasTransformers)}`,
  () => {
    it('loads an export by its id with HF_ENDPOINT', async () => {
      const result = await runPython(`
import json
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained('anneal/${EXPORT}')
print(json.dumps({'layers': model.config.num_hidden_layers}))`)
      expect(result).toEqual({ layers: 2 })
    })
  },
)

describe.skipIf(!hasCurl)(`curl${needs('curl', hasCurl)}`, () => {
  it('goes on where a broken download ended', async () => {
    const url = `${hub}/${MERGE}/resolve/main/weights.bin`
    const target = join(scratch, 'weights.bin')
    await run('curl', ['-sf', '-H', authorization, '-r', '0-999999', '-o', target, url])
    const { stdout } = await run('curl', [
      '-sf',
      '-C',
      '-',
      '-w',
      '%{http_code} %{size_download}',
      '-H',
      authorization,
      '-o',
      target,
      url,
    ])
    expect(stdout).toBe('206 2000000')
    expect(readFileSync(target).equals(weights)).toBe(true)
  })

  it('goes on with a broken archive', async () => {
    const url = `${server.url}/v1/exports/${EXPORT}/archive.tar`
    const [whole, resumed] = [join(scratch, 'whole.tar'), join(scratch, 'resumed.tar')]
    await run('curl', ['-sf', '-H', authorization, '-o', whole, url])
    await run('curl', ['-sf', '-H', authorization, '-r', '0-1300', '-o', resumed, url])
    await run('curl', ['-sf', '-C', '-', '-H', authorization, '-o', resumed, url])
    expect(readFileSync(resumed)).toEqual(readFileSync(whole))
    await run('tar', ['-xf', whole, '-C', scratch])
    await run('sha256sum', ['--check', '--quiet', 'SHA256SUMS'], { cwd: join(scratch, EXPORT) })
  })
})

describe.skipIf(!hasAria)(`aria2c${needs('aria2', hasAria)}`, () => {
  it('downloads in parallel ranges and checks the digest', async () => {
    const url = `${hub}/${MERGE}/resolve/main/weights.bin`
    const sha256 = execFileSync('sha256sum', [join(server.saves, 'merges', MERGE, 'weights.bin')], {
      encoding: 'utf8',
    }).slice(0, 64)
    const options = [
      '-x',
      '4',
      '-s',
      '4',
      '-k',
      '1M',
      `--checksum=sha-256=${sha256}`,
      `--header=${authorization}`,
    ]
    await run('aria2c', ['-q', ...options, '-d', scratch, '-o', 'aria.bin', url])
    expect(readFileSync(join(scratch, 'aria.bin')).equals(weights)).toBe(true)
  })
})

describe('the hub', () => {
  const get = (path: string, headers: Record<string, string> = {}) =>
    fetch(`${hub}${path}`, { headers: { authorization: `Bearer ${KEY}`, ...headers } })

  it('asks for a key like every other route', async () => {
    for (const path of [
      `/hub/${EXPORT}/resolve/main/config.json`,
      `/hub/api/models/${EXPORT}`,
      '/v2/',
      `/v2/anneal/${EXPORT}/manifests/latest`,
    ]) {
      // Ollama's client cannot answer a challenge.
      expect((await fetch(server.url + path)).status, path).toBe(path.startsWith('/v2/') ? 403 : 401)
    }
  })

  it('sends the headers that clients read', async () => {
    const { sha } = (await (await get(`/api/models/${EXPORT}`)).json()) as { sha: string }
    for (const method of ['HEAD', 'GET']) {
      const response = await fetch(`${hub}/${EXPORT}/resolve/${sha}/config.json`, {
        method,
        headers: { authorization: `Bearer ${KEY}`, 'accept-encoding': 'identity' },
      })
      const digest = (await digests()).get('config.json')
      expect(Object.fromEntries(response.headers)).toMatchObject({
        'x-repo-commit': sha,
        etag: `"${digest}"`,
        'content-length': String(file('config.json').length),
        'accept-ranges': 'bytes',
      })
      expect(response.headers.has('content-encoding')).toBe(false)
      await response.arrayBuffer()
    }
  })

  it.each([
    [`/${EXPORT}/resolve/main/absent.json`, 'EntryNotFound'],
    [`/${EXPORT}/resolve/other/config.json`, 'RevisionNotFound'],
    [`/export-999999999999/resolve/main/config.json`, 'RepoNotFound'],
    [`/tiny/resolve/main/config.json`, 'RepoNotFound'],
    [`/api/models/export-999999999999`, 'RepoNotFound'],
    [`/api/models/${EXPORT}/tree/main/absent`, 'EntryNotFound'],
  ])('says what is missing at %s', async (path, code) => {
    const response = await get(path)
    expect([response.status, response.headers.get('x-error-code')]).toEqual([404, code])
    expect(response.headers.get('x-error-message')).toBeTruthy()
    expect(await response.json()).toMatchObject({ error: { code } })
  })

  it('names another commit when a file changed', async () => {
    const commit = async (id: string) =>
      ((await (await get(`/api/models/${id}`)).json()) as { sha: string }).sha
    await publish(server, 'merge', 'merge-00000000000a', { 'config.json': '{}' })
    await publish(server, 'merge', 'merge-00000000000b', { 'config.json': '{}' })
    await publish(server, 'merge', 'merge-00000000000c', { 'config.json': '[]' })
    expect(await commit('merge-00000000000a')).toBe(await commit('merge-00000000000b'))
    expect(await commit('merge-00000000000a')).not.toBe(await commit('merge-00000000000c'))
  })
})

describe('deleting', () => {
  const headers = { authorization: `Bearer ${KEY}` }

  it('waits for running downloads and lets no new one begin', async () => {
    const id = 'merge-00000000000d'
    await publish(server, 'merge', id, { 'config.json': '{}', 'big.bin': new Uint8Array(64_000_000) })
    const response = await fetch(`${hub}/${id}/resolve/main/big.bin`, { headers })
    const reader = response.body!.getReader()
    let received = (await reader.read()).value!.length
    let deleted = false
    const deleting = fetch(`${server.url}/v1/models/${id}`, { method: 'DELETE', headers }).then((answer) => {
      deleted = true
      return answer.status
    })
    await vi.waitFor(async () => {
      expect((await fetch(`${hub}/${id}/resolve/main/config.json`, { headers })).status).toBe(404)
    })
    expect(deleted).toBe(false)
    for (let next = await reader.read(); !next.done; next = await reader.read()) received += next.value.length
    expect(received).toBe(64_000_000)
    expect(await deleting).toBe(200)
    expect(existsSync(join(server.saves, 'merges', id))).toBe(false)
  })
})
