import { describe, expect, it } from 'vitest'
import { ggufTokenizer } from '../../../engine/export/gguf-tokenizer.ts'
import { GgufMetadata } from '../../../engine/gguf/metadata.ts'
import { tokenizerFiles } from '../../../engine/gguf/tokenizer.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { writeModelFolder } from '../text/byte-tokenizer.ts'

const SIZE = 32_000

/** A linear congruential generator: x ← 1664525·x + 1013904223 mod 2³². */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const random = randomNumbers(11)
const letters = [
  '▁',
  ...'etaoinshrdlucmfwypvbgkqjxz',
  ...'ABCDEFGH',
  ...'.,-0123456789',
  ...'äöüéßñçñøå漢字語',
]
const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`)

/** Pieces by rank, each made of two others: spaces only in front, as SentencePiece has them, and runs of spaces. */
function madePieces(count: number): string[] {
  const known = new Set(letters)
  const pieces = [...known]
  const made = ['▁▁', '▁▁▁▁']
  for (const piece of made) known.add(piece)
  while (made.length < count) {
    // Early pieces are more frequent, so that long ones come about.
    const pick = () => pieces[Math.floor((random(1000) / 1000) ** 2 * pieces.length)]!
    const piece = pick() + pick()
    if (piece.length > 12 || known.has(piece) || piece.lastIndexOf('▁') > 0) continue
    known.add(piece)
    pieces.push(piece)
    made.push(piece)
  }
  return made
}

const special = ['<unk>', '<s>', '</s>']
const unique = [...new Set(letters)]
const made = madePieces(SIZE - special.length - bytes.length - unique.length)
const tokens = [...special, ...bytes, ...made, ...unique]
const values = {
  'general.architecture': 'llama',
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.tokens': tokens,
  'tokenizer.ggml.token_type': tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1)),
  'tokenizer.ggml.scores': tokens.map((_, id) => (id < 259 ? 0 : 259 - id)),
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  'tokenizer.ggml.unknown_token_id': 0,
  'tokenizer.ggml.add_bos_token': true,
}

function imported(metadata: Record<string, unknown>): string {
  const files = tokenizerFiles(new GgufMetadata('test.gguf', new Map(Object.entries(metadata)) as never))
  return writeModelFolder({ ...files, 'config.json': {} })
}

/** What the exporter writes, as the importer's metadata has it. */
function exported(folder: string): Record<string, unknown> {
  const metadata = [...ggufTokenizer(folder, SIZE)].map(([key, value]) => [key, Object.values(value)[0]])
  return { 'general.architecture': 'llama', ...Object.fromEntries(metadata) }
}

/** SentencePiece as it is defined: of all neighbours that make a piece, those with the best score, the first of them. */
function byDefinition(text: string): number[] {
  const ids = new Map(tokens.map((token, id) => [token, id]))
  let parts = [...`▁${text.replaceAll(' ', '▁')}`]
  for (;;) {
    const joined = parts.slice(1).map((part, i) => ids.get(parts[i]! + part) ?? Number.POSITIVE_INFINITY)
    const best = joined.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY)
    if (best === Number.POSITIVE_INFINITY) break
    const at = joined.indexOf(best)
    parts = [...parts.slice(0, at), tokens[best]!, ...parts.slice(at + 2)]
  }
  return parts.flatMap((part) => ids.get(part) ?? [...Buffer.from(part)].map((byte) => 3 + byte))
}

function randomText(): string {
  const parts = Array.from({ length: 1 + random(30) }, () => {
    const kind = random(10)
    if (kind === 0) return String.fromCodePoint(32 + random(0x2fff))
    if (kind === 1) return ' '.repeat(1 + random(6))
    if (kind === 2) return '🙂\n'
    return made[random(made.length)]!.replaceAll('▁', ' ')
  })
  return parts.join('').replaceAll('▁', '_')
}

describe('a SentencePiece vocabulary of 32,000 pieces', () => {
  it('goes out as GGUF and comes back with the same tokens for every text, which are those of the definition', () => {
    const before = imported(values)
    const after = imported(exported(before))
    const [first, second] = [loadTokenizer(before), loadTokenizer(after)]
    for (let i = 0; i < 300; i++) {
      const text = randomText()
      const ids = [...first.encode(text)]
      expect([...second.encode(text)], text).toEqual(ids)
      expect(ids, text).toEqual(byDefinition(text))
      expect(second.decode(Int32Array.from(ids)), text).toBe(text)
    }
  })
})
