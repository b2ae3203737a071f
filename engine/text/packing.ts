import { EngineError } from '../errors.ts'
import { type EncodedExample, IGNORE_INDEX } from './conversation.ts'
import { encodeText } from './encode.ts'
import type { ModelTokenizer } from './tokenizer.ts'

/**
 * Packs chat examples into sequences of at most cutoffLength - 1 tokens, each time taking the longest example that still
 * fits (LLaMA-Factory's greedy knapsack). Sequences are not padded here; longer examples are left out and counted. In
 * plain packing later examples of a sequence see the earlier ones; with `neatPacking` each is trained as if it were
 * alone: it notes its examples' lengths, and no example's first token is learned from the one before.
 */
export function packExamples(
  examples: readonly EncodedExample[],
  options: { cutoffLength: number; neatPacking?: boolean },
): { packed: EncodedExample[]; dropped: number } {
  const fitting = examples.filter(({ inputIds }) => inputIds.length < options.cutoffLength)
  /** Examples by their length, so that the longest that fits is found by counting down. */
  const byLength: EncodedExample[][] = []
  for (const example of fitting) {
    const length = example.inputIds.length
    byLength[length] ??= []
    byLength[length].push(example)
  }
  let left = fitting.length - (byLength[0]?.length ?? 0)
  const packed: EncodedExample[] = []
  while (left > 0) {
    const members: EncodedExample[] = []
    let room = options.cutoffLength - 1
    for (let length = byLength.length - 1; length > 0; length = Math.min(length, room)) {
      const example = byLength[length]?.pop()
      if (example === undefined) {
        length--
        continue
      }
      members.push(example)
      room -= length
    }
    left -= members.length
    packed.push(options.neatPacking ? apart(members) : concatenate(members))
  }
  return { packed, dropped: examples.length - fitting.length }
}

/**
 * Packs raw texts for stage pt: all texts with their end tokens (or `end`) in one row, cut into blocks of exactly cutoffLength
 * tokens; the remainder is dropped. A tokenizer that adds bos has it as the first token of each block.
 *
 * @throws EngineError `too_few_samples` when not even one block is full.
 */
export function packText(
  texts: Iterable<string>,
  tokenizer: ModelTokenizer,
  options: { cutoffLength: number; end?: string | undefined },
): EncodedExample[] {
  const { cutoffLength, end } = options
  const blocks: EncodedExample[] = []
  let block = new Int32Array(cutoffLength)
  let filled = 0
  for (const text of texts) {
    const ids = encodeText(text, tokenizer, { end })
    for (let start = 0; start < ids.length; ) {
      const piece = ids.subarray(start, start + cutoffLength - filled)
      block.set(piece, filled)
      filled += piece.length
      start += piece.length
      if (filled < cutoffLength) continue
      if (tokenizer.addBosToken && tokenizer.bosTokenId !== undefined) block[0] = tokenizer.bosTokenId
      blocks.push({ inputIds: block, labels: block.slice() })
      block = new Int32Array(cutoffLength)
      filled = 0
    }
  }
  if (blocks.length === 0) {
    throw new EngineError(
      'invalid',
      'too_few_samples',
      `Cannot find sufficient samples, consider increasing dataset size. The texts have ${filled} tokens together, ` +
        `packing needs at least cutoff_len = ${cutoffLength}; lower cutoff_len or set packing to false.`,
      { param: 'dataset' },
    )
  }
  return blocks
}

function concatenate(examples: readonly EncodedExample[]): EncodedExample {
  const total = examples.reduce((sum, example) => sum + example.inputIds.length, 0)
  const inputIds = new Int32Array(total)
  const labels = new Int32Array(total)
  let offset = 0
  for (const example of examples) {
    inputIds.set(example.inputIds, offset)
    labels.set(example.labels, offset)
    offset += example.inputIds.length
  }
  return { inputIds, labels, places: examples.flatMap(({ places = [] }) => places) }
}

function apart(examples: readonly EncodedExample[]): EncodedExample {
  const alone = examples.map((example) => {
    const labels = example.labels.slice()
    labels[0] = IGNORE_INDEX
    return { ...example, labels }
  })
  return { ...concatenate(alone), packed: examples.map(({ inputIds }) => inputIds.length) }
}
