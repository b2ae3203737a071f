import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Binding } from '../../../src/device/install/binding.ts'
import { type InstallOptions, installCuda, removeCuda } from '../../../src/device/install/install.ts'
import { PROVIDER_FILES } from '../../../src/device/install/known-providers.ts'
import { inspectProvider, libraryVersions } from '../../../src/device/install/provider-files.ts'
import { pypiIndex } from '../../../src/device/install/registry-config.ts'
import { zipOf } from './zip-of.ts'

// No such version exists, so no digests are known, and an index's own decide.
const VERSION = '1.99.7'
const WHEEL = `onnxruntime_gpu-${VERSION}-cp312-cp312-manylinux_2_28_x86_64.whl`
const CUDA = library(VERSION, 300_000)
const SHARED = Buffer.from('shared library')

let root: string
let binding: Binding
let server: Server
let origin: string
let answer: (request: IncomingMessage, response: ServerResponse) => void

beforeAll(async () => {
  server = createServer((request, response) => answer(request, response)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => server.close())
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'anneal-cuda-'))
  binding = { version: VERSION, folder: join(root, 'binding'), platform: 'linux/x64' }
  mkdirSync(binding.folder)
  writeFileSync(join(binding.folder, 'libonnxruntime.so.1'), 'the runtime')
})
afterEach(() => rmSync(root, { recursive: true }))

/** Bytes in which a version stands as compilers put it. */
function library(version: string, size: number): Buffer {
  const bytes = Buffer.alloc(size, 0x41)
  bytes.write(`\0${version}\0`, size - 5000, 'latin1')
  return bytes
}

function wheel(cuda = CUDA): Buffer {
  return zipOf({
    'onnxruntime/__init__.py': Buffer.from('pass'),
    'onnxruntime/capi/libonnxruntime_providers_cuda.so': cuda,
    'onnxruntime/capi/libonnxruntime_providers_shared.so': SHARED,
  })
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const install = (changes: Partial<InstallOptions>) => installCuda({ binding, from: 'pypi', ...changes })
const installed = () => readdirSync(binding.folder).sort()
const UNTOUCHED = ['libonnxruntime.so.1']
const INSTALLED = ['anneal-cuda.json', ...UNTOUCHED, ...[...PROVIDER_FILES].sort()].sort()

/** An index with one wheel, in either of the forms that indexes have; the first answer ends at `cut`, and waits there for `breakOff`. */
function index(bytes: Buffer, options: { html?: boolean; cut?: number; digest?: string } = {}) {
  const { html = false, digest = sha256(bytes) } = options
  let { cut } = options
  const ranges: (string | undefined)[] = []
  let breakOff = () => {}
  answer = (request, response) => {
    if (request.url === '/simple/onnxruntime-gpu/') {
      const url = `../../files/${WHEEL}`
      const page = html
        ? `<html><a href="${url}#sha256=${digest}" data-requires-python="&gt;=3.11">${WHEEL}</a></html>`
        : JSON.stringify({
            files: [{ filename: WHEEL, url, hashes: { sha256: digest }, size: bytes.length }],
          })
      response.setHeader('content-type', html ? 'text/html' : 'application/vnd.pypi.simple.v1+json')
      response.end(page)
    } else if (request.url === `/files/${WHEEL}`) {
      ranges.push(request.headers.range)
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
      const headers = { 'content-length': bytes.length - start }
      response.writeHead(start > 0 ? 206 : 200, headers)
      if (cut === undefined) return void response.end(bytes.subarray(start))
      const end = cut
      cut = undefined
      response.write(bytes.subarray(start, end))
      breakOff = () => response.destroy()
    } else response.writeHead(404).end()
  }
  return { index: `${origin}/simple`, ranges, breakOff: () => breakOff() }
}

describe('installCuda', () => {
  it.each([false, true])('puts both libraries of an index beside the binding (HTML: %s)', async (html) => {
    const progress: number[] = []
    const manifest = await install({
      index: index(wheel(), { html }).index,
      onProgress: ({ done, total }) => progress.push(done / total),
    })
    expect(installed()).toEqual(INSTALLED)
    const cuda = readFileSync(join(binding.folder, 'libonnxruntime_providers_cuda.so'))
    expect(cuda.equals(CUDA)).toBe(true)
    expect(manifest).toMatchObject({ version: VERSION, source: WHEEL })
    expect(manifest.sha256).toEqual({
      'libonnxruntime_providers_cuda.so': sha256(CUDA),
      'libonnxruntime_providers_shared.so': sha256(SHARED),
    })
    expect(progress.at(-1)).toBe(1)
    expect(await inspectProvider(binding)).toEqual({
      present: [...PROVIDER_FILES],
      versions: [VERSION],
      manifest,
    })
  })

  it('is undone by removeCuda, which leaves the runtime as it was', async () => {
    await install({ index: index(wheel()).index })
    expect(await removeCuda(binding)).toBe(true)
    expect(installed()).toEqual(UNTOUCHED)
    expect(await removeCuda(binding)).toBe(false)
  })

  it('goes on with a broken download where it broke', async () => {
    const served = index(wheel(), { cut: 200 })
    await install({ index: served.index, onProgress: served.breakOff })
    expect(served.ranges).toEqual([undefined, 'bytes=200-'])
    expect(installed()).toEqual(INSTALLED)
  })

  it('keeps what was downloaded when it is stopped, and the next attempt takes it up', async () => {
    const served = index(wheel(), { cut: 200 })
    const stop = new AbortController()
    const onProgress = ({ done }: { done: number }) => done > 0 && stop.abort()
    const stopped = install({ index: served.index, signal: stop.signal, onProgress })
    await expect(stopped).rejects.toMatchObject({ kind: 'cancelled' })
    expect(installed()).toEqual(['.anneal-cuda-download', ...UNTOUCHED])
    await install({ index: served.index })
    expect(served.ranges.at(-1)).toMatch(/^bytes=\d+-$/)
    expect(installed()).toEqual(INSTALLED)
  })

  it('changes nothing when the download is not what the index lists', async () => {
    const served = index(wheel(), { digest: '0'.repeat(64) })
    await expect(install({ index: served.index })).rejects.toMatchObject({ code: 'download_digest_wrong' })
    expect(installed().filter((name) => !name.startsWith('.'))).toEqual(UNTOUCHED)
  })

  it('refuses a library of another version by name', async () => {
    const other = index(wheel(library('1.98.0', 9000)))
    await expect(install({ index: other.index })).rejects.toThrow(
      /is of onnxruntime 1\.98\.0; the installed onnxruntime-node is 1\.99\.7/,
    )
    binding = { ...binding, version: '1.99.8' }
    await expect(install({ index: other.index })).rejects.toThrow(
      /no wheel of onnxruntime-gpu 1\.99\.8 .*newest versions there: 1\.99\.7/,
    )
    expect(existsSync(join(binding.folder, 'libonnxruntime_providers_cuda.so'))).toBe(false)
  })

  it('takes a local wheel, folder or tarball only with a digest that is known or given', async () => {
    const file = join(root, WHEEL)
    writeFileSync(file, wheel())
    await expect(install({ from: file })).rejects.toMatchObject({ code: 'unknown_digest' })
    await expect(install({ from: file, sha256: '0'.repeat(64) })).rejects.toMatchObject({
      code: 'digest_wrong',
    })
    await expect(install({ from: file, sha256: 'no' })).rejects.toMatchObject({ code: 'invalid_digest' })
    expect(installed()).toEqual(UNTOUCHED)
    await install({ from: file, sha256: sha256(wheel()) })
    expect(installed()).toEqual(INSTALLED)

    const folder = join(root, 'unpacked')
    mkdirSync(folder)
    writeFileSync(join(folder, 'libonnxruntime_providers_cuda.so'), CUDA)
    await expect(install({ from: folder, sha256: sha256(CUDA) })).rejects.toThrow(/holds no .*shared\.so/)
    writeFileSync(join(folder, 'libonnxruntime_providers_shared.so'), SHARED)
    expect(await install({ from: folder, sha256: sha256(CUDA) })).toMatchObject({ source: 'unpacked' })

    const tarball = join(root, 'package.tgz')
    writeFileSync(tarball, await tarballOf())
    await install({ from: tarball, sha256: sha256(readFileSync(tarball)) })
    expect(installed()).toEqual(INSTALLED)
  })

  it('takes an npm package by name from the registry, never without a name', async () => {
    const bytes = await tarballOf()
    answer = (request, response) => {
      const integrity = `sha512-${createHash('sha512').update(bytes).digest('base64')}`
      if (request.url === '/@some%2fcuda/1.0.0')
        response.end(JSON.stringify({ dist: { tarball: `${origin}/cuda-1.0.0.tgz`, integrity } }))
      else response.writeHead(200, { 'content-length': bytes.length }).end(bytes)
    }
    const from = 'npm:@some/cuda@1.0.0'
    await expect(install({ from, index: origin })).rejects.toMatchObject({ code: 'unknown_digest' })
    await install({ from, index: origin, sha256: sha256(bytes) })
    expect(installed()).toEqual(INSTALLED)
    await expect(install({ from: 'npm' })).rejects.toMatchObject({ code: 'no_npm_package' })
    await expect(install({ from: 'npm:../x' })).rejects.toMatchObject({ code: 'invalid_package' })
    for (const wrong of ['pypi.example/simple', 'file:///tmp', 'https://'])
      await expect(install({ index: wrong }), wrong).rejects.toMatchObject({ code: 'invalid_index' })
  })

  it('takes an address with a password, and shows it nowhere', async () => {
    const bytes = wheel()
    let authorization: string | undefined
    answer = (request, response) => {
      authorization = request.headers.authorization
      response.writeHead(200, { 'content-length': bytes.length }).end(bytes)
    }
    const from = `${origin.replace('//', '//user:secret@')}/${WHEEL}`
    const manifest = await install({ from, sha256: sha256(bytes) })
    expect(authorization).toBe(`Basic ${Buffer.from('user:secret').toString('base64')}`)
    expect(manifest.source).toBe(`${origin}/${WHEEL}`)
    answer = (_, response) => response.writeHead(403).end()
    const refused = await install({ from }).catch((error: Error) => error.message)
    expect(refused).toContain('it gives no access')
    expect(refused).not.toContain('secret')
  })

  it('leaves files alone that something else has put there', async () => {
    writeFileSync(join(binding.folder, 'libonnxruntime_providers_cuda.so'), 'of another')
    await expect(install({})).rejects.toMatchObject({ code: 'provider_exists' })
    await expect(removeCuda(binding)).rejects.toMatchObject({ code: 'provider_exists' })
  })

  it('refuses other platforms, broken archives and sources that do not exist', async () => {
    await expect(install({ binding: { ...binding, platform: 'darwin/arm64' } })).rejects.toThrow(
      /linux\/x64 only; this is darwin\/arm64/,
    )
    await expect(install({ from: join(root, 'absent.whl') })).rejects.toMatchObject({
      code: 'source_not_found',
    })
    const whole = wheel()
    const damaged = Buffer.from(whole)
    damaged.fill(0xff, 120, 150) // inside of a packed file
    const archives = {
      'text.whl': Buffer.from('no archive'),
      'short.whl': whole.subarray(0, whole.length - 400),
      'damaged.whl': damaged,
      'other.whl': zipOf({ 'README.md': Buffer.from('nothing') }),
      'text.tgz': Buffer.from('no archive'),
      'other.tgz': gzipSync(Buffer.alloc(1024)),
    }
    for (const [name, bytes] of Object.entries(archives)) {
      const from = join(root, name)
      writeFileSync(from, bytes)
      const code = name.startsWith('other') ? 'archive_without_library' : 'archive_broken'
      await expect(install({ from, sha256: sha256(bytes) }), name).rejects.toMatchObject({ code })
    }
    expect(installed()).toEqual(UNTOUCHED)
  })
})

async function tarballOf(): Promise<Buffer> {
  const archive = pack()
  archive.entry({ name: 'package/lib/libonnxruntime_providers_shared.so' }, SHARED)
  archive.entry({ name: 'package/lib/libonnxruntime_providers_cuda.so' }, CUDA)
  archive.entry({ name: '../../libonnxruntime_providers_cuda.so' }, 'a second one, which is not taken')
  archive.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of archive) chunks.push(chunk as Buffer)
  return gzipSync(Buffer.concat(chunks))
}

describe('libraryVersions', () => {
  it('finds a version across the border of two reads, and no version inside of longer texts', async () => {
    const file = join(root, 'library.so')
    writeFileSync(file, Buffer.alloc((4 << 20) - 4, 0x41))
    appendFileSync(file, '\x001.30.0\x00text 1.2.3\x00libcudart.so.1.2.3\x00')
    expect(await libraryVersions(file)).toEqual(['1.30.0'])
  })
})

describe('pypiIndex', () => {
  it("asks where pip would ask: the variable, then pip's files, then the public index", () => {
    const home = join(root, 'home')
    mkdirSync(join(home, '.config/pip'), { recursive: true })
    const file = join(home, '.config/pip/pip.conf')
    writeFileSync(file, '[global]\ntimeout = 60\nindex-url = https://mirror.example/simple\n')
    expect(pypiIndex({ HOME: home })).toBe('https://mirror.example/simple')
    const other = 'https://other.example/simple'
    expect(pypiIndex({ HOME: home, PIP_INDEX_URL: other })).toBe(other)
    writeFileSync(
      join(root, 'pip.conf'),
      `[global]\nindex-url = https://x.example\n[install]\nindex_url: ${other}\n`,
    )
    expect(pypiIndex({ HOME: home, PIP_CONFIG_FILE: join(root, 'pip.conf') })).toBe(other)
  })
})
