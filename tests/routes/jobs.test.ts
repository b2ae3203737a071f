import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { FakeServices, fakeEvent, fakeMerge, fakeOptions, fakeRun } from './fake-services.ts'
import { serveApp, until } from './serve.ts'

const runs = '/v1/training/runs'
const config = { model_name_or_path: 'tiny', dataset: 'identity' }
const post = (body?: unknown) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  ...(body === undefined ? {} : { body: JSON.stringify(body) }),
})

function setup() {
  const services = new FakeServices()
  const app = createApp(services.asServices(), fakeOptions())
  return { services, app }
}

const idsOf = (text: string) => [...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id))

describe('GET /v1/training/runs', () => {
  it('goes through all runs page by page', async () => {
    const { app, services } = setup()
    for (let i = 1; i <= 5; i++) services.training.add(fakeRun(`run-${i}`))
    const seen: string[] = []
    let after = ''
    for (let more = true; more; ) {
      const response = await app.request(`${runs}?limit=2${after && `&after=${after}`}`)
      const page = (await response.json()) as { data: { id: string }[]; last_id: string; has_more: boolean }
      seen.push(...page.data.map((run) => run.id))
      after = page.last_id
      more = page.has_more
    }
    expect(seen).toEqual(['run-1', 'run-2', 'run-3', 'run-4', 'run-5'])
  })

  it('refuses limits outside 1 to 100', async () => {
    const { app } = setup()
    for (const limit of ['0', '101', 'x', '1.5']) {
      const response = await app.request(`${runs}?limit=${limit}`)
      expect(response.status, limit).toBe(400)
      expect(await response.json()).toMatchObject({ error: { param: 'limit' } })
    }
  })

  it('is an empty page when there is none', async () => {
    expect(await (await setup().app.request(runs)).json()).toEqual({
      object: 'list',
      data: [],
      first_id: null,
      last_id: null,
      has_more: false,
    })
  })
})

describe('a training run', () => {
  it('is created from the body as it came and found under its id', async () => {
    const { app, services } = setup()
    const created = await app.request(runs, post(config))
    expect(created.status).toBe(201)
    const { id } = (await created.json()) as { id: string }
    expect(services.training.bodies).toEqual([config])
    expect(await (await app.request(`${runs}/${id}`)).json()).toMatchObject({ id, status: 'queued' })
    expect((await app.request(`${runs}/other`)).status).toBe(404)
  })

  it('has checkpoints that are model ids, and a picture', async () => {
    const { app, services } = setup()
    services.training.add(fakeRun('run-1'))
    expect(await (await app.request(`${runs}/run-1/checkpoints`)).json()).toMatchObject({
      object: 'list',
      data: [{ id: 'run-1:ckpt-step-5', step: 5 }],
    })
    const picture = await app.request(`${runs}/run-1/loss.png`)
    expect(picture.headers.get('content-type')).toBe('image/png')
    expect((await picture.arrayBuffer()).byteLength).toBe(4)
  })

  it('is cancelled while it runs, resumed, and deleted when it is finished', async () => {
    const { app, services } = setup()
    services.training.add(fakeRun('run-1', 'running'))
    expect(await (await app.request(`${runs}/run-1/cancel`, post())).json()).toMatchObject({
      status: 'cancelling',
    })
    const busy = await app.request(`${runs}/run-1`, { method: 'DELETE' })
    expect([busy.status, busy.headers.get('x-should-retry')]).toEqual([409, 'false'])
    services.training.add(fakeRun('run-1', 'cancelled'))
    const late = await app.request(`${runs}/run-1/cancel`, post())
    expect([late.status, late.headers.get('x-should-retry')]).toEqual([409, 'false'])
    expect(await (await app.request(`${runs}/run-1/resume`, post())).json()).toMatchObject({
      status: 'queued',
    })
    const gone = await app.request(`${runs}/run-1`, { method: 'DELETE' })
    expect(await gone.json()).toEqual({ id: 'run-1', object: 'training.run', deleted: true })
    expect((await app.request(`${runs}/run-1`)).status).toBe(404)
  })

  it('is previewed without being created', async () => {
    const { app, services } = setup()
    const response = await app.request('/v1/training/preview', post(config))
    expect(await response.json()).toMatchObject({ object: 'training.preview', total_steps: 15 })
    expect(services.training.items.size).toBe(0)
  })
})

describe('events', () => {
  function withEvents(status: 'succeeded' | 'running' = 'succeeded') {
    const { services, app } = setup()
    const events = [fakeEvent(1, 'started'), fakeEvent(2), fakeEvent(5), fakeEvent(6, 'succeeded')]
    services.training.add(fakeRun('run-1', status), events)
    const get = (query = '', headers = {}) => app.request(`${runs}/run-1/events${query}`, { headers })
    return { services, get }
  }

  it('come with id, type and data, and end after the last one of a finished job', async () => {
    const response = await withEvents().get()
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    const text = await response.text()
    expect(idsOf(text)).toEqual([1, 2, 5, 6])
    const [first] = text.split('\n\n')
    expect(first).toBe(`id: 1\nevent: started\ndata: ${JSON.stringify(fakeEvent(1, 'started'))}`)
  })

  it('go on after Last-Event-ID, which goes before `after`', async () => {
    const { get } = withEvents()
    expect(idsOf(await (await get('?after=2')).text())).toEqual([5, 6])
    expect(idsOf(await (await get('', { 'last-event-id': '1' })).text())).toEqual([2, 5, 6])
    expect(idsOf(await (await get('?after=0', { 'last-event-id': '5' })).text())).toEqual([6])
    expect((await get('', { 'last-event-id': 'x' })).status).toBe(400)
    expect((await get('?after=-1')).status).toBe(400)
  })

  it('answer 204 when nothing can follow any more, so that an EventSource stops reconnecting', async () => {
    expect((await withEvents().get('', { 'last-event-id': '6' })).status).toBe(204)
  })

  it('answer 404 for an unknown job', async () => {
    expect((await setup().app.request(`${runs}/run-9/events`)).status).toBe(404)
  })

  it('exist for merges and exports too', async () => {
    const { app, services } = setup()
    services.merges.add({ ...fakeMerge('merge-1'), status: 'succeeded' }, [fakeEvent(3, 'succeeded')])
    expect(idsOf(await (await app.request('/v1/merges/merge-1/events')).text())).toEqual([3])
    expect((await app.request('/v1/exports/merge-1/events')).status).toBe(404)
  })

  it('arrive while the job runs, and the source ends when the reader goes', async () => {
    const { services } = withEvents('running')
    const abort = new AbortController()
    const base = await serveApp(services, { keepAliveMs: 5 })
    const response = await fetch(`${base}${runs}/run-1/events?after=5`, { signal: abort.signal })
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    while (!text.includes(': keep-alive\n\n')) {
      const { done, value } = await reader.read()
      expect(done).toBe(false)
      text += value
    }
    expect(idsOf(text)).toEqual([6])
    abort.abort()
    await until(() => services.training.aborted === 1)
  })

  it('start nothing for HEAD', async () => {
    const { services } = withEvents('running')
    const base = await serveApp(services)
    const response = await fetch(`${base}${runs}/run-1/events`, { method: 'HEAD' })
    expect(response.status).toBe(200)
  })
})
