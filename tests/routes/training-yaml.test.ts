import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { FakeServices, fakeOptions } from './fake-services.ts'

const send = (body: string, type = 'application/yaml') => {
  const services = new FakeServices()
  const app = createApp(services.asServices(), fakeOptions())
  const init = { method: 'POST', headers: { 'content-type': type }, body }
  return app.request('/v1/training/runs', init)
}

describe('POST /v1/training/runs with YAML', () => {
  it.each(['application/yaml', 'text/yaml; charset=utf-8', 'application/x-yaml'])(
    'takes %s',
    async (type) => {
      const response = await send(
        '### model\nmodel_name_or_path: tiny\ndataset: identity\nlearning_rate: 1.0e-4\n',
        type,
      )
      expect(response.status).toBe(201)
      expect(await response.json()).toMatchObject({ object: 'training.run' })
    },
  )

  it.each([
    ['a: [1', 'invalid_yaml'],
    ['- 1\n- 2\n', 'invalid_value'],
    ['just text', 'invalid_value'],
    // Nine levels of nine aliases each: 387 million elements if they were expanded.
    [
      `a0: &a0 [x]\n${Array.from({ length: 9 }, (_, n) => `a${n + 1}: &a${n + 1} [${`*a${n}, `.repeat(9)}x]`).join('\n')}`,
      'invalid_yaml',
    ],
  ])('refuses %j', async (body, code) => {
    const response = await send(body)
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ error: { code } })
  })
})
