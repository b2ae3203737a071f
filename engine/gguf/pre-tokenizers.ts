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

/** GPT-4o's pattern: words begin with their capitals; `endings` are what may follow a word. */
const capitalWords = (endings: string, digits: string) => {
  const [upper, lower] = ['[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]', '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]']
  return (
    `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${endings}|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${endings}|` +
    `\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`
  )
}

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
/** GPT-4's tokenizer as OLMo 2, Phi-4 and others have it. */
const dbrx: ByteLevelForm = { ...llama3, ignore_merges: false }
const gpt4o: ByteLevelForm = {
  normalizer: null,
  pre_tokenizer: cutBy(capitalWords("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", '{1,3}')),
  ignore_merges: false,
}
/** Of Mistral's newer models. */
const tekken: ByteLevelForm = {
  normalizer: null,
  pre_tokenizer: cutBy(capitalWords('', '')),
  ignore_merges: true,
}
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
  dbrx,
  'chatglm-bpe': dbrx,
  glm4: llama3,
  'gpt-4o': gpt4o,
  tekken,
}
