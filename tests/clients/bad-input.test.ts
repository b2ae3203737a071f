import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type JsonSchema, nearly } from '../routes/json-schema-arbitrary.ts'
import { MODEL, type RealServer, startRealServer } from './server.ts'

const TINY = fileURLToPath(new URL(`../../data/models/${MODEL}`, import.meta.url))
const messages = [{ role: 'user', content: 'Who is Mia?' }]
const MEGABYTE = 1e6

/** Endless, or as good as. */
const BOMBS = {
  'bomb-loops': `${'{% for i in range(10000) %}'.repeat(4)}x${'{% endfor %}'.repeat(4)}`,
  'bomb-growth':
    '{% set ns = namespace(x="ab") %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}',
  'bomb-broken': '{% for x in %}',
}

let models: string
let server: RealServer

beforeAll(async () => {
  models = mkdtempSync(join(tmpdir(), 'anneal-hostile-'))
  cpSync(TINY, join(models, MODEL), { recursive: true })
  for (const [name, template] of Object.entries(BOMBS)) {
    const folder = join(models, name)
    cpSync(TINY, folder, { recursive: true })
    const file = join(folder, 'tokenizer_config.json')
    const config = { ...JSON.parse(readFileSync(file, 'utf8')), chat_template: template }
    writeFileSync(file, JSON.stringify(config))
  }
  server = await startRealServer((settings) => {
    settings.directories.models = [models]
    settings.chat.loadedModels = 2
  })
})
afterAll(async () => {
  await server.close()
  rmSync(models, { recursive: true, force: true })
})

async function post(path: string, body: object) {
  const response = await fetch(`${server.baseURL}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  // biome-ignore lint/suspicious/noExplicitAny: bodies are read as a client reads them
  return { status: response.status, body: (await response.json()) as any }
}

const ask = (more: object) => post('/chat/completions', { model: MODEL, messages, max_tokens: 4, ...more })
const codeOf = ({ status, body }: Awaited<ReturnType<typeof post>>) => `${status} ${body.error?.code}`

async function expectWell(): Promise<void> {
  expect((await ask({ temperature: 0, max_tokens: 2 })).body.choices[0].message.content).toBe('Mia is')
}

describe('The whole server under bad input', () => {
  it.each(Object.keys(BOMBS))('stops the template of %s and goes on', async (model) => {
    const refused = await ask({ model })
    expect(refused.status).toBe(400)
    expect(refused.body.error.code).toMatch(/^(chat_template_failed|malformed_chat_template)$/)
    expect((await post('/completions', { model, prompt: 'Mia is', max_tokens: 1 })).status).toBe(200)
    await expectWell()
  })

  it.each([
    ['a pattern that explodes', { type: 'string', pattern: '((a{1,30}){1,30}b)*' }],
    ['a pattern that backtracks', { type: 'string', pattern: `^${'(a|aa)+'.repeat(30)}$` }],
    [
      'references in a circle',
      { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } },
    ],
    ['a contradiction', { type: 'object', properties: {}, required: ['a'], additionalProperties: false }],
    ['many alternatives', { anyOf: Array.from({ length: 1900 }, (_, i) => ({ const: `value ${i}` })) }],
    ['a long enum', { enum: Array.from({ length: 2000 }, (_, i) => i) }],
  ])('survives %s as a schema', async (_, schema) => {
    const began = performance.now()
    const format = { type: 'json_schema', json_schema: { name: 'x', schema } }
    const { status, body } = await ask({ response_format: format })
    expect([200, 400], JSON.stringify(body)).toContain(status)
    expect(performance.now() - began).toBeLessThan(30_000)
    await expectWell()
  })

  it('refuses prompts of megabytes without reading them to their end', async () => {
    const content = 'Tell me all about it. '.repeat(300_000)
    const huge = await Promise.all([
      ask({ messages: [{ role: 'user', content }] }),
      post('/completions', { model: MODEL, prompt: content }),
      post('/embeddings', { model: MODEL, input: content }),
      post('/tokenize', { model: MODEL, prompt: content }),
    ])
    expect(huge.map(codeOf)).toEqual([
      '400 context_length_exceeded',
      '400 context_length_exceeded',
      '400 context_length_exceeded',
      '400 text_too_long',
    ])
    expect(codeOf(await ask({ messages: [{ role: 'user', content: 'x'.repeat(9 * MEGABYTE) }] }))).toBe(
      '413 payload_too_large',
    )
    await expectWell()
  })

  it('answers or refuses what the OpenAPI document allows, and gives its memory back', async () => {
    const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as {
      components: { schemas: Record<string, JsonSchema> }
    }
    const { schemas } = document.components
    const child = async () => {
      const response = await fetch(`${server.baseURL}/models/${MODEL}`)
      return ((await response.json()) as { memory_bytes: number }).memory_bytes
    }
    const paths = [
      [
        '/chat/completions',
        'ChatCompletionRequest',
        { max_tokens: 2, max_completion_tokens: 2, stream: false },
      ],
      ['/completions', 'CompletionRequest', { max_tokens: 2, stream: false }],
      ['/tokenize', 'TokenizeRequest', {}],
      ['/detokenize', 'DetokenizeRequest', {}],
      ['/embeddings', 'EmbeddingRequest', {}],
      ['/chat/completions/render', 'RenderRequest', {}],
    ] as const
    let before = 0
    for (const round of [1, 2]) {
      for (const [path, name, fixed] of paths) {
        await fc.assert(
          fc.asyncProperty(nearly(schemas[name]!, schemas), async (value) => {
            const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
            const n =
              isObject && 'n' in value && typeof value.n === 'number' ? { n: Math.min(value.n, 2) } : {}
            const body = isObject
              ? { ...value, model: MODEL, ...n, ...fixed, min_tokens: undefined }
              : { value }
            const { status, body: answer } = await post(path, body)
            expect(status, JSON.stringify(answer)).not.toBe(500)
            if (status >= 400) expect(answer.error.message).toBeTruthy()
          }),
          { seed: round, numRuns: 12 },
        )
      }
      if (round === 1) before = await child()
    }
    await expectWell()
    expect(await child()).toBeLessThan(before + 200 * MEGABYTE)
  })
})

describe('exports', () => {
  it.each<[string, object]>([
    ['bits', { bits: '4', format: 'gguf' }],
    ['bits', { bits: 4.5, format: 'gguf' }],
    ['bits', { bits: -4, format: 'gguf' }],
    ['bits', { bits: null, format: 'gguf' }],
    ['bits', { bits: 3, format: 'gguf' }],
    ['bits', { bits: 4, format: 'safetensors' }],
    ['bits', { bits: 16, format: 'gptq' }],
    ['format', { format: 'ggml' }],
    ['format', { format: ['gguf'] }],
    ['format', { format: '../gguf' }],
    ['gguf_type', { format: 'gguf', gguf_type: 'Q3_K_S' }],
    ['gguf_type', { format: 'onnx', gguf_type: 'F16' }],
    ['model', { model: '../../etc', format: 'gguf' }],
    ['model', { model: 'a\u0000b', format: 'gguf' }],
    ['model', { model: 'x'.repeat(10_000), format: 'gguf' }],
    ['model', { model: 7, format: 'gguf' }],
  ])('name %s as what is wrong with %j', async (param, request) => {
    const { status, body } = await post('/exports', { model: MODEL, ...request })
    expect(status).toBeGreaterThanOrEqual(400)
    expect(status).toBeLessThan(500)
    expect(body.error).toMatchObject({
      param,
      type: expect.any(String),
      message: expect.stringMatching(/\w/),
    })
  })
})
