/** The parts of tokenizer.json that a byte-level BPE of a name has beside its vocabulary. */
export interface ByteLevelForm {
  normalizer: object | null
  pre_tokenizer: object
  /** A word that is a token as a whole is not built by merges. */
  ignore_merges: boolean
}

const byteLevel = (useRegex: boolean) => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
})

const sequence = (...pretokenizers: object[]) => ({ type: 'Sequence', pretokenizers })

/** Cuts by a pattern of its own, so that ByteLevel must not cut again. */
const cutBy = (regex: string) =>
  sequence(
    { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false },
    byteLevel(false),
  )

/** GPT-4's pattern, whose numbers have up to `digits` digits. */
const words = (digits: string) =>
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" +
  `\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`

const gpt2: ByteLevelForm = { normalizer: null, pre_tokenizer: byteLevel(true), ignore_merges: false }
const smollm: ByteLevelForm = {
  normalizer: null,
  pre_tokenizer: sequence({ type: 'Digits', individual_digits: true }, byteLevel(true)),
  ignore_merges: false,
}
const llama3: ByteLevelForm = { normalizer: null, pre_tokenizer: cutBy(words('{1,3}')), ignore_merges: true }
const qwen2: ByteLevelForm = {
  normalizer: { type: 'NFC' },
  pre_tokenizer: cutBy(words('')),
  ignore_merges: false,
}

/**
 * By `tokenizer.ggml.pre`, the name that llama.cpp gives to a way of cutting text into words (llama-vocab.cpp). The
 * patterns are those of the models' own tokenizer.json.
 */
export const BYTE_LEVEL_FORMS: Record<string, ByteLevelForm> = {
  'gpt-2': gpt2,
  smollm,
  starcoder: smollm,
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  qwen2,
}
