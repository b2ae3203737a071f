import { EngineError } from '../errors.ts'
import { BYTE_LEVEL_FORMS, type ByteLevelForm } from '../gguf/pre-tokenizers.ts'
import type { TemplateChoice } from '../text/template-choice.ts'
import { loadTokenizer, type ModelTokenizer, readTokenizer } from '../text/tokenizer.ts'
import { isJsonObject, type JsonObject } from '../text/tokenizer-files.ts'
import { type CarriedTemplate, carriedTemplate } from './carried-template.ts'
import type { GgufMetadataValue } from './gguf-writer.ts'

/** Kinds of token (llama.h, enum llama_token_type). */
const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

interface AddedToken {
  id: number
  content: string
  special: boolean
  single_word?: boolean
}

interface Vocabulary {
  /** By id, with a name for each hole. */
  tokens: string[]
  kinds: number[]
}

export interface GgufTokenizerOptions {
  /** The chat template that training used; the folder's own when left out. */
  template?: string | TemplateChoice | undefined
  /** Whether a runtime puts bos before every prompt; as the tokenizer does before plain text when left out. */
  addBos?: boolean
}

/**
 * A folder's tokenizer as GGUF's metadata: byte-level BPE ('gpt2') with the name of its pre-tokenizer, or SentencePiece's
 * BPE ('llama') with scores; special tokens and the chat template.
 *
 * @param size rows of the embedding table; the vocabulary is filled up to it.
 * @throws EngineError `unsupported` for a tokenizer that llama.cpp would read otherwise than we do.
 */
export function ggufTokenizer(
  folder: string,
  size: number,
  { template, addBos }: GgufTokenizerOptions = {},
): Map<string, GgufMetadataValue> {
  const { json } = readTokenizer(folder)
  const tokenizer = loadTokenizer(folder)
  const model = isJsonObject(json.model) ? json.model : {}
  if (model.type !== 'BPE') throw unsupported(`the tokenizer model ${String(model.type)}`, 'BPE is')
  const merges = readMerges(model)
  const vocabulary = readVocabulary(json, model, size)
  const isSentencePiece = model.byte_fallback === true
  const parts = isSentencePiece
    ? sentencePieceMetadata(json, vocabulary, merges, model.vocab as Record<string, number>)
    : byteLevelMetadata(json, model, merges)
  return new Map([
    ['tokenizer.ggml.model', { text: isSentencePiece ? 'llama' : 'gpt2' }],
    ['tokenizer.ggml.tokens', { texts: vocabulary.tokens }],
    ['tokenizer.ggml.token_type', { i32s: vocabulary.kinds }],
    ...parts,
    ...specialTokens(tokenizer, carriedTemplate(tokenizer, template), addBos ?? beginsWithBos(tokenizer)),
  ])
}

/** Tokens that llama.cpp looks up, without asking whether they are there, in a model whose name says Phi-3. */
const PHI3_TOKENS = ['<unk>', '<s>', '</s>', '<|endoftext|>']

/**
 * The name of a model in its file. llama.cpp tells by it whether special tokens swallow the blanks after them, as Phi-3's
 * do (llama-vocab.cpp), so Phi-3's must say so, and no other may.
 */
export function ggufName(name: string, folder: string): string {
  const added = (readTokenizer(folder).json.added_tokens ?? []) as {
    content: string
    rstrip?: boolean
  }[]
  const stripping = new Map(added.map(({ content, rstrip = false }) => [content, rstrip]))
  const isPhi3 = PHI3_TOKENS.every((token) => stripping.has(token)) && stripping.get('</s>') === true
  const says = /phi-?3/i.test(name)
  if (isPhi3) return says ? name : `${name} (Phi-3)`
  return name.replace(/phi-?3/gi, 'phi 3')
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
  for (const token of (json.added_tokens ?? []) as AddedToken[]) {
    if (token.single_word)
      throw unsupported(`single_word of the added token '${token.content}'`, 'tokens without it are')
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

/** Rank of pieces that no merge makes: SentencePiece would build them, so they come after all others. */
const LAST_RANK = 1e9

/**
 * SentencePiece keeps a score for each piece and joins the neighbours whose piece has the highest one; the rank of the
 * first merge that makes a piece, negated, gives the same order.
 */
function sentencePieceMetadata(
  json: JsonObject,
  { tokens, kinds }: Vocabulary,
  merges: readonly [string, string][],
  vocab: Record<string, number>,
): [string, GgufMetadataValue][] {
  const ranks = pieceRanks(merges, vocab)
  const scores = tokens.map((token, id) => -(ranks.get(token) ?? (kinds[id] === KIND.normal ? LAST_RANK : 0)))
  const text = JSON.stringify([json.normalizer, json.pre_tokenizer])
  if (!text.includes('▁'))
    throw unsupported('a BPE with bytes but without ▁ for spaces', "SentencePiece's is")
  const prefix = text.includes('"Prepend"') || /"prepend_scheme":"(first|always)"/.test(text)
  return [
    ['tokenizer.ggml.pre', { text: 'default' }],
    ['tokenizer.ggml.scores', { f32s: scores }],
    ['tokenizer.ggml.add_space_prefix', { flag: prefix }],
  ]
}

/**
 * The rank of each piece that merges make.
 *
 * @throws EngineError `unsupported` where a piece has merges of different ranks, or is not made of every pair of tokens that
 *   spell it: by scores alone such merges cannot be told from the others.
 */
function pieceRanks(merges: readonly [string, string][], vocab: Record<string, number>): Map<string, number> {
  const ranks = new Map<string, number>()
  const left = new Map<string, number>()
  let last = ''
  for (const [first, second] of merges) {
    const piece = first + second
    if (piece !== last && ranks.has(piece))
      throw unsupported(`merges that make '${piece}' apart from one another`, SCORED)
    if (piece !== last) {
      ranks.set(piece, ranks.size + 1)
      left.set(piece, waysToSpell(piece, vocab))
    }
    left.set(piece, left.get(piece)! - 1)
    last = piece
  }
  const missing = [...left].find(([, count]) => count > 0)
  if (missing) throw unsupported(`merges that make '${missing[0]}' of some of its pairs only`, SCORED)
  return ranks
}

const SCORED = "SentencePiece's are, which are ordered by the pieces that they make"

function waysToSpell(piece: string, vocab: Record<string, number>): number {
  let count = 0
  for (let at = 1; at < piece.length; at++) {
    if (Object.hasOwn(vocab, piece.slice(0, at)) && Object.hasOwn(vocab, piece.slice(at))) count++
  }
  return count
}

function specialTokens(
  tokenizer: ModelTokenizer,
  { source, eosTokenIds }: CarriedTemplate,
  addBos: boolean,
): [string, GgufMetadataValue][] {
  const { tokens, bosTokenId: bos, eosTokenId: eos } = tokenizer
  const idOf = (token: string | undefined) => (token === undefined ? undefined : tokenizer.tokenId(token))
  const ids: [string, number | undefined][] = [
    ['bos_token_id', bos],
    ['eos_token_id', eos],
    ['eot_token_id', eosTokenIds.find((id) => id !== eos)],
    ['unknown_token_id', idOf(tokens.unk)],
    ['padding_token_id', idOf(tokens.pad)],
  ]
  return [
    ...ids.flatMap(([key, id]): [string, GgufMetadataValue][] =>
      id === undefined ? [] : [[`tokenizer.ggml.${key}`, { u32: id }]],
    ),
    ['tokenizer.ggml.add_bos_token', { flag: addBos }],
    ['tokenizer.ggml.add_eos_token', { flag: false }],
    ...(source === undefined ? [] : [['tokenizer.chat_template', { text: source }] as const]),
  ] as [string, GgufMetadataValue][]
}

/** Whether plain text begins with bos: a runtime that reads the file then puts it before every prompt itself. */
export function beginsWithBos(tokenizer: ModelTokenizer): boolean {
  const { bosTokenId: bos, addBosToken } = tokenizer
  if (bos === undefined) return false
  return addBosToken || tokenizer.encode('a', { addSpecialTokens: true })[0] === bos
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
