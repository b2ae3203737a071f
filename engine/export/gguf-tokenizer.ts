import { EngineError } from '../errors.ts'
import { BYTE_LEVEL_FORMS, type ByteLevelForm } from '../gguf/pre-tokenizers.ts'
import { loadTokenizer, type ModelTokenizer } from '../text/tokenizer.ts'
import { isJsonObject, type JsonObject, requireJsonObject } from '../text/tokenizer-files.ts'
import type { GgufMetadataValue } from './gguf-writer.ts'

/** Kinds of token (llama.h, enum llama_token_type). */
const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

interface Vocabulary {
  /** By id, with a name for each hole. */
  tokens: string[]
  kinds: number[]
}

/**
 * A folder's tokenizer as GGUF's metadata: byte-level BPE ('gpt2') with the name of its pre-tokenizer, or SentencePiece's
 * BPE ('llama') with scores; special tokens and the chat template.
 *
 * @param size rows of the embedding table; the vocabulary is filled up to it.
 * @throws EngineError `unsupported` for a tokenizer that llama.cpp would read otherwise than we do.
 */
export function ggufTokenizer(folder: string, size: number): Map<string, GgufMetadataValue> {
  const json = requireJsonObject(folder, 'tokenizer.json')
  const tokenizer = loadTokenizer(folder)
  const model = isJsonObject(json.model) ? json.model : {}
  if (model.type !== 'BPE') throw unsupported(`the tokenizer model ${String(model.type)}`, 'BPE is')
  const merges = readMerges(model)
  const vocabulary = readVocabulary(json, model, size)
  const isSentencePiece = model.byte_fallback === true
  const parts = isSentencePiece
    ? sentencePieceMetadata(json, vocabulary, merges)
    : byteLevelMetadata(json, model, merges)
  return new Map([
    ['tokenizer.ggml.model', { text: isSentencePiece ? 'llama' : 'gpt2' }],
    ['tokenizer.ggml.tokens', { texts: vocabulary.tokens }],
    ['tokenizer.ggml.token_type', { i32s: vocabulary.kinds }],
    ...parts,
    ...specialTokens(tokenizer),
  ])
}

function readVocabulary(json: JsonObject, model: JsonObject, size: number): Vocabulary {
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`)
  const kinds = new Array<number>(size).fill(KIND.unused)
  const place = (id: number, token: string, kind: number) => {
    if (id >= size)
      throw unsupported(`token ${id} beyond the ${size} rows of the embedding`, 'a row for each is')
    tokens[id] = token
    kinds[id] = kind
  }
  for (const [token, id] of Object.entries(model.vocab as Record<string, number>)) {
    const isByte = model.byte_fallback === true && /^<0x[0-9A-F]{2}>$/.test(token)
    place(id, token, isByte ? KIND.byte : token === model.unk_token ? KIND.unknown : KIND.normal)
  }
  for (const token of (json.added_tokens ?? []) as { id: number; content: string; special: boolean }[]) {
    const kind = token.special ? KIND.control : KIND.userDefined
    place(token.id, token.content, token.content === model.unk_token ? KIND.unknown : kind)
  }
  return { tokens, kinds }
}

/** Pairs, which older files write as one text. */
function readMerges(model: JsonObject): [string, string][] {
  return (model.merges as (string | [string, string])[]).map((merge) => {
    if (typeof merge !== 'string') return merge
    const at = merge.indexOf(' ', 1)
    return [merge.slice(0, at), merge.slice(at + 1)]
  })
}

function byteLevelMetadata(
  json: JsonObject,
  model: JsonObject,
  merges: readonly [string, string][],
): [string, GgufMetadataValue][] {
  const form = signature(json.normalizer, json.pre_tokenizer, model.ignore_merges === true)
  const known = Object.entries(BYTE_LEVEL_FORMS).find(([, candidate]) => signatureOf(candidate) === form)
  if (!known) {
    const names = Object.keys(BYTE_LEVEL_FORMS).join(', ')
    throw unsupported(
      `the pre-tokenizer ${JSON.stringify(json.pre_tokenizer).slice(0, 200)}`,
      `those of ${names} are`,
    )
  }
  return [
    ['tokenizer.ggml.pre', { text: known[0] }],
    ['tokenizer.ggml.merges', { texts: merges.map((pair) => pair.join(' ')) }],
  ]
}

function signatureOf({ normalizer, pre_tokenizer, ignore_merges }: ByteLevelForm): string {
  return signature(normalizer, pre_tokenizer, ignore_merges)
}

/** What decides how text is cut, as a text to compare; offsets are of no matter to token ids. */
function signature(normalizer: unknown, preTokenizer: unknown, ignoreMerges: boolean): string {
  const parts = (value: unknown, key: string): unknown[] => {
    if (!isJsonObject(value)) return []
    return value.type === 'Sequence' ? (value[key] as unknown[]) : [value]
  }
  const plain = (value: unknown) => {
    const { trim_offsets: _, ...rest } = value as JsonObject
    return Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1))
  }
  const cuts = [parts(normalizer, 'normalizers'), parts(preTokenizer, 'pretokenizers')]
  return JSON.stringify([cuts.map((steps) => steps.map(plain)), ignoreMerges])
}

/**
 * SentencePiece keeps a score for each piece and joins the neighbours whose piece has the highest one; the rank of the
 * first merge that makes a piece, negated, gives the same order.
 */
function sentencePieceMetadata(
  json: JsonObject,
  { tokens }: Vocabulary,
  merges: readonly [string, string][],
): [string, GgufMetadataValue][] {
  const ranks = new Map<string, number>()
  for (const [rank, [left, right]] of merges.entries()) {
    const piece = left + right
    if (!ranks.has(piece)) ranks.set(piece, rank + 1)
  }
  const text = JSON.stringify([json.normalizer, json.pre_tokenizer])
  if (!text.includes('▁'))
    throw unsupported('a BPE with bytes but without ▁ for spaces', "SentencePiece's is")
  const prefix = text.includes('"Prepend"') || /"prepend_scheme":"(first|always)"/.test(text)
  return [
    ['tokenizer.ggml.pre', { text: 'default' }],
    ['tokenizer.ggml.scores', { f32s: tokens.map((token) => -(ranks.get(token) ?? 0)) }],
    ['tokenizer.ggml.add_space_prefix', { flag: prefix }],
  ]
}

function specialTokens(tokenizer: ModelTokenizer): [string, GgufMetadataValue][] {
  const { tokens, bosTokenId: bos, eosTokenId: eos, eosTokenIds, chatTemplate } = tokenizer
  const idOf = (token: string | undefined) => (token === undefined ? undefined : tokenizer.tokenId(token))
  const ids: [string, number | undefined][] = [
    ['bos_token_id', bos],
    ['eos_token_id', eos],
    ['eot_token_id', eosTokenIds.find((id) => id !== eos)],
    ['unknown_token_id', idOf(tokens.unk)],
    ['padding_token_id', idOf(tokens.pad)],
  ]
  const beginsWithBos = tokenizer.addBosToken || tokenizer.encode('a', { addSpecialTokens: true })[0] === bos
  return [
    ...ids.flatMap(([key, id]): [string, GgufMetadataValue][] =>
      id === undefined ? [] : [[`tokenizer.ggml.${key}`, { u32: id }]],
    ),
    ['tokenizer.ggml.add_bos_token', { flag: bos !== undefined && beginsWithBos }],
    ['tokenizer.ggml.add_eos_token', { flag: false }],
    ...(chatTemplate === undefined ? [] : [['tokenizer.chat_template', { text: chatTemplate }] as const]),
  ] as [string, GgufMetadataValue][]
}

function unsupported(what: string, supported: string): EngineError {
  return new EngineError(
    'unsupported',
    'gguf_tokenizer_unsupported',
    `GGUF takes no ${what}; ${supported}.`,
    {
      param: 'format',
    },
  )
}
