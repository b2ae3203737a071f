import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ggufName, ggufTokenizer } from '../../../engine/export/gguf-tokenizer.ts'
import { scratchFolder } from '../weights/tiny-model.ts'

const scratch = scratchFolder()
afterAll(() => rmSync(scratch, { recursive: true }))

let count = 0

/** A folder with a SentencePiece tokenizer of a few pieces. */
function folderWith(merges: [string, string][], added: object[] = []): string {
  const folder = join(scratch, String(count++))
  mkdirSync(folder)
  const vocab = Object.fromEntries(
    ['<unk>', '▁', 'a', 'b', 'ab', 'ba', 'aba', '▁a'].map((piece, id) => [piece, id]),
  )
  const toSpace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' }
  const json = {
    added_tokens: added,
    normalizer: toSpace,
    pre_tokenizer: null,
    decoder: null,
    model: { type: 'BPE', vocab, merges, unk_token: '<unk>', byte_fallback: true, fuse_unk: true },
  }
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(json))
  writeFileSync(join(folder, 'tokenizer_config.json'), '{}')
  return folder
}

const scoresOf = (folder: string) => ggufTokenizer(folder, 8).get('tokenizer.ggml.scores')

describe("SentencePiece's scores", () => {
  it('order the pieces as their merges do, and put pieces that are never made last', () => {
    const folder = folderWith([
      ['b', 'a'],
      ['a', 'b'],
      ['ab', 'a'],
      ['a', 'ba'],
    ])
    // <unk> ▁ a b ab ba aba ▁a
    expect(scoresOf(folder)).toEqual({ f32s: [-0, -1e9, -1e9, -1e9, -2, -1, -3, -1e9] })
  })

  it.each<[string, [string, string][]]>([
    [
      'some of the pairs that spell a piece',
      [
        ['a', 'b'],
        ['b', 'a'],
        ['ab', 'a'],
      ],
    ],
    [
      'pairs that spell a piece apart from one another',
      [
        ['a', 'b'],
        ['ab', 'a'],
        ['b', 'a'],
        ['a', 'ba'],
      ],
    ],
  ])('are refused for merges with %s', (_, merges) => {
    expect(() => scoresOf(folderWith(merges))).toThrowError(
      expect.objectContaining({ code: 'gguf_tokenizer_unsupported' }),
    )
  })
})

describe('ggufName', () => {
  const tokens = (rstrip: boolean) =>
    ['<unk>', '<s>', '</s>', '<|endoftext|>'].map((content, id) => ({
      id,
      content,
      special: true,
      rstrip: rstrip && content === '</s>',
    }))

  it("says Phi-3 for tokenizers that strip as Phi-3's do, and for no others", () => {
    const [phi3, other] = [folderWith([], tokens(true)), folderWith([], tokens(false))]
    expect(ggufName('merge-1', phi3)).toBe('merge-1 (Phi-3)')
    expect(ggufName('my-phi3', phi3)).toBe('my-phi3')
    expect(ggufName('better-than-Phi-3', other)).toBe('better-than-phi 3')
    expect(ggufName('merge-1', other)).toBe('merge-1')
  })
})

it('refuses added tokens that are single words, which llama.cpp would find within words', () => {
  const token = {
    id: 4,
    content: 'ab',
    single_word: true,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: false,
  }
  expect(() => ggufTokenizer(folderWith([], [token]), 8)).toThrow(/single_word of the added token 'ab'/)
})
