import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { calibrationWindows } from '../engine/quant/calibration.ts'
import type { ModelTokenizer } from '../engine/text/tokenizer.ts'

const data = resolve(import.meta.dirname, '../../shared/data')

/** Options of benchmarks that compare models on a text, for parseArgs. */
export const TEXT_OPTIONS = {
  model: { type: 'string' },
  tokens: { type: 'string', default: '2048' },
  length: { type: 'string', default: '512' },
} as const

/** The first tokens of wiki_demo.txt, at most `tokens`, in windows of `length`. */
export function wikiWindows(tokenizer: ModelTokenizer, tokens: number, length: number): Int32Array[] {
  const all = tokenizer.encode(readFileSync(join(data, 'wiki_demo.txt'), 'utf8'))
  const count = Math.floor(Math.min(tokens, all.length) / length)
  return Array.from({ length: count }, (_, i) => all.slice(i * length, (i + 1) * length))
}

/** Windows of c4_demo for calibration. */
export function c4Windows(
  tokenizer: ModelTokenizer,
  samples: number,
  length: number,
  seed = 42,
): Int32Array[] {
  const texts = readFileSync(join(data, 'c4_demo.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { text: string }).text)
  return calibrationWindows(texts, (text) => tokenizer.encode(text), { samples, length, seed })
}
