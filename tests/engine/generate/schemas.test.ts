import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkSchema } from '../../../engine/generate/grammar/check-schema.ts'
import { grammarFormat } from '../../../engine/generate/grammar/format.ts'
import { Grammars } from '../../../engine/generate/grammar/grammars.ts'
import { loadTokenizer, type ModelTokenizer } from '../../../engine/text/tokenizer.ts'
import { toolFormat } from '../../../engine/text/tools.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

const STOP = 2

let tokenizer: ModelTokenizer
let grammars: Grammars
beforeAll(() => {
  tokenizer = loadTokenizer(ANNEAL_TINY)
  grammars = new Grammars(tokenizer, 2048)
})
afterAll(() => grammars.close())

/** Whether an answer may be each of the texts, and end there. */
async function allowed(schema: object, texts: readonly string[]): Promise<string[]> {
  const format = grammarFormat({
    tools: [],
    toolChoice: 'auto',
    parallelToolCalls: true,
    toolFormat: toolFormat(''),
    responseFormat: { type: 'json_schema', schema, strict: true },
  })!
  const found: string[] = []
  for (const text of texts) {
    const grammar = await grammars.start(format)
    const isAllowed = [...tokenizer.encode(text), STOP].every((id) => {
      const mask = grammar.mask()!
      const may = ((mask[id >> 5]! >>> (id & 31)) & 1) === 1
      if (may) grammar.accept(id)
      return may
    })
    grammar.dispose()
    if (isAllowed) found.push(text)
  }
  return found
}

const S = { type: 'string' }
const I = { type: 'integer' }
const matching = (pattern: string) => ({ type: 'string', pattern })
const json = (...texts: string[]) => texts.map((text) => JSON.stringify(text))

describe('the grammar of a schema', () => {
  it.each<[string, object, yes: string[], no: string[]]>([
    [
      'alternatives with anchors of their own',
      matching('^a$|^b$'),
      json('a', 'b'),
      ['"a', ...json('ab', 'c')],
    ],
    [
      'what JSON escapes',
      matching('^["\\\\\\n]{1,2}$'),
      json('"', '\\"', '\n'),
      ['"""', '"\\\\"x', ...json('a')],
    ],
    ['a dot', matching('^.$'), json('a', 'é', '漢', '"'), ['"""', ...json('', 'ab', '\n')]],
    ['characters beyond ASCII', matching('^[é-ü]+$'), json('é', 'üê'), json('e', '漢', '')],
    ['what is not in a set', matching('^[^a-y]$'), json('z', 'Z', '漢'), json('a', 'zz')],
    ['no anchors', matching('\\d{3}'), json('123', 'a "1234" b'), json('12', 'ab')],
    [
      'groups, repetitions and lazy ones',
      matching('^(?:x|(?<y>yz)){1,2}?$'),
      json('x', 'xyz'),
      json('', 'xxx'),
    ],
    ['escapes', matching('^[\\w.-]+\\.\\x41\\u0042$'), json('a-b.AB'), json('a b.AB', 'a.A')],
  ])('follows a pattern: %s', async (_, schema, yes, no) => {
    expect(await allowed(schema, [...yes, ...no])).toEqual(yes)
  })

  it.each<[object, yes: string[], no: string[]]>([
    [
      { type: 'number', minimum: 0, maximum: 1 },
      ['0', '0.5', '1', '1.0', '0.999'],
      ['1.5', '-0.5', '2', '10'],
    ],
    [
      { type: 'number', exclusiveMinimum: 0, exclusiveMaximum: 1 },
      ['0.1', '0.000001'],
      ['0', '1', '0.0', '1.000'],
    ],
    [
      { type: 'number', minimum: 0.5, maximum: 1.25 },
      ['0.5', '1.25', '0.75', '1'],
      ['1225', '1.26', '0.49', '0'],
    ],
    [{ type: 'number', minimum: 0 }, ['0.25', '0', '12345.5'], ['-1', '-0.5']],
    [{ type: 'number', minimum: -2.5, maximum: -1 }, ['-2.5', '-1.75', '-1'], ['-2.6', '-0.5', '1', '2']],
    [{ type: 'number', minimum: 1e-9, maximum: 1e-8 }, ['0.000000005'], ['0', '0.00000002', '0.5']],
    [{ type: 'integer', minimum: 1.5, maximum: 3.5 }, ['2', '3'], ['1', '4', '2.5']],
    [{ type: 'integer', exclusiveMaximum: -99 }, ['-100', '-1234'], ['-99', '-98', '0', '100']],
    [{ type: ['integer', 'null'], minimum: 5 }, ['5', '17', 'null'], ['4', 'true', '-5']],
  ])('keeps numbers within bounds: %j', async (schema, yes, no) => {
    expect(await allowed(schema, [...yes, ...no])).toEqual(yes)
  })

  it('holds every whole number within bounds and no other', async () => {
    const bound = fc.integer({ min: -1200, max: 1200 })
    await fc.assert(
      fc.asyncProperty(
        bound,
        bound,
        fc.array(bound, { minLength: 1, maxLength: 30 }),
        async (a, b, values) => {
          const [minimum, maximum] = [Math.min(a, b), Math.max(a, b)]
          const near = [minimum - 1, minimum, minimum + 1, maximum - 1, maximum, maximum + 1]
          const all = [...new Set([...near, ...values])].map((value) => (value / 8).toString())
          const schema = { type: 'number', minimum: minimum / 8, maximum: maximum / 8 }
          const fits = (text: string) => Number(text) >= minimum / 8 && Number(text) <= maximum / 8
          expect(await allowed(schema, all)).toEqual(all.filter(fits))
        },
      ),
      { numRuns: 12, seed: 5 },
    )
  }, 60_000)

  it('asks for required properties that are not described, and adds none beside those that are', async () => {
    const schema = { type: 'object', properties: { a: I }, required: ['a', 'b'], additionalProperties: S }
    const texts = ['{"a":1,"b":"x"}', '{"a":1}', '{"a":1,"b":"x","a":"y"}', '{"a":1,"b":2}']
    expect(await allowed(schema, texts)).toEqual(texts.slice(0, 1))
  })

  it('lets arrays hold anything where nothing is said of their items', async () => {
    const texts = ['[1,"a"]', '[[],{},null]', '[1]']
    expect(await allowed({ type: 'array', minItems: 2 }, texts)).toEqual(texts.slice(0, 2))
  })

  it('gives choices the type beside them', async () => {
    const schema = { type: 'object', anyOf: [{ properties: { a: I }, required: ['a'] }, { type: 'object' }] }
    expect(await allowed(schema, ['{"a":1}', 'true', '3'])).toEqual(['{"a":1}'])
  })
})

describe('checkSchema', () => {
  const KIND = (kind: string) => ({
    type: 'object',
    properties: { kind: { const: kind } },
    required: ['kind'],
  })

  it.each<[string, object, string]>([
    [
      'properties beside choices',
      { type: 'object', properties: { a: I }, anyOf: [{ type: 'object' }] },
      'properties',
    ],
    ['bounds beside a reference', { $defs: { a: I }, $ref: '#/$defs/a', minimum: 3 }, 'minimum'],
    ['a length beside a pattern', { type: 'string', pattern: '^a*$', maxLength: 3 }, 'maxLength'],
    ['a length beside a format', { type: 'string', format: 'date', maxLength: 3 }, 'maxLength'],
    ['a format that nobody knows', { type: 'string', format: 'colour' }, 'format'],
    ['a bound without a type', { minimum: 5 }, 'minimum'],
    ['a length without a type', { maxLength: 5 }, 'maxLength'],
    ['no type at all', { type: [] }, 'type'],
    ['a value of another type', { type: 'string', enum: ['a', 5] }, 'allows 5'],
    ['named and free properties', { properties: { a: I }, patternProperties: { '^x$': I } }, 'properties'],
    [
      'names beside what others hold',
      { propertyNames: { pattern: '^a$' }, additionalProperties: I },
      'additional',
    ],
    ['a required property that is ruled out', { required: ['a'], additionalProperties: false }, 'required'],
    ['a name that JSON escapes', { properties: { 'a\\b': I } }, 'escapes'],
    ['bounds with nothing between', { type: 'integer', minimum: 1.2, maximum: 1.8 }, 'no whole number lies'],
    ['bounds beyond whole numbers', { type: 'integer', minimum: 1e17 }, '2^53'],
    ['one of two that may both fit', { oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'may both fit'],
    ['a type that a choice lacks', { type: 'string', anyOf: [{ type: 'integer' }] }, 'type'],
    ['looking ahead', matching('^(?=a)b$'), 'looking ahead'],
    ['a reference to a group', matching('^(a)\\1$'), 'reference'],
    ['a word boundary', matching('^\\ba$'), 'word boundary'],
    ['an anchor in the middle', matching('^(^a|b)$'), "'^' in the middle"],
    ['names of any character', { patternProperties: { '^.$': I } }, 'expression for names'],
  ])('refuses %s, which a grammar cannot keep to', (_, schema, told) => {
    expect(() => checkSchema(schema, 'p')).toThrowError(
      expect.objectContaining({ code: 'invalid_schema', message: expect.stringContaining(told) }),
    )
  })

  it.each<[string, object]>([
    ['kinds told apart by a constant', { oneOf: [KIND('a'), KIND('b')] }],
    [
      'kinds behind references',
      { $defs: { a: KIND('a'), b: KIND('b') }, oneOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/b' }] },
    ],
    [
      'words about a reference',
      { $defs: { a: I }, type: 'object', properties: { a: { $ref: '#/$defs/a', description: 'x' } } },
    ],
    ['any names', { type: 'object', propertyNames: { type: 'string' }, additionalProperties: I }],
    ['a pattern that says what a format means', { type: 'string', format: 'starts_with', pattern: '^x.*' }],
  ])('takes %s', (_, schema) => {
    expect(checkSchema(schema, 'p')).toBe(schema)
  })
})
