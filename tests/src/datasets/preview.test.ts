import { describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { previewRows } from '../../../src/datasets/preview.ts'
import { DatasetRegistry } from '../../../src/datasets/registry.ts'
import { byteTokenizerFolder } from '../../engine/text/byte-tokenizer.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { datasetDirectory } from './helpers.ts'

const rows = [
  { instruction: 'q', output: 'a' },
  { instruction: 'no answer' },
  { instruction: 'r', output: 'b' },
]
const source = () =>
  new DatasetRegistry({
    directories: [
      datasetDirectory({ 'dataset_info.json': { set: { file_name: 'set.json' } }, 'set.json': rows }),
    ],
  }).get('set')
const options = { offset: 0, limit: 10, stage: 'sft', cutoffLength: 2048 } as const

describe('previewRows', () => {
  it('shows rows and conversations without a tokenizer, and why a row cannot be used', async () => {
    const preview = await previewRows(await source(), { ...options, offset: 1 })
    expect(preview).toMatchObject([
      {
        index: 1,
        place: 'set.json row 2',
        raw: rows[1],
        conversation: null,
        error: expect.stringContaining('no response'),
      },
      { index: 2, raw: rows[2], conversation: { kind: 'chat' }, text: null, tokens: null, error: null },
    ])
    expect(await previewRows(await source(), { ...options, limit: 1 })).toHaveLength(1)
  })

  it('shows the rendered text and which tokens are trained on', async () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    const [first] = await previewRows(await source(), { ...options, tokenizer, limit: 1 })
    expect(first?.text).toBe('<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n')
    expect(first?.tokens?.map(({ text }) => text).join('')).toBe(first?.text)
    const trained = first?.tokens?.filter((token) => token.trained)
    expect(trained?.map(({ text }) => text)).toEqual(['a', '<|im_end|>', '\n'])
    expect(first).toMatchObject({ trainedTokens: 3, truncated: false })
  })

  it('says when the cutoff leaves tokens out', async () => {
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    const [first] = await previewRows(await source(), { ...options, tokenizer, limit: 1, cutoffLength: 10 })
    expect(first?.tokens).toHaveLength(10)
    expect(first?.truncated).toBe(true)
  })
})

describe.skipIf(sharedMissing())(`a row of identity.json with SmolLM2 ${NEEDS_SHARED}`, () => {
  it('has the tokens that transformers gives it, the answer being trained on', async () => {
    const tokenizer = loadTokenizer(`${SHARED}models/SmolLM2-135M-Instruct`)
    const identity = await new DatasetRegistry({ directories: [`${SHARED}data`] }).get('identity')
    const [first] = await previewRows(identity, { ...options, tokenizer, limit: 1 })
    expect(first?.tokens?.map(({ id }) => id)).toEqual([
      1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712,
      8182, 2, 198, 1, 4093, 198, 6004, 2, 198, 1, 520, 9531, 198, 19556, 17, 339, 744, 42222, 1245, 109,
      6663, 354, 5646, 11173, 2452, 411, 42222, 7076, 17859, 30, 1073, 416, 339, 4237, 346, 1834, 47, 2, 198,
    ])
    expect(first?.tokens?.map(({ trained }) => trained).indexOf(true)).toBe(31)
    expect(first?.trainedTokens).toBe(26)
  })
})
