import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'

const MODEL = resolve(import.meta.dirname, '../../parity/sentence-piece/llama/tokenizer.model')
const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

/** A folder with the model, `more` bytes behind it (a message's later fields replace its earlier ones), and JSON files. */
function folderWith(files: Record<string, unknown> = {}, more: number[] = []): string {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-sentence-piece-'))
  folders.push(folder)
  copyFileSync(MODEL, join(folder, 'tokenizer.model'))
  writeFileSync(join(folder, 'tokenizer.model'), Buffer.from(more), { flag: 'a' })
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(folder, name), JSON.stringify(content))
  return folder
}

describe('a tokenizer of tokenizer.model', () => {
  it('takes its special tokens from the model, and begins texts with bos', () => {
    const tokenizer = loadTokenizer(folderWith())
    expect(tokenizer.tokens).toMatchObject({ bos: '<s>', eos: '</s>', unk: '<unk>' })
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.addBosToken]).toEqual([1, 2, true])
    const ids = tokenizer.encode('The lighthouse', { addSpecialTokens: true })
    expect(ids[0]).toBe(1)
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe('The lighthouse')
    expect(tokenizer.decode(tokenizer.encode('漢字 🙂'))).toBe('漢字 🙂')
  })

  it('takes what the files beside it say before that', () => {
    const token = { content: '<turn>', lstrip: false, rstrip: true, normalized: false, special: true }
    const tokenizer = loadTokenizer(
      folderWith({
        'tokenizer_config.json': {
          add_bos_token: false,
          eos_token: '<turn>',
          added_tokens_decoder: { 701: token },
        },
        'added_tokens.json': { '<pad>': 700 },
      }),
    )
    expect(tokenizer.eosTokenId).toBe(701)
    expect([...tokenizer.encode('<turn>  <pad>', { addSpecialTokens: true })]).toEqual([701, 700])
    expect(tokenizer.specialTokenIds.has(701)).toBe(true)
  })

  it("puts a space before the first word alone where 'legacy' is false", () => {
    const words = (legacy: boolean) => {
      const tokenizer = loadTokenizer(folderWith({ 'tokenizer_config.json': { legacy } }))
      return [...tokenizer.encode('a</s>a')].map((id) => tokenizer.tokenText(id))
    }
    expect(words(true)).toEqual(['▁a', '</s>', '▁a'])
    expect(words(false)).toEqual(['▁a', '</s>', 'a'])
  })

  it.each([
    ['a unigram model', [0x12, 2, 3 << 3, 1], /model_type UNIGRAM/],
    ['a normalizer', [0x1a, 3, 0x12, 1, 7], /precompiled_charsmap/],
    ['white space that is taken away', [0x1a, 2, 0x20, 1], /remove_extra_whitespaces/],
  ])('is refused by name for %s', (_, more, message) => {
    expect(() => loadTokenizer(folderWith({}, more))).toThrow(message)
  })

  it('names a file that is no such model, and a folder without a tokenizer', () => {
    const folder = folderWith()
    for (const bytes of [Buffer.from('{"a": 1}'), readFileSync(MODEL).subarray(0, 1001), Buffer.alloc(0)]) {
      writeFileSync(join(folder, 'tokenizer.model'), bytes)
      expect(() => loadTokenizer(folder)).toThrow(/tokenizer\.model is no SentencePiece model/)
    }
    rmSync(join(folder, 'tokenizer.model'))
    expect(() => loadTokenizer(folder)).toThrow(/tokenizer\.json is missing/)
  })
})
