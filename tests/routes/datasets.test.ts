import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { FakeServices } from './fake-services.ts'
import { serveApp, until } from './serve.ts'

const rows = JSON.stringify([{ instruction: 'Hi', output: 'Hello' }])

async function setup(maxUploadBytes = 10_000) {
  const services = new FakeServices()
  const base = await serveApp(services, { maxUploadBytes })
  const get = (path: string) => fetch(base + path)
  const upload = (body: FormData | string, headers: Record<string, string> = {}) =>
    fetch(`${base}/v1/datasets`, { method: 'POST', body, headers })
  const convert = (body: object) =>
    fetch(`${base}/v1/datasets/faq/convert`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  return { services, base, get, upload, convert }
}

function form(...parts: [string, string | Blob, string?][]): FormData {
  const data = new FormData()
  for (const [name, value, fileName] of parts) {
    if (typeof value === 'string') data.append(name, value)
    else data.append(name, value, fileName)
  }
  return data
}

const file = (content = rows): [string, Blob, string] => ['file', new Blob([content]), 'faq.json']
const errorOf = async (response: Response) =>
  ((await response.json()) as { error: { code: string; param: string | null } }).error

describe('POST /v1/datasets', () => {
  it.each(['first', 'last'])('takes the file %s', async (position) => {
    const { upload, services } = await setup()
    const fields: [string, string][] = [
      ['name', 'faq'],
      ['columns', '{"prompt":"query"}'],
    ]
    const response = await upload(position === 'first' ? form(file(), ...fields) : form(...fields, file()))
    expect(response.status).toBe(201)
    expect(await response.json()).toMatchObject({ name: 'faq', object: 'dataset' })
    const stored = services.datasets.registered.get('faq')
    expect(stored?.content.toString()).toBe(rows)
    expect(stored?.fileName).toBe('faq.json')
    expect(stored?.fields).toEqual({ name: 'faq', formatting: 'alpaca', columns: { prompt: 'query' } })
    expect(services.datasets.staged.size).toBe(0)
  })

  it.each<[string, string | null, FormData]>([
    ['missing_field', 'name', form(file())],
    ['missing_field', 'file', form(['name', 'faq'])],
    ['invalid_value', 'name', form(file(), ['name', '../faq'])],
    ['invalid_value', 'formatting', form(file(), ['name', 'faq'], ['formatting', 'x'])],
    ['unknown_field', 'colums', form(file(), ['name', 'faq'], ['colums', '{}'])],
    ['invalid_json', 'columns', form(file(), ['name', 'faq'], ['columns', '{'])],
    ['invalid_value', 'tags', form(file(), ['name', 'faq'], ['tags', '[]'])],
    ['invalid_multipart', 'name', form(file(), ['name', 'a'], ['name', 'b'])],
    ['invalid_multipart', 'file', form(file(), file(), ['name', 'faq'])],
    ['invalid_multipart', 'data', form(['data', new Blob(['x']), 'x.json'], ['name', 'faq'])],
    ['invalid_multipart', 'columns', form(file(), ['name', 'faq'], ['columns', 'x'.repeat(70_000)])],
  ])('answers %s at %s and keeps nothing', async (code, param, data) => {
    const { upload, services } = await setup(1_000_000)
    const response = await upload(data)
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ code, param })
    expect([services.datasets.staged.size, services.datasets.registered.size]).toEqual([0, 0])
  })

  it('discards what the application refuses', async () => {
    const { upload, services } = await setup()
    await upload(form(['name', 'faq'], file()))
    const again = await upload(form(['name', 'faq'], file()))
    expect(again.status).toBe(409)
    expect(services.datasets.staged.size).toBe(0)
  })

  it('wants a multipart body with a boundary', async () => {
    const { upload } = await setup()
    expect((await upload('{}', { 'content-type': 'application/json' })).status).toBe(415)
    expect((await upload('x', { 'content-type': 'multipart/form-data' })).status).toBe(415)
    const noBoundary = await upload('x', { 'content-type': 'multipart/form-data; charset=utf-8' })
    expect(await errorOf(noBoundary)).toMatchObject({ code: 'invalid_multipart' })
    const cut = '--b\r\ncontent-disposition: form-data; name="file"; filename="a.json"\r\n\r\n[{'
    const { upload: other, services } = await setup()
    const broken = await other(cut, { 'content-type': 'multipart/form-data; boundary=b' })
    expect([broken.status, (await errorOf(broken)).code]).toEqual([400, 'invalid_multipart'])
    expect(services.datasets.staged.size).toBe(0)
  })

  it('answers 413 above the limit, whether the size is announced or not, and keeps nothing', async () => {
    const { services, upload } = await setup(10_000)
    const announced = await upload(form(file('x'.repeat(2_000_000))))
    expect([announced.status, (await errorOf(announced)).param]).toEqual([413, 'file'])
    const slightly = await upload(form(file('x'.repeat(10_001))))
    expect([slightly.status, (await errorOf(slightly)).param]).toEqual([413, 'file'])
    expect([services.datasets.staged.size, services.datasets.registered.size]).toEqual([0, 0])
  })

  it('drops the file of a client that disconnects in the middle', async () => {
    const { services, base } = await setup()
    const { hostname, port } = new URL(base)
    const socket = connect(Number(port), hostname)
    socket.write(
      'POST /v1/datasets HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n' +
        'content-type: multipart/form-data; boundary=b\r\n\r\n' +
        '--b\r\ncontent-disposition: form-data; name="file"; filename="a.json"\r\n\r\n[{"a":',
    )
    await until(() => services.datasets.stageStarts === 1)
    socket.destroy()
    await until(() => services.datasets.stageFailures === 1)
    expect(services.datasets.staged.size).toBe(0)
  })
})

describe('other dataset routes', () => {
  it('list, convert and preview', async () => {
    const { get, upload, convert } = await setup()
    await upload(form(['name', 'faq'], file()))
    expect(await (await get('/v1/datasets')).json()).toMatchObject({ data: [{ name: 'faq' }] })
    const converted = await convert({ name: 'faq2', rename: { query: 'instruction' } })
    expect([converted.status, await converted.json()]).toMatchObject([201, { name: 'faq2' }])
    expect(await errorOf(await convert({ name: 'faq2', rename: {} }))).toMatchObject({ param: 'rename' })
    const preview = await get('/v1/datasets/faq/preview?offset=3&model=tiny&train_on_prompt=true')
    expect(await preview.json()).toMatchObject({ offset: 3, model: 'tiny' })
    expect((await get('/v1/datasets/faq/preview?limit=0')).status).toBe(400)
    expect((await get('/v1/datasets/..%2fetc/preview')).status).toBe(400)
  })
})
