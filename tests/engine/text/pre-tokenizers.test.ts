import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { exactPreTokenizer } from '../../../engine/text/pre-tokenizers.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { writeModelFolder } from './byte-tokenizer.ts'

interface Reference {
  cuts: { name: string; pre_tokenizer: object; text: string; pieces: string[] }[]
  smollm2: { text: string; ids: number[] }[]
}

/** What the tokenizers crate makes of texts; pre-tokenizers.py wrote it. */
const reference = JSON.parse(
  readFileSync(new URL('./pre-tokenizers.json', import.meta.url), 'utf8'),
) as Reference

describe('exactPreTokenizer', () => {
  it.each(reference.cuts)(
    '$name cuts $text as the tokenizers crate does',
    ({ pre_tokenizer, pieces, text }) => {
      // A vocabulary of whole pieces shows where the text was cut.
      const words = [...new Set(pieces)]
      const vocab = Object.fromEntries(words.map((word, id) => [word, id]))
      const model = { type: 'WordLevel', vocab: { ...vocab, '[none]': words.length }, unk_token: '[none]' }
      const tokenizer = loadTokenizer(writeModelFolder({ 'tokenizer.json': { model, pre_tokenizer } }))
      expect([...tokenizer.encode(text)].map((id) => words[id])).toEqual(pieces)
    },
  )

  it('leaves alone what it does not know', () => {
    for (const given of [null, 'x', { type: 'Metaspace', replacement: '▁' }, { type: 'Sequence' }]) {
      expect(exactPreTokenizer(given)).toEqual(given)
    }
  })
})

describe.skipIf(sharedMissing())(`SmolLM2's tokenizer ${NEEDS_SHARED}`, () => {
  it('gives the ids of the tokenizers crate for numbers that are no ASCII digits', () => {
    const tokenizer = loadTokenizer(`${SHARED}models/SmolLM2-135M-Instruct`)
    for (const { text, ids } of reference.smollm2) expect([...tokenizer.encode(text)], text).toEqual(ids)
  })
})
