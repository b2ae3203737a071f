import { describe, expect, it } from 'vitest'
import { GgufMetadata } from '../../../engine/gguf/metadata.ts'
import { tokenizerFiles } from '../../../engine/gguf/tokenizer.ts'
import { mergesOfScores } from '../../../engine/text/sentence-piece-bpe.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { writeModelFolder } from '../text/byte-tokenizer.ts'

const bytes = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
)
const pieces = ['▁', 'a', 'b', 'c', '▁a', 'ab', 'bc', '▁abc', 'abc']
const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...pieces]
const types = [2, 3, 3, ...bytes.map(() => 6), ...pieces.map(() => 1)]
const scores = [0, 0, 0, ...bytes.map(() => 0), -9, -9, -9, -9, -4, -3, -1, -6, -2]

function load(values: Record<string, unknown>) {
  const files = tokenizerFiles(new GgufMetadata('test.gguf', new Map(Object.entries(values)) as never))
  return { files, tokenizer: loadTokenizer(writeModelFolder({ ...files, 'config.json': {} })) }
}

const sentencePiece = {
  'general.architecture': 'llama',
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.tokens': tokens,
  'tokenizer.ggml.token_type': types,
  'tokenizer.ggml.scores': scores,
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  'tokenizer.ggml.unknown_token_id': 0,
}

describe("SentencePiece's BPE", () => {
  const pieceIds = (...names: string[]) => names.map((name) => tokens.indexOf(name))

  it('merges the piece with the highest score first', () => {
    const { tokenizer } = load(sentencePiece)
    // ▁ a b c: 'bc' (-1) before 'ab' (-3) and '▁a' (-4), then 'abc' (-2), then '▁abc' (-6)
    expect([...tokenizer.encode('abc')]).toEqual(pieceIds('▁abc'))
    // ▁ a b: 'ab' (-3) before '▁a' (-4); '▁ab' is no piece
    expect([...tokenizer.encode('ab')]).toEqual(pieceIds('▁', 'ab'))
    expect([...tokenizer.encode('a bc')]).toEqual(pieceIds('▁a', '▁', 'bc'))
  })

  it('falls back to bytes, adds bos when asked, and gives the text back', () => {
    const { tokenizer } = load(sentencePiece)
    expect([...tokenizer.encode('é')]).toEqual(pieceIds('▁', '<0xC3>', '<0xA9>'))
    expect([...tokenizer.encode('a', { addSpecialTokens: true })]).toEqual(pieceIds('<s>', '▁a'))
    for (const text of ['abc', 'é a', '漢字 abc']) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
  })

  it('writes no space in front where the file says so', () => {
    const { tokenizer } = load({ ...sentencePiece, 'tokenizer.ggml.add_space_prefix': false })
    expect([...tokenizer.encode('bc')]).toEqual(pieceIds('bc'))
    expect(tokenizer.decode(tokenizer.encode('bc'))).toBe('bc')
  })

  it('orders merges by score, then by the ids of their parts', () => {
    expect(mergesOfScores(['a', 'b', 'ab', 'ba', 'aba'], [0, 0, -2, -1, -3], [1, 1, 1, 1, 1])).toEqual([
      ['b', 'a'],
      ['a', 'b'],
      ['a', 'ba'],
      ['ab', 'a'],
    ])
  })
})

describe('byte-level BPE', () => {
  const base = {
    'general.architecture': 'qwen2',
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.tokens': ['<|end|>', '1', '2', '3', '12', '123', 'a', 'Ġ', 'tool'],
    'tokenizer.ggml.token_type': [3, 1, 1, 1, 1, 1, 1, 1, 4],
    'tokenizer.ggml.merges': ['1 2', '12 3'],
    'tokenizer.ggml.eos_token_id': 0,
  }
  const ids = (pre: string, text: string) => [
    ...load({ ...base, 'tokenizer.ggml.pre': pre }).tokenizer.encode(text),
  ]

  it('cuts numbers as the named pre-tokenizer does', () => {
    expect(ids('qwen2', '123')).toEqual([1, 2, 3])
    expect(ids('smollm', '123')).toEqual([1, 2, 3])
    expect(ids('llama-bpe', '1231')).toEqual([5, 1])
    expect(ids('gpt-2', '1231')).toEqual([5, 1])
  })

  it('finds control and user-defined tokens in text, and only the first kind is special', () => {
    const { tokenizer } = load({ ...base, 'tokenizer.ggml.pre': 'gpt-2' })
    expect([...tokenizer.encode('a<|end|>tool')]).toEqual([6, 0, 8])
    expect([...tokenizer.specialTokenIds]).toEqual([0])
  })

  it('ends an answer at every end token that the file names', () => {
    const { files } = load({ ...base, 'tokenizer.ggml.pre': 'gpt-2', 'tokenizer.ggml.eot_token_id': 8 })
    expect(files['generation_config.json']).toMatchObject({ eos_token_id: [0, 8] })
  })
})
