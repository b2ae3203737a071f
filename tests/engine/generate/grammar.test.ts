import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { afterReasoning } from '../../../engine/generate/grammar/after-reasoning.ts'
import { checkSchema } from '../../../engine/generate/grammar/check-schema.ts'
import { GrammarChecker } from '../../../engine/generate/grammar/checker.ts'
import { type GrammarFormat, grammarFormat } from '../../../engine/generate/grammar/format.ts'
import { Grammars } from '../../../engine/generate/grammar/grammars.ts'
import { createRandom } from '../../../engine/random.ts'
import { OutputParser } from '../../../engine/text/output-parser.ts'
import { loadTokenizer, type ModelTokenizer } from '../../../engine/text/tokenizer.ts'
import { ACTIONS, GLM, type ToolDefinition, toolFormat } from '../../../engine/text/tools.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

const WEATHER: ToolDefinition = {
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string', maxLength: 6 },
        days: { type: 'integer', minimum: 1, maximum: 9 },
      },
      required: ['city', 'days'],
      additionalProperties: false,
    },
  },
}
const TIME: ToolDefinition = {
  type: 'function',
  function: { name: 'get_time', parameters: { type: 'object', properties: {}, additionalProperties: false } },
}

const FORMS = [
  ...['<tool_call>', '[TOOL_CALLS]', '<|python_tag|>', '', '<tool_call><function='].map(toolFormat),
  ACTIONS,
  GLM,
]

describe('Grammars', () => {
  let tokenizer: ModelTokenizer
  let grammars: Grammars

  beforeAll(() => {
    tokenizer = loadTokenizer(ANNEAL_TINY)
    grammars = new Grammars(tokenizer, 2048)
  })
  afterAll(() => grammars.close())

  /** An answer that a model without any idea gives under the grammar. */
  async function babble(format: GrammarFormat, seed: number, limit = 400): Promise<string> {
    const random = createRandom(seed)
    const grammar = await grammars.start(format)
    const ids: number[] = []
    try {
      for (let step = 0; step < limit; step++) {
        const mask = grammar.mask()
        const allowed: number[] = []
        for (let id = 0; id < 2048; id++) if ((mask![id >> 5]! >>> (id & 31)) & 1) allowed.push(id)
        if (allowed.includes(2)) return tokenizer.decode(ids)
        // Short tokens and closing ones first, so that strings end.
        const ends = allowed.filter((id) => /^["}\]]/.test(tokenizer.tokenText(id) ?? ''))
        const from = ends.length > 0 && random.next() < 0.6 ? ends : allowed
        const id = from[random.nextInt(from.length)]!
        ids.push(id)
        grammar.accept(id)
      }
      throw new Error(`no end after ${limit} tokens: ${tokenizer.decode(ids)}`)
    } finally {
      grammar.dispose()
    }
  }

  const request = {
    tools: [],
    toolChoice: 'auto' as const,
    parallelToolCalls: true,
    toolFormat: toolFormat(''),
  }

  it('lets nothing through that does not fit the schema', async () => {
    const schema = {
      type: 'object',
      properties: {
        name: { type: 'string', maxLength: 8 },
        age: { type: 'integer', minimum: 0, maximum: 150 },
        mood: { enum: ['good', 'bad'] },
        tags: { type: 'array', items: { type: 'boolean' }, maxItems: 3 },
      },
      required: ['name', 'age', 'mood', 'tags'],
      additionalProperties: false,
    }
    const format = grammarFormat({
      ...request,
      responseFormat: { type: 'json_schema', schema, strict: true },
    })!
    for (const seed of [1, 2, 3, 4, 5]) {
      const value = JSON.parse(await babble(format, seed))
      expect(Object.keys(value)).toEqual(['name', 'age', 'mood', 'tags'])
      expect([...value.name].length).toBeLessThanOrEqual(8)
      expect(Number.isInteger(value.age) && value.age >= 0 && value.age <= 150).toBe(true)
      expect(['good', 'bad']).toContain(value.mood)
      expect(value.tags.every((tag: unknown) => typeof tag === 'boolean')).toBe(true)
    }
  })

  it('leaves the reasoning free and binds what follows, and lets a call stand for the answer', async () => {
    const responseFormat = { type: 'json_schema', schema: { type: 'boolean' }, strict: true } as const
    const thought = afterReasoning(
      await grammars.start(grammarFormat({ ...request, responseFormat })!),
      tokenizer,
    )
    expect(thought.mask()).toBeUndefined()
    for (const id of tokenizer.encode('Any text. </think>')) thought.accept(id)
    const allowed = Array.from({ length: 2048 }, (_, id) => id).filter(
      (id) => (thought.mask()![id >> 5]! >>> (id & 31)) & 1,
    )
    expect(allowed.length).toBeGreaterThan(0)
    for (const id of allowed) expect(tokenizer.tokenText(id)).toMatch(/^(t|f)/)
    thought.dispose()
    const either = grammarFormat({ ...request, responseFormat, tools: [TIME], parallelToolCalls: false })!
    for (const seed of [1, 2, 3, 4]) {
      expect(await babble(either, seed)).toMatch(/^\s*(true|false)\s*$|^\{"name": "get_time"/)
    }
  })

  it('makes an object of json_object', async () => {
    const format = grammarFormat({ ...request, responseFormat: { type: 'json_object' } })!
    for (const seed of [1, 2, 3]) expect(JSON.parse(await babble(format, seed))).toBeTypeOf('object')
  })

  it.each(FORMS.map((format) => [format.name, format] as const))(
    'forces calls in the form of %s that its parser reads',
    async (_, format) => {
      const tools = [WEATHER, TIME]
      for (const toolChoice of ['required' as const, { name: 'get_weather' }]) {
        const grammar = grammarFormat({
          ...request,
          tools,
          toolChoice,
          toolFormat: format,
          parallelToolCalls: false,
        })!
        for (const seed of [1, 2, 3]) {
          const text = await babble(grammar, seed)
          const names = tools.map((tool) => tool.function.name)
          const parser = new OutputParser({ reasoning: 'none', tools: { format, names, parallel: true } })
          const parts = [...[...text].flatMap((character) => parser.push(character)), ...parser.end()]
          const calls = parts.filter((part) => part.type === 'tool_call')
          expect(
            parts.filter((part) => part.type === 'text'),
            text,
          ).toEqual([])
          expect(calls).toHaveLength(1)
          if (toolChoice !== 'required') expect(calls[0]).toMatchObject({ name: 'get_weather' })
          const joined = parts.map((part) => (part.type === 'tool_arguments' ? part.text : '')).join('')
          const value = JSON.parse(joined)
          if (calls[0]!.name === 'get_weather') expect(value.days).toBeGreaterThanOrEqual(1)
        }
      }
    },
  )

  it('refuses a schema that aborts the library, and goes on', async () => {
    const broken = { type: 'json_schema', json_schema: { type: 'frog' } } as const
    await expect(grammars.start(broken)).rejects.toMatchObject({ kind: 'invalid', code: 'invalid_schema' })
    const fine = { type: 'json_schema', json_schema: { type: 'boolean' } } as const
    expect(['true', 'false']).toContain((await babble(fine, 1)).trim())
  })

  it('refuses a schema that nothing fits', async () => {
    const circle = { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } }
    const format = { type: 'json_schema', json_schema: circle } as const
    await expect(grammars.start(format)).rejects.toMatchObject({ code: 'invalid_schema' })
  })

  it('gives a schema up that takes too long', async () => {
    const vocabulary = {
      texts: ['a', '"', 'b'],
      kind: 'raw' as const,
      logits: 3,
      stopIds: [2],
      controlIds: [],
      blankIds: [],
    }
    const checker = new GrammarChecker(vocabulary, 200)
    const slow = {
      type: 'json_schema',
      json_schema: { type: 'string', pattern: '((x{1,1000}){1,1000}y){1,400}' },
    } as const
    await expect(checker.check(slow)).rejects.toMatchObject({ message: expect.stringContaining('200 ms') })
    await checker.close()
  })
})

describe('checkSchema', () => {
  it.each([
    ['an unknown type', { type: 'frog' }, 'p.type'],
    ['a keyword that cannot be enforced', { type: 'array', uniqueItems: true }, 'p.uniqueItems'],
    ['a reference to elsewhere', { $ref: 'http://x/y' }, 'p.$ref'],
    ['a reference to nothing', { $ref: '#/$defs/x' }, 'p.$ref'],
    ['a huge count', { type: 'string', maxLength: 1e9 }, 'p.maxLength'],
    ['repetitions that multiply', { type: 'string', pattern: '(a{1,99}){1,99}' }, 'p.pattern'],
    ['schemas that must hold together', { allOf: [{ type: 'object' }, {}] }, 'p.allOf'],
    ['a broken pattern', { type: 'string', pattern: '(' }, 'p.pattern'],
    ['a list of properties', { properties: [] }, 'p.properties'],
    ['a place inside', { properties: { a: { items: { type: 7 } } } }, 'p.properties.a.items.type'],
  ])('refuses %s and names the place', (_, schema, param) => {
    expect(() => checkSchema(schema, 'p')).toThrow(expect.objectContaining({ code: 'invalid_schema', param }))
  })

  it('takes what zod makes of common types', () => {
    for (const type of [z.uuid(), z.email(), z.iso.datetime(), z.record(z.string(), z.int()), z.ipv4()]) {
      const schema = z.toJSONSchema(type)
      expect(checkSchema(schema, 'p')).toBe(schema)
    }
  })

  it('refuses what is too deep, too large or has too many parts', () => {
    let deep: object = { type: 'string' }
    for (let i = 0; i < 40; i++) deep = { type: 'array', items: deep }
    expect(() => checkSchema(deep, 'p')).toThrow(/levels deep/)
    const many = { properties: Object.fromEntries(Array.from({ length: 2500 }, (_, i) => [`k${i}`, {}])) }
    expect(() => checkSchema(many, 'p')).toThrow(/parts/)
    expect(() => checkSchema({ description: 'x'.repeat(70_000) }, 'p')).toThrow(/bytes/)
  })
})
