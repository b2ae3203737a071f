import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'

/** sentence-piece-reference.py writes it. */
const FOLDER = join(import.meta.dirname, 'sentence-piece')

describe('a folder with tokenizer.model alone', () => {
  it.each(['llama', 'gemma', 'no-bytes'])("has sentencepiece's ids (%s)", (name) => {
    const tokenizer = loadTokenizer(join(FOLDER, name))
    const rows = JSON.parse(readFileSync(join(FOLDER, name, 'reference.json'), 'utf8')) as [
      string,
      number[],
    ][]
    const differing = rows.filter(([text, ids]) => String([...tokenizer.encode(text)]) !== String(ids))
    expect(differing.map(([text, ids]) => [text, ids, [...tokenizer.encode(text)]])).toEqual([])
  })
})
