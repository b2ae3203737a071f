import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { writeModelFolder } from './byte-tokenizer.ts'

/** whole-words.py writes it. */
const { tokenizer, texts } = JSON.parse(
  readFileSync(join(import.meta.dirname, 'whole-words.json'), 'utf8'),
) as { tokenizer: { added_tokens: object[] }; texts: [string, number[]][] }

it('finds added tokens that are single words where the tokenizers crate finds them', () => {
  const ours = loadTokenizer(writeModelFolder({ 'tokenizer.json': tokenizer }))
  const differing = texts.filter(([text, ids]) => String([...ours.encode(text)]) !== String(ids))
  expect(differing.map(([text]) => text)).toEqual([])
})

it('refuses a text in which one stands between tokens as part of a word', () => {
  const mark = { ...tokenizer.added_tokens[0], id: 300, content: '<m>' }
  const json = { ...tokenizer, added_tokens: [...tokenizer.added_tokens, mark] }
  const ours = loadTokenizer(writeModelFolder({ 'tokenizer.json': json }))
  expect([...ours.encode('<m> <m>')]).toEqual([300, ours.tokenId('Ġ'), 300])
  expect(() => ours.encode('<m>foo<m>')).toThrow(/"<m>" has single_word and stands between two tokens/)
})
