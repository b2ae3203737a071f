import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeCorpus, SEED } from '../../../data/make/generate.ts'
import { byteSymbols, learnMerges, tokenizerJson, writeTokenizer } from '../../../data/make/tokenizer.ts'
import { loadTokenizer, type ModelTokenizer } from '../../../engine/text/tokenizer.ts'

describe('learnMerges', () => {
  it('takes the most frequent pair first', () => {
    expect(learnMerges(['ab ab ab ab cd cd'], 258)).toEqual([
      ['a', 'b'],
      ['Ġ', 'ab'],
    ])
  })

  it('breaks ties by code unit, so the order of the texts does not matter', () => {
    expect(learnMerges(['xy ab'], 257)).toEqual(learnMerges(['ab', ' xy'], 257))
  })

  it('stops when nothing is left to merge', () => {
    expect(learnMerges(['ab'], 2048)).toEqual([['a', 'b']])
  })
})

describe('byteSymbols', () => {
  it('gives 256 different printable characters', () => {
    expect(new Set(byteSymbols()).size).toBe(256)
    expect(byteSymbols()[0x20]).toBe('Ġ')
    expect(byteSymbols()[0x41]).toBe('A')
  })
})

describe('a written tokenizer', () => {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-tokenizer-'))
  let tokenizer: ModelTokenizer
  beforeAll(() => {
    const { texts } = makeCorpus(SEED, 2000, 1)
    writeTokenizer(texts, folder, 512)
    tokenizer = loadTokenizer(folder)
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  it('gives back every string', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), (text) => {
        // A special token's own text is not ordinary text.
        fc.pre(!text.includes('<|'))
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
      }),
      { seed: 7, numRuns: 300 },
    )
    for (const text of ['  two  spaces\n\n\tand tabs ', '你好，世界', '🙂👩‍👩‍👧', "it's 2024, isn't it?"]) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    }
  })

  it('splits numbers into digits', () => {
    expect(tokenizer.encode('1234')).toHaveLength(4)
  })

  it('keeps the special tokens whole', () => {
    expect([...tokenizer.encode('<|im_start|>user<|im_end|>')].filter((id) => id < 3)).toEqual([1, 2])
    expect(tokenizer.eosTokenId).toBe(2)
    expect(tokenizer.padTokenId).toBe(0)
  })

  it('writes the tokenizer.json that its merges describe', () => {
    const json = tokenizerJson([['a', 'b']])
    expect(json).toMatchObject({ model: { merges: [['a', 'b']], vocab: { '<|im_end|>': 2, ab: 259 } } })
  })
})
