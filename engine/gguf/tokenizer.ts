import { surroundedBy } from '../text/post-processor.ts'
import { sentencePieceParts } from '../text/sentence-piece-bpe.ts'
import { malformedGguf } from './cursor.ts'
import type { GgufMetadata } from './metadata.ts'
import { BYTE_LEVEL_FORMS } from './pre-tokenizers.ts'

/** The files of a tokenizer in a Hugging Face folder, as JSON values. */
export type TokenizerFiles = Record<
  'tokenizer.json' | 'tokenizer_config.json' | 'special_tokens_map.json' | 'generation_config.json',
  Record<string, unknown>
>

/** Kinds of token (llama.h, enum llama_token_type). */
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4
/** Tokens that are found in text as a whole, before it is cut into words. */
const ADDED = [UNKNOWN, CONTROL, USER_DEFINED]

interface Vocabulary {
  tokens: readonly string[]
  types: readonly number[]
}

/**
 * Builds tokenizer.json and its companions from a GGUF file's metadata: byte-level BPE ('gpt2') by the name of its
 * pre-tokenizer, and SentencePiece's BPE ('llama').
 *
 * @throws EngineError `unsupported` naming another kind of tokenizer or pre-tokenizer; `invalid` for lists that don't fit.
 */
export function tokenizerFiles(metadata: GgufMetadata): TokenizerFiles {
  const kind = metadata.require('tokenizer.ggml.model', metadata.text)
  const vocabulary = readVocabulary(metadata)
  const special = readSpecialTokens(metadata, vocabulary, kind)
  const added = addedTokens(vocabulary, metadata.text('general.name') ?? '')
  const parts =
    kind === 'gpt2' ? byteLevelParts(metadata, vocabulary) : scoredParts(metadata, vocabulary, kind)
  const { named, addBos, addEos } = special
  return {
    'tokenizer.json': {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: added,
      post_processor: surroundedBy(addBos ? special.bos : undefined, addEos ? special.eos : undefined),
      ...parts,
    },
    'tokenizer_config.json': {
      tokenizer_class: 'PreTrainedTokenizerFast',
      add_bos_token: addBos,
      add_eos_token: addEos,
      clean_up_tokenization_spaces: false,
      ...named,
      additional_special_tokens: added.filter((token) => token.special).map((token) => token.content),
      model_max_length: metadata.count(`${metadata.text('general.architecture')}.context_length`) ?? null,
      ...chatTemplate(metadata),
    },
    'special_tokens_map.json': named,
    'generation_config.json': generationConfig(metadata, vocabulary),
  }
}

function readVocabulary(metadata: GgufMetadata): Vocabulary {
  const tokens = metadata.require('tokenizer.ggml.tokens', metadata.texts)
  const types = metadata.numbers('tokenizer.ggml.token_type') ?? tokens.map(() => 1)
  if (types.length !== tokens.length) {
    throw malformedGguf(metadata.path, `it has ${tokens.length} tokens, but ${types.length} token types`)
  }
  if (new Set(tokens).size !== tokens.length)
    throw malformedGguf(metadata.path, 'two of its tokens are equal')
  return { tokens, types }
}

/** Those of Phi-3's special tokens that leave the blanks after them alone. */
const PHI3_KEEPING = ['<unk>', '<s>', '<|endoftext|>']

/** llama.cpp tells by the model's name whether special tokens swallow the blanks after them (llama-vocab.cpp). */
function addedTokens({ tokens, types }: Vocabulary, name: string) {
  const isPhi3 = /phi-?3/i.test(name)
  const swallows = (content: string, type: number) =>
    isPhi3 && (content === '</s>' || (type !== USER_DEFINED && !PHI3_KEEPING.includes(content)))
  return tokens.flatMap((content, id) =>
    ADDED.includes(types[id]!)
      ? [
          {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: swallows(content, types[id]!),
            normalized: false,
            special: types[id] !== USER_DEFINED,
          },
        ]
      : [],
  )
}

interface SpecialTokens {
  named: Record<string, string>
  addBos: boolean
  addEos: boolean
  bos?: { id: number; content: string }
  eos?: { id: number; content: string }
}

const NAMED: Record<string, string> = {
  bos_token: 'tokenizer.ggml.bos_token_id',
  eos_token: 'tokenizer.ggml.eos_token_id',
  pad_token: 'tokenizer.ggml.padding_token_id',
  unk_token: 'tokenizer.ggml.unknown_token_id',
}

function readSpecialTokens(metadata: GgufMetadata, { tokens }: Vocabulary, kind: string): SpecialTokens {
  const named: Record<string, string> = {}
  for (const [name, key] of Object.entries(NAMED)) {
    const id = metadata.count(key, 0, tokens.length - 1)
    if (id !== undefined) named[name] = tokens[id]!
  }
  const token = (key: string) => {
    const id = metadata.count(key, 0, tokens.length - 1)
    return id === undefined ? undefined : { id, content: tokens[id]! }
  }
  return {
    named,
    // SentencePiece models begin with bos unless they say otherwise (llama-vocab.cpp).
    addBos: metadata.flag('tokenizer.ggml.add_bos_token') ?? kind === 'llama',
    addEos: metadata.flag('tokenizer.ggml.add_eos_token') ?? false,
    bos: token(NAMED.bos_token!),
    eos: token(NAMED.eos_token!),
  }
}

function byteLevelParts(metadata: GgufMetadata, { tokens, types }: Vocabulary): object {
  const name = metadata.text('tokenizer.ggml.pre') ?? 'gpt-2'
  const form = Object.hasOwn(BYTE_LEVEL_FORMS, name) ? BYTE_LEVEL_FORMS[name]! : undefined
  if (!form) {
    throw metadata.unsupported('tokenizer.ggml.pre', name, `${Object.keys(BYTE_LEVEL_FORMS).join(', ')} are`)
  }
  const merges = metadata.require('tokenizer.ggml.merges', metadata.texts).map((line) => {
    const pair = line.split(' ')
    if (pair.length === 2 && pair[0] && pair[1]) return pair
    throw malformedGguf(metadata.path, `the merge ${JSON.stringify(line.slice(0, 60))} is no pair of tokens`)
  })
  // User-defined tokens that are plain text stand in added_tokens alone: as words of the vocabulary they would be bytes.
  const words = tokens.flatMap((token, id) => (types[id] === USER_DEFINED ? [] : [[token, id] as const]))
  return {
    normalizer: form.normalizer,
    pre_tokenizer: form.pre_tokenizer,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: form.ignore_merges,
      vocab: Object.fromEntries(words),
      merges,
    },
  }
}

/** SentencePiece's BPE in the form that Llama 2's own tokenizer.json has. */
function scoredParts(metadata: GgufMetadata, { tokens, types }: Vocabulary, kind: string): object {
  if (kind !== 'llama') throw metadata.unsupported('tokenizer.ggml.model', kind, "'gpt2' and 'llama' are")
  const scores = metadata.require('tokenizer.ggml.scores', metadata.numbers)
  if (scores.length !== tokens.length) {
    throw malformedGguf(metadata.path, `it has ${tokens.length} tokens, but ${scores.length} scores`)
  }
  const unknown = metadata.count('tokenizer.ggml.unknown_token_id', 0, tokens.length - 1) ?? 0
  const addSpace = metadata.flag('tokenizer.ggml.add_space_prefix') ?? true
  const prefix = addSpace ? ('always' as const) : ('none' as const)
  return sentencePieceParts({ tokens, scores, types, unknown, prefix, byteFallback: true })
}

function chatTemplate(metadata: GgufMetadata): { chat_template?: string } {
  const template = metadata.text('tokenizer.chat_template')
  return template === undefined ? {} : { chat_template: template }
}

/** Every token that ends an answer: end of text, and where the file names them end of turn and of message. */
function generationConfig(metadata: GgufMetadata, { tokens }: Vocabulary): Record<string, unknown> {
  const id = (key: string) => metadata.count(`tokenizer.ggml.${key}_token_id`, 0, tokens.length - 1)
  const ends = [...new Set([id('eos'), id('eot'), id('eom')].filter((end) => end !== undefined))]
  return {
    bos_token_id: id('bos') ?? null,
    eos_token_id: ends.length > 1 ? ends : (ends[0] ?? null),
    ...(id('padding') === undefined ? {} : { pad_token_id: id('padding') }),
  }
}
