import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { extract, type Header } from 'tar-stream'
import { describe, expect, it, vi } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { attachment, parseRange } from '../../routes/files.ts'
import { archiveOf } from '../../routes/tar.ts'
import { FakeServices, fakeExport, fakeOptions, fakeRun, sha256, storedBytes } from './fake-services.ts'
import { serveApp } from './serve.ts'

const weights = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 251)
const weightsPath = '/v1/exports/export-1/files/model.safetensors'
const archivePath = '/v1/exports/export-1/archive.tar'
const longName = `${'deep/'.repeat(30)}file with ünïcode.json`

function setup() {
  const services = new FakeServices()
  services.exports.add(fakeExport('export-1'))
  services.exports.contents.set('model.safetensors', weights)
  services.exports.contents.set('config.json', Buffer.from('{}'))
  services.exports.contents.set('empty.txt', new Uint8Array(0))
  services.exports.contents.set(longName, Buffer.from('long'))
  const app = createApp(services.asServices(), fakeOptions())
  const get = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
    app.request(path, { headers, method })
  return { services, get }
}

const bytesOf = async (response: Response) => new Uint8Array(await response.arrayBuffer())

describe('parseRange', () => {
  it.each([
    ['bytes=0-0', { start: 0, end: 0 }],
    ['bytes=5-', { start: 5, end: 9 }],
    ['bytes=5-100', { start: 5, end: 9 }],
    ['bytes=-3', { start: 7, end: 9 }],
    ['bytes=-100', { start: 0, end: 9 }],
    ['bytes=10-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=0-1,3-4', undefined],
    ['bytes=4-2', undefined],
    ['bytes=-', undefined],
    ['items=0-1', undefined],
    ['nonsense', undefined],
    [undefined, undefined],
  ])('reads %s of ten bytes', (header, expected) => {
    expect(parseRange(header, 10)).toEqual(expected)
  })

  it('never leaves the content, whatever the header', () => {
    fc.assert(
      fc.property(fc.string(), fc.nat(), fc.nat(), fc.nat(1000), (text, from, to, size) => {
        for (const header of [text, `bytes=${text}`, `bytes=${from}-${to}`, `bytes=-${to}`]) {
          const range = parseRange(header, size)
          if (range === undefined || range === 'unsatisfiable') continue
          expect(range.start).toBeGreaterThanOrEqual(0)
          expect(range.end).toBeGreaterThanOrEqual(range.start)
          expect(range.end).toBeLessThan(size)
        }
      }),
    )
  })
})

describe('GET /v1/exports/{id}/files/{path}', () => {
  it('sends the whole file with its digest as validator', async () => {
    const { get } = setup()
    const response = await get(weightsPath)
    expect(response.status).toBe(200)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      etag: `"${sha256(weights)}"`,
      'repr-digest': `sha-256=:${Buffer.from(sha256(weights), 'hex').toString('base64')}:`,
      'accept-ranges': 'bytes',
      'content-length': '1000',
      'content-disposition': `attachment; filename="model.safetensors"; filename*=UTF-8''model.safetensors`,
      'x-content-type-options': 'nosniff',
    })
    expect(response.headers.has('content-encoding')).toBe(false)
    expect(await bytesOf(response)).toEqual(weights)
  })

  it('sends one range and reads only that', async () => {
    const { get, services } = setup()
    const response = await get(weightsPath, { range: 'bytes=100-199' })
    expect(response.status).toBe(206)
    expect(response.headers.get('content-range')).toBe('bytes 100-199/1000')
    expect(response.headers.get('content-length')).toBe('100')
    expect(await bytesOf(response)).toEqual(weights.slice(100, 200))
    expect(services.exports.reads).toEqual([['model.safetensors', 100, 199]])
  })

  it('answers 416 with the size for a range outside', async () => {
    const response = await setup().get(weightsPath, { range: 'bytes=1000-' })
    expect(response.status).toBe(416)
    expect(response.headers.get('content-range')).toBe('bytes */1000')
  })

  it('honours If-Range for the exact strong validator only', async () => {
    const { get } = setup()
    const etag = `"${sha256(weights)}"`
    const range = 'bytes=0-9'
    expect((await get(weightsPath, { range, 'if-range': etag })).status).toBe(206)
    for (const other of ['"other"', `W/${etag}`, 'Wed, 21 Oct 2015 07:28:00 GMT']) {
      expect((await get(weightsPath, { range, 'if-range': other })).status, other).toBe(200)
    }
  })

  it('answers 304 without reading when the client has it', async () => {
    const { get, services } = setup()
    const etag = `"${sha256(weights)}"`
    for (const tags of [etag, `"x", W/${etag}`, '*']) {
      const response = await get(weightsPath, { 'if-none-match': tags })
      expect([response.status, response.headers.get('etag')], tags).toEqual([304, etag])
    }
    expect((await get(weightsPath, { 'if-none-match': '"x"' })).status).toBe(200)
    expect(services.exports.reads).toHaveLength(1)
  })

  it('answers HEAD like GET without reading', async () => {
    const { get, services } = setup()
    const whole = await get(weightsPath)
    const head = await get(weightsPath, { range: 'bytes=0-1' }, 'HEAD')
    expect(head.status).toBe(200)
    const compared = ['content-length', 'etag', 'repr-digest', 'accept-ranges', 'content-disposition']
    for (const name of compared) expect(head.headers.get(name), name).toBe(whole.headers.get(name))
    expect(services.exports.reads).toHaveLength(1)
  })

  it('finds files in folders, encoded or not, and decodes a path once', async () => {
    const { get } = setup()
    const inFolders = longName.split('/').map(encodeURIComponent).join('/')
    for (const path of [inFolders, encodeURIComponent(longName)]) {
      const response = await get(`/v1/exports/export-1/files/${path}`)
      expect(await response.text()).toBe('long')
      expect(response.headers.get('content-disposition')).toContain(
        "filename*=UTF-8''file%20with%20%C3%BCn%C3%AFcode.json",
      )
    }
    for (const path of ['config%252ejson', '..%2f..%2fetc%2fpasswd', '%2e%2e/x', 'CONFIG.json', 'x%00']) {
      expect((await get(`/v1/exports/export-1/files/${path}`)).status, path).toBe(404)
    }
  })

  it('gives nothing to an If-Match that names something else', async () => {
    const { get } = setup()
    const etag = `"${sha256(weights)}"`
    const statusFor = async (value: string) => (await get(weightsPath, { 'if-match': value })).status
    expect(await statusFor('"other"')).toBe(412)
    expect(await statusFor(`W/${etag}`)).toBe(412)
    expect(await statusFor(`"other", ${etag}`)).toBe(200)
    expect(await statusFor('*')).toBe(200)
  })

  it('sends an empty file', async () => {
    const response = await setup().get('/v1/exports/export-1/files/empty.txt')
    expect([response.status, response.headers.get('content-length')]).toEqual([200, '0'])
    expect(await response.text()).toBe('')
  })

  it('breaks the connection when a file turns out shorter, so that it never looks complete', async () => {
    const services = new FakeServices()
    services.exports.add(fakeExport('export-1'))
    services.exports.contents.set('model.safetensors', weights)
    const original = services.exports.file.bind(services.exports)
    services.exports.file = async (id, path) => ({ ...(await original(id, path)), size: 2000 })
    const base = await serveApp(services)
    const log = vi.spyOn(console, 'error').mockImplementation(() => {}) // the HTTP adapter prints what broke a stream
    const response = await fetch(base + weightsPath)
    await expect(response.arrayBuffer()).rejects.toThrow()
    expect(String(log.mock.calls[0]?.[0])).toContain('2000 bytes were promised, 1000 were read')
    log.mockRestore()
  })

  it('stops reading when the client goes', async () => {
    const services = new FakeServices()
    services.exports.add(fakeExport('export-1'))
    services.exports.contents.set('model.safetensors', weights)
    const source = new Readable({ read: () => source.push(Buffer.alloc(65536)) })
    services.exports.file = async (_id, path) => ({
      path,
      sha256: sha256(weights),
      size: 1e12,
      read: async () => source,
    })
    const response = await fetch((await serveApp(services)) + weightsPath)
    const reader = response.body!.getReader()
    await reader.read()
    const closed = new Promise((resolve) => source.once('close', resolve))
    await reader.cancel()
    await closed
    expect(source.destroyed).toBe(true)
  })
})

describe('attachment', () => {
  it('keeps quotes, controls and other scripts out of the plain name', () => {
    expect(attachment('a"b\\c\r\n.txt')).toMatch(
      /^attachment; filename="a_b_c__\.txt"; filename\*=UTF-8''a%22b/,
    )
    expect(attachment("it's (1).txt")).toContain("filename*=UTF-8''it%27s%20%281%29.txt")
  })
})

describe('GET /v1/exports/{id}/archive.tar', () => {
  it('is a tar that the system unpacks, folders, long names and empty files included', async () => {
    const { get, services } = setup()
    const response = await get(archivePath)
    const archive = await bytesOf(response)
    expect(response.headers.get('content-length')).toBe(String(archive.length))
    expect(response.headers.get('content-disposition')).toContain('export-1.tar')
    const folder = mkdtempSync(join(tmpdir(), 'anneal-tar-'))
    try {
      writeFileSync(join(folder, 'a.tar'), archive)
      const listing = execFileSync('tar', ['-tf', 'a.tar', '--quoting-style=literal'], {
        cwd: folder,
        encoding: 'utf8',
      })
      const names = [...services.exports.contents.keys()].sort()
      expect(listing.trim().split('\n')).toEqual(names.map((name) => `export-1/${name}`))
      execFileSync('tar', ['-xf', 'a.tar'], { cwd: folder })
      for (const [name, content] of services.exports.contents) {
        expect(new Uint8Array(readFileSync(join(folder, 'export-1', name)))).toEqual(new Uint8Array(content))
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('keeps the export from being deleted until it has gone out, or its reader has gone', async () => {
    const { get, services } = setup()
    const whole = await get(archivePath)
    expect(services.exports.held).toBe(1)
    await whole.arrayBuffer()
    expect(services.exports.held).toBe(0)
    const left = await get(archivePath)
    await left.body!.cancel()
    await get(archivePath, {}, 'HEAD')
    expect(services.exports.held).toBe(0)
  })

  it('has the same bytes and validator each time, and another validator for other content', async () => {
    const { get, services } = setup()
    const [first, second] = [await get(archivePath), await get(archivePath)]
    expect(await bytesOf(first)).toEqual(await bytesOf(second))
    const etag = first.headers.get('etag')
    expect(etag).toMatch(/^"[0-9a-f]{64}"$/)
    expect(second.headers.get('etag')).toBe(etag)
    services.exports.contents.set('config.json', Buffer.from('[]'))
    expect((await get(archivePath)).headers.get('etag')).not.toBe(etag)
  })

  it('answers any range with the bytes of the whole', async () => {
    const { get } = setup()
    const whole = await bytesOf(await get(archivePath))
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.nat(4000), async (start, length) => {
        const part = await get(archivePath, { range: `bytes=${start}-${start + length}` })
        expect(part.status).toBe(206)
        expect(await bytesOf(part)).toEqual(whole.slice(start, start + length + 1))
      }),
      { numRuns: 50 },
    )
  })

  it('knows its size without opening a file, also beyond 8 GiB', async () => {
    const { get, services } = setup()
    const head = await get(archivePath, {}, 'HEAD')
    expect(Number(head.headers.get('content-length')) % 512).toBe(0)
    expect(services.exports.opened).toEqual([])
    const bytes = 9 * 1024 ** 3
    const entry = { object: 'export.file' as const, path: 'big', bytes, sha256: sha256(weights) }
    const archive = archiveOf('export-1', [entry], async () => Promise.reject(new Error('not to be opened')))
    const reader = extract()
    const header = new Promise<Header>((resolve) => reader.on('entry', resolve))
    for await (const chunk of await archive.read(0, 1535)) reader.write(chunk)
    expect(await header).toMatchObject({ name: 'export-1/big', size: bytes, mtime: new Date(0), uid: 0 })
    reader.destroy()
    expect(archive.size).toBe(bytes + 5 * 512)
  })
})

describe('GET /v1/training/runs/{id}/log', () => {
  function withLog(content: string) {
    const services = new FakeServices()
    services.training.add(fakeRun('run-1'))
    services.training.text = storedBytes(Buffer.from(content))
    const app = createApp(services.asServices(), fakeOptions())
    return (query = '') => app.request(`/v1/training/runs/run-1/log${query}`)
  }

  it('is plain text in UTF-8', async () => {
    const response = await withLog('loss 1.0\nBär\n')()
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(await response.text()).toBe('loss 1.0\nBär\n')
    expect(await (await withLog('')()).text()).toBe('')
  })

  it('gives the last bytes, cut at a character', async () => {
    const get = withLog('aä🌍z')
    const tails = await Promise.all(
      [1, 2, 3, 4, 5, 6, 7, 8, 9].map(async (n) => (await get(`?tail=${n}`)).text()),
    )
    expect(tails).toEqual(['z', 'z', 'z', 'z', '🌍z', '🌍z', 'ä🌍z', 'aä🌍z', 'aä🌍z'])
  })

  it('refuses a tail that is no positive number', async () => {
    for (const tail of ['0', '-1', 'x', '1.5']) {
      expect((await withLog('a')(`?tail=${tail}`)).status, tail).toBe(400)
    }
  })
})
