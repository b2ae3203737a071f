import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import { loadDataset } from '../../../src/datasets/load.ts'
import { DatasetRegistry } from '../../../src/datasets/registry.ts'
import { splitExamples } from '../../../src/datasets/split.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { datasetDirectory, failureOf } from './helpers.ts'

const row = (index: number) => ({ instruction: `q${index}`, output: `a${index}` })
const ten = Array.from({ length: 10 }, (_, index) => row(index))
const registryOf = (info: Record<string, unknown>, files: Record<string, unknown> = {}) =>
  new DatasetRegistry({
    directories: [datasetDirectory({ 'dataset_info.json': info, 'ten.json': ten, ...files })],
  })
const questions = async (registry: DatasetRegistry, names: string, options = {}) =>
  (await loadDataset(registry, names, { stage: 'sft', ...options })).conversations.map((conversation) =>
    conversation.kind === 'text' ? conversation.text : conversation.messages[0]?.content,
  )

describe('loadDataset', () => {
  const info = { ten: { file_name: 'ten.json' }, two: { file_name: 'two.json' } }

  it('joins a comma list in its order, maxSamples counting for each', async () => {
    const registry = registryOf(info, { 'two.json': [row(20), row(21)] })
    expect(await questions(registry, 'two, ten', { maxSamples: 3 })).toEqual(['q20', 'q21', 'q0', 'q1', 'q2'])
  })

  it('chooses num_samples rows by the seed, with repeats only when there are too few', async () => {
    const few = registryOf({ ten: { file_name: 'ten.json', num_samples: 4 } })
    const chosen = await questions(few, 'ten', { seed: 1 })
    expect(new Set(chosen).size).toBe(4)
    expect(await questions(few, 'ten', { seed: 1 })).toEqual(chosen)
    expect(await questions(few, 'ten', { seed: 2 })).not.toEqual(chosen)
    const many = await questions(registryOf({ ten: { file_name: 'ten.json', num_samples: 25 } }), 'ten')
    expect(many).toHaveLength(25)
    expect(new Set(many).size).toBe(10)
  })

  it('skips rows that cannot be used and says which and why', async () => {
    const registry = registryOf(
      { two: { file_name: 'two.json' } },
      { 'two.json': [{ instruction: 'q' }, row(1), { a: 1 }] },
    )
    expect(await loadDataset(registry, 'two', { stage: 'sft' })).toMatchObject({
      rows: 3,
      skippedCount: 2,
      skipped: [
        { dataset: 'two', place: 'two.json row 1', reason: 'it has no response in `output`' },
        { dataset: 'two', place: 'two.json row 3' },
      ],
    })
  })

  it('refuses a dataset without any row that can be used, with the reason of the last', async () => {
    const registry = registryOf(info, { 'two.json': [{ query: 'q', response: 'a' }] })
    const error = await failureOf(loadDataset(registry, 'ten,two', { stage: 'sft' }))
    expect(error.code).toBe('no_valid_samples')
    expect(error.message).toMatch(
      /^Cannot find valid samples, check `data\/README\.md`.*Dataset two: two\.json row 1: .*query, response/,
    )
    const empty = registryOf(info, { 'two.json': [] })
    expect((await failureOf(loadDataset(empty, 'two', { stage: 'sft' }))).message).toContain('it has no rows')
  })

  it('asks for a dataset when none is named', async () => {
    for (const names of ['', ' , ', []]) {
      const error = await failureOf(loadDataset(registryOf(info), names, { stage: 'sft' }))
      expect(error.message).toBe('Please specify dataset for training.')
    }
  })
})

describe('splitExamples', () => {
  it('is a partition that keeps the order and depends on the seed alone', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 60 }),
        fc.double({ min: 0, max: 0.5, noNaN: true }),
        fc.integer(),
        (count, valSize, seed) => {
          const examples = Array.from({ length: count }, (_, index) => index)
          const { train, evaluation } = splitExamples(examples, valSize, seed)
          expect(evaluation).toHaveLength(Math.ceil(count * valSize))
          expect([...train, ...evaluation].sort((a, b) => a - b)).toEqual(examples)
          expect(train).toEqual(train.toSorted((a, b) => a - b))
          expect(splitExamples(examples, valSize, seed)).toEqual({ train, evaluation })
        },
      ),
    )
  })

  it('takes a count from 1 on, and none for 0', () => {
    expect(splitExamples(ten, 3, 1).evaluation).toHaveLength(3)
    expect(splitExamples(ten, 1, 1).evaluation).toHaveLength(1)
    expect(splitExamples(ten, 0, 1).train).toEqual(ten)
  })

  it('refuses a size that leaves nothing to train on, or is no size', () => {
    for (const valSize of [10, 11, 0.95, -1, Number.NaN])
      expect(() => splitExamples(ten, valSize, 1)).toThrow(/val_size/)
  })
})

describe.skipIf(sharedMissing())(`LLaMA-Factory's demo sets ${NEEDS_SHARED}`, () => {
  const registry = new DatasetRegistry({ directories: [`${SHARED}data`] })

  it.each([
    ['identity', 'sft', 91],
    ['alpaca_en_demo', 'sft', 999],
    ['alpaca_zh_demo', 'sft', 1000],
    ['glaive_toolcall_en_demo', 'sft', 300],
    ['c4_demo', 'pt', 300],
    ['wiki_demo', 'pt', 30],
    ['dpo_en_demo', 'dpo', 300],
    ['kto_en_demo', 'kto', 300],
  ] as const)('reads every row of %s', async (name, stage, rows) => {
    const loaded = await loadDataset(registry, name, { stage })
    expect(loaded).toMatchObject({ rows, skippedCount: 0 })
    expect(loaded.conversations).toHaveLength(rows)
  })

  it('reads questions, answers, tools and results where they stand', async () => {
    const { conversations } = await loadDataset(registry, 'glaive_toolcall_en_demo', {
      stage: 'sft',
      maxSamples: 1,
    })
    expect(conversations[0]).toMatchObject({ kind: 'chat', tools: expect.stringContaining('search_recipes') })
    const [first] = conversations
    const roles = first?.kind === 'chat' ? first.messages.map(({ role }) => role) : []
    expect(roles).toEqual([
      'user',
      'assistant',
      'user',
      'function',
      'observation',
      'assistant',
      'user',
      'assistant',
    ])
  })

  it('refuses hub datasets by the key that says so', async () => {
    expect((await failureOf(registry.get('alpaca_en'))).param).toBe('alpaca_en.hf_hub_url')
  })

  it.each([
    ['dpo_en_demo', 'sft'],
    ['dpo_en_demo', 'kto'],
    ['kto_en_demo', 'sft'],
    ['kto_en_demo', 'dpo'],
    ['identity', 'rm'],
    ['identity', 'kto'],
  ] as const)('refuses %s for stage %s, naming both', async (name, stage) => {
    const error = await failureOf(loadDataset(registry, name, { stage }))
    expect(error).toMatchObject({ code: 'stage_mismatch', param: 'dataset' })
    expect(error.message).toContain('The dataset is not applicable in the current training stage.')
    expect(error.message).toContain(name)
  })
})
