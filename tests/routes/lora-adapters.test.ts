import { describe, expect, it } from 'vitest'
import { FakeServices } from './fake-services.ts'
import { serveApp } from './serve.ts'

async function setup() {
  const services = new FakeServices()
  const base = await serveApp(services)
  const post = (action: string, body: object) =>
    fetch(`${base}/v1/${action}_lora_adapter`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  return { services, post }
}

describe('LoRA adapters in memory', () => {
  const id = 'run-1:ckpt-step-5'

  it('are loaded and unloaded by id, and answered with a sentence as vLLM does', async () => {
    const { services, post } = await setup()
    const loaded = await post('load', { lora_name: id })
    expect([loaded.status, await loaded.text()]).toEqual([
      200,
      `Success: LoRA adapter '${id}' added successfully.`,
    ])
    expect(services.models.adapters.has(id)).toBe(true)
    expect((await post('load', { lora_name: id })).status).toBe(409)
    expect((await post('unload', { lora_name: id })).status).toBe(200)
    expect((await post('unload', { lora_name: id })).status).toBe(404)
  })

  it.each([
    ['an unknown id', { lora_name: 'nobody' }, 404],
    ['a path', { lora_name: id, lora_path: '/etc' }, 400],
    ['no name', {}, 400],
  ])('refuse %s', async (_, body, status) => {
    const { services, post } = await setup()
    expect((await post('load', body)).status).toBe(status)
    expect(services.models.adapters.size).toBe(0)
  })
})
