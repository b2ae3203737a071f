import { createHash } from 'node:crypto'
import { existsSync, rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readModelfile } from '../../../src/services/modelfile.ts'
import { ggufBytes } from '../../engine/gguf/gguf-bytes.ts'
import { tinyMetadata, tinyTensors } from '../../engine/gguf/tiny-gguf.ts'
import { type PublishedServer, publish, startEmptyServer } from '../published.ts'

const ID = 'export-0123456789ab'
const gguf = ggufBytes(tinyMetadata('llama', { 'general.file_type': { u32: 0 } }), tinyTensors())
const modelfile = `# made by an export
FROM ./model.gguf
TEMPLATE """{{ if .System }}<|system|>
{{ .System }}{{ end }}{{ .Prompt }}"""
SYSTEM "Be brief."
PARAMETER stop "<|im_end|>"
PARAMETER stop 100
PARAMETER num_ctx 4096
`
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

let server: PublishedServer
beforeAll(async () => {
  server = await startEmptyServer()
  await publish(server, 'export', ID, { 'model.gguf': gguf, Modelfile: modelfile })
  await publish(server, 'export', 'export-00000000000a', { 'model.safetensors': 'no gguf' })
})
afterAll(async () => {
  await server.close()
  rmSync(server.root, { recursive: true })
})

const accept = 'application/vnd.docker.distribution.manifest.v2+json'
const get = (path: string, init: RequestInit = {}) => fetch(`${server.url}/v2/anneal/${path}`, init)

interface Layer {
  mediaType: string
  digest: string
  size: number
}

async function manifest(): Promise<{ config: Layer; layers: Layer[]; schemaVersion: number }> {
  const response = await get(`${ID}/manifests/latest`, { headers: { accept } })
  expect([response.status, response.headers.get('content-type')]).toEqual([200, accept])
  return (await response.json()) as Awaited<ReturnType<typeof manifest>>
}

describe("Ollama's pull", () => {
  it('gets each layer with HEAD, a GET that says where, and ranges from there, and every digest is right', async () => {
    const { config, layers, schemaVersion } = await manifest()
    expect(schemaVersion).toBe(2)
    for (const { digest, size } of [...layers, config]) {
      const path = `${ID}/blobs/${digest}`
      const head = await get(path, { method: 'HEAD' })
      expect([head.status, head.headers.get('content-length')]).toEqual([200, String(size)])
      const whole = await get(path)
      await whole.body?.cancel()
      const place = new URL(whole.headers.get('location') ?? '', whole.url)
      expect([whole.status, place.pathname]).toEqual([200, `/v2/anneal/${path}`])
      const middle = Math.floor(size / 2)
      const parts: Buffer[] = []
      for (const range of [`bytes=0-${middle - 1}`, `bytes=${middle}-${size - 1}`]) {
        const part = await fetch(place, { headers: { range } })
        expect(part.status).toBe(206)
        parts.push(Buffer.from(await part.arrayBuffer()))
      }
      expect(`sha256:${sha256(Buffer.concat(parts))}`).toBe(digest)
    }
  })

  it('finds the GGUF, the template, the system text and the parameters of the Modelfile', async () => {
    const { config, layers } = await manifest()
    const kinds = layers.map(({ mediaType }) => mediaType.replace('application/vnd.ollama.image.', ''))
    expect(kinds).toEqual(['model', 'template', 'system', 'params'])
    expect(layers[0]).toMatchObject({ digest: `sha256:${sha256(gguf)}`, size: gguf.length })
    const read = async ({ digest }: Layer) => (await get(`${ID}/blobs/${digest}`)).text()
    expect(await read(layers[1]!)).toBe('{{ if .System }}<|system|>\n{{ .System }}{{ end }}{{ .Prompt }}')
    expect(JSON.parse(await read(layers[3]!))).toEqual({ stop: ['<|im_end|>', '100'], num_ctx: 4096 })
    expect(JSON.parse(await read(config))).toMatchObject({
      model_format: 'gguf',
      model_family: 'llama',
      file_type: 'F32',
      rootfs: { diff_ids: layers.map(({ digest }) => digest) },
    })
  })

  it('accepts the digest with a dash, as older versions ask', async () => {
    const [layer] = (await manifest()).layers
    expect((await get(`${ID}/blobs/${layer!.digest.replace(':', '-')}`)).status).toBe(200)
  })

  it.each([
    [`${ID}/manifests/q4`, 404, 'tag_not_found'],
    ['export-00000000000a/manifests/latest', 404, 'image_not_found'],
    ['export-999999999999/manifests/latest', 404, 'image_not_found'],
    [`${ID}/blobs/sha256:${'0'.repeat(64)}`, 404, 'blob_not_found'],
    [`${ID}/blobs/sha256:..%2f..%2fanneal.db`, 400, 'invalid_digest'],
    [`${ID}/blobs/sha512:${'0'.repeat(64)}`, 400, 'invalid_digest'],
  ])('answers %s with %i', async (path, status, code) => {
    const response = await get(path)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ error: { code } })
  })

  it('knows no other namespace', async () => {
    expect((await fetch(`${server.url}/v2/other/${ID}/manifests/latest`)).status).toBe(404)
    expect((await fetch(`${server.url}/v2/`)).status).toBe(200)
  })
})

describe('DELETE /v1/models/{id}', () => {
  it('removes an export that is no model here', async () => {
    const id = 'export-00000000000b'
    const outputDir = await publish(server, 'export', id, { 'model.gguf': gguf })
    expect((await get(`${id}/manifests/latest`)).status).toBe(200)
    expect((await fetch(`${server.url}/v1/models/${id}`, { method: 'DELETE' })).status).toBe(200)
    expect((await get(`${id}/manifests/latest`)).status).toBe(404)
    expect(existsSync(outputDir)).toBe(false)
    expect((await fetch(`${server.url}/v1/models/${id}`, { method: 'DELETE' })).status).toBe(404)
  })
})

describe('readModelfile', () => {
  it('reads values in triple quotes, in quotes and bare, with any line ending', () => {
    expect(
      readModelfile('system plain text\r\nPARAMETER temperature 0.5\r\nLICENSE """a\r\nb"""\r\n'),
    ).toEqual({
      system: 'plain text',
      license: 'a\nb',
      parameters: { temperature: 0.5 },
    })
  })
})
