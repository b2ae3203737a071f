import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export const SPECIAL_TOKENS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'] as const
export const VOCAB_SIZE = 2048

/** ChatML, as many models have it; no default system prompt. */
const CHAT_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

/** Words as GPT-2 splits them, after every digit has been set apart (the Digits and ByteLevel pre-tokenizers). */
const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/**
 * The printable character that stands for each byte in a byte-level vocabulary: printable Latin-1 bytes stand for
 * themselves, the rest take the code points from 256 on (GPT-2's table).
 */
export function byteSymbols(): string[] {
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    return String.fromCodePoint(printable ? byte : next++)
  })
}

interface Word {
  symbols: string[]
  count: number
}

function countWords(texts: Iterable<string>): Word[] {
  const counts = new Map<string, number>()
  for (const text of texts) {
    for (const piece of text.split(/(\p{N})/u)) {
      for (const [word] of piece.matchAll(WORD)) counts.set(word, (counts.get(word) ?? 0) + 1)
    }
  }
  const symbols = byteSymbols()
  return [...counts].map(([word, count]) => ({
    symbols: [...Buffer.from(word, 'utf8')].map((byte) => symbols[byte]!),
    count,
  }))
}

/**
 * Byte-pair merges in the order learned, until there are `size` different tokens, bytes included: the most frequent
 * pair first, the smaller one by code unit on a tie.
 */
export function learnMerges(texts: Iterable<string>, size: number): [string, string][] {
  const words = countWords(texts)
  const pairCounts = new Map<string, number>()
  const pairWords = new Map<string, Set<Word>>()
  const addPairs = (word: Word, sign: 1 | -1) => {
    for (let i = 0; i + 1 < word.symbols.length; i++) {
      const pair = `${word.symbols[i]} ${word.symbols[i + 1]}`
      pairCounts.set(pair, (pairCounts.get(pair) ?? 0) + sign * word.count)
      if (sign === 1) pairWords.set(pair, (pairWords.get(pair) ?? new Set()).add(word))
    }
  }
  for (const word of words) addPairs(word, 1)
  const merges: [string, string][] = []
  const tokens = new Set(byteSymbols())
  while (tokens.size < size) {
    const best = mostFrequent(pairCounts)
    if (best === undefined) break
    const [left, right] = best.split(' ') as [string, string]
    merges.push([left, right])
    tokens.add(left + right)
    for (const word of pairWords.get(best) ?? []) {
      addPairs(word, -1)
      word.symbols = applyMerge(word.symbols, left, right)
      addPairs(word, 1)
    }
    pairCounts.delete(best)
    pairWords.delete(best)
  }
  return merges
}

function mostFrequent(counts: ReadonlyMap<string, number>): string | undefined {
  let best: string | undefined
  let bestCount = 0
  for (const [pair, count] of counts) {
    if (count > bestCount || (count === bestCount && best !== undefined && pair < best)) {
      best = pair
      bestCount = count
    }
  }
  return best
}

function applyMerge(symbols: readonly string[], left: string, right: string): string[] {
  const merged: string[] = []
  for (let i = 0; i < symbols.length; i++) {
    const joined = symbols[i] === left && symbols[i + 1] === right
    merged.push(joined ? left + right : symbols[i]!)
    if (joined) i++
  }
  return merged
}

/** The tokenizer.json of a byte-level BPE: special tokens first, then the 256 bytes, then one token per merge. */
export function tokenizerJson(merges: readonly (readonly [string, string])[]): Record<string, unknown> {
  const vocabulary = [...SPECIAL_TOKENS, ...byteSymbols(), ...merges.map((pair) => pair.join(''))]
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL_TOKENS.map((content, id) => ({ id, ...addedToken(content), special: true })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel],
    },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries([...new Set(vocabulary)].map((token, id) => [token, id])),
      merges,
    },
  }
}

function addedToken(content: string) {
  return { content, single_word: false, lstrip: false, rstrip: false, normalized: false }
}

/** Trains on `texts` and writes the tokenizer files of a Hugging Face folder. */
export function writeTokenizer(texts: Iterable<string>, folder: string, maxLength: number): void {
  const merges = learnMerges(texts, VOCAB_SIZE - SPECIAL_TOKENS.length)
  const [pad, start, end] = SPECIAL_TOKENS
  const config = {
    added_tokens_decoder: Object.fromEntries(
      SPECIAL_TOKENS.map((content, id) => [String(id), { ...addedToken(content), special: true }]),
    ),
    add_bos_token: false,
    add_prefix_space: false,
    additional_special_tokens: [start, end],
    bos_token: pad,
    eos_token: end,
    pad_token: pad,
    unk_token: pad,
    chat_template: CHAT_TEMPLATE,
    clean_up_tokenization_spaces: false,
    model_max_length: maxLength,
    tokenizer_class: 'PreTrainedTokenizerFast',
  }
  const names = { bos_token: pad, eos_token: end, pad_token: pad, unk_token: pad }
  mkdirSync(folder, { recursive: true })
  const write = (name: string, content: unknown) =>
    writeFileSync(join(folder, name), `${JSON.stringify(content, null, 2)}\n`)
  write('tokenizer.json', tokenizerJson(merges))
  write('tokenizer_config.json', config)
  write('special_tokens_map.json', { ...names, additional_special_tokens: [start, end] })
}
