import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers'
import { EngineError, messageOf } from '../errors.ts'
import { exactPreTokenizer } from './pre-tokenizers.ts'
import { convertSentencePiece, type TokenizerJson } from './sentence-piece-tokenizer.ts'
import { tokenBytes, type VocabularyKind, vocabularyKind } from './token-bytes.ts'
import {
  isJsonObject,
  type JsonObject,
  type NamedTokens,
  readChatTemplate,
  readJsonObject,
  readModelEosIds,
  readNamedTokens,
  requireJsonObject,
  tokenContent,
} from './tokenizer-files.ts'
import { keepWholeWords, type WithSplitters } from './whole-words.ts'

/** A model folder's tokenizer with what the folder says about special tokens and its chat template. */
export interface ModelTokenizer {
  /** One more than the highest token id. A model's embedding may have more rows than this. */
  readonly vocabSize: number
  /** The special tokens' texts, as chat templates receive them. */
  readonly tokens: Readonly<NamedTokens>
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number | undefined
  /** The pad token's id; the eos id where the tokenizer has none, 0 where it has neither. */
  readonly padTokenId: number
  /** Ids of all tokens that are marked special. */
  readonly specialTokenIds: ReadonlySet<number>
  /** Every id that ends a generation: the tokenizer's eos and `eos_token_id` of config.json and generation_config.json. */
  readonly eosTokenIds: readonly number[]
  /** `add_bos_token` of tokenizer_config.json: plain text starts with bos. Chat templates write their own. */
  readonly addBosToken: boolean
  /** The folder's Jinja chat template, unparsed. */
  readonly chatTemplate: string | undefined
  /** Token ids of `text`. Special tokens written in the text are recognised; bos and eos are added only when asked. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): Int32Array
  /** Text of token ids; ids outside the vocabulary contribute nothing, as in transformers. */
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): string
  /** The id of one token's text, special or not. */
  tokenId(token: string): number | undefined
  /** A token as the vocabulary writes it (see vocabularyKind); undefined for an id without a token. */
  tokenText(id: number): string | undefined
  readonly vocabularyKind: VocabularyKind
  /** The bytes that a token stands for in the middle of a text; none for an id without a token. */
  tokenBytes(id: number): Uint8Array
}

/** The library's class as used here: its own declarations do not resolve under Node's module rules. */
interface Tokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] }
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string
  token_to_id(token: string): number | undefined
  id_to_token(id: number): string | undefined
  get_added_tokens_decoder(): Map<number, { special: boolean }>
  get_vocab(withAddedTokens: boolean): Map<string, number>
}

interface LibraryDecoder {
  text_decoder?: { decode(bytes: Uint8Array): string }
  /** Those of a sequence. */
  decoders?: LibraryDecoder[]
}

/**
 * Loads the tokenizer of a Hugging Face model folder: tokenizer.json (or tokenizer.model) and tokenizer_config.json, with
 * special_tokens_map.json, chat_template.jinja, chat_template.json, config.json and generation_config.json where present.
 *
 * @throws EngineError `missing_file` or `malformed_file`, naming the file.
 */
export function loadTokenizer(folder: string): ModelTokenizer {
  const { json, config } = readTokenizer(folder)
  const named = readNamedTokens(config, readJsonObject(folder, 'special_tokens_map.json'))
  const tokenizer = createTokenizer(join(folder, 'tokenizer.json'), json, config)

  const idOf = (token: string | undefined) => (token === undefined ? undefined : tokenizer.token_to_id(token))
  const eosTokenId = idOf(named.eos)
  const modelEosIds = readModelEosIds(folder)
  const eosTokenIds = [...new Set(eosTokenId === undefined ? modelEosIds : [eosTokenId, ...modelEosIds])]
  const cleanUp = config.clean_up_tokenization_spaces === true && modelType(json) !== 'BPE'
  const specialTokenIds = readSpecialTokenIds(tokenizer, named)
  const addedTokens = tokenizer.get_added_tokens_decoder()
  const kind = vocabularyKind(json)

  return {
    vocabSize: countIds(tokenizer),
    tokens: named,
    bosTokenId: idOf(named.bos),
    eosTokenId,
    padTokenId: idOf(named.pad) ?? eosTokenId ?? 0,
    specialTokenIds,
    eosTokenIds,
    addBosToken: config.add_bos_token === true,
    chatTemplate: readChatTemplate(folder, config),
    encode: (text, options = {}) => encode(tokenizer, text, options.addSpecialTokens ?? false),
    decode: (ids, options = {}) => {
      const hidden = options.skipSpecialTokens ? specialTokenIds : undefined
      const known = Array.from(ids).filter(
        (id) => tokenizer.id_to_token(id) !== undefined && !hidden?.has(id),
      )
      if (known.length === 0) return ''
      return tokenizer.decode(known, { clean_up_tokenization_spaces: cleanUp })
    },
    tokenId: (token) => tokenizer.token_to_id(token),
    tokenText: (id) => tokenizer.id_to_token(id),
    vocabularyKind: kind,
    tokenBytes: (id) => tokenBytes(tokenizer.id_to_token(id) ?? '', kind, addedTokens.has(id)),
  }
}

/**
 * A folder's tokenizer.json and tokenizer_config.json, made of tokenizer.model where there is no tokenizer.json.
 * @throws EngineError `missing_file` for a folder with neither, and what reading them throws.
 */
export function readTokenizer(folder: string): TokenizerJson {
  const config = readJsonObject(folder, 'tokenizer_config.json') ?? {}
  if (!existsSync(join(folder, 'tokenizer.json')) && existsSync(join(folder, 'tokenizer.model'))) {
    return convertSentencePiece(folder, config)
  }
  return { json: requireJsonObject(folder, 'tokenizer.json'), config }
}

function encode(tokenizer: Tokenizer, text: string, addSpecialTokens: boolean): Int32Array {
  const { ids } = tokenizer.encode(text, { add_special_tokens: addSpecialTokens })
  const bad = ids.findIndex((id) => !Number.isInteger(id))
  if (bad !== -1) {
    throw new EngineError(
      'invalid',
      'untokenizable_text',
      `The tokenizer has no token for a part of the text, and no unknown token: ${JSON.stringify(text.slice(0, 80))}`,
    )
  }
  return Int32Array.from(ids)
}

function createTokenizer(path: string, json: JsonObject, config: JsonObject): Tokenizer {
  const exact = { ...json, pre_tokenizer: exactPreTokenizer(json.pre_tokenizer ?? null) }
  try {
    const tokenizer = new LibraryTokenizer({ ...EMPTY_TOKENIZER, ...exact }, plainConfig(config))
    keepByteOrderMarks(tokenizer.decoder)
    keepWholeWords(tokenizer as unknown as WithSplitters, json)
    return tokenizer
  } catch (cause) {
    const reason = messageOf(cause)
    throw new EngineError(
      'invalid',
      'malformed_file',
      `${path} is not a tokenizer this engine reads: ${reason}`,
      {
        cause,
      },
    )
  }
}

/** Where the library turns bytes into text, it would drop U+FEFF at the beginning of them, taking it for no character. */
function keepByteOrderMarks(decoder: LibraryDecoder | null | undefined): void {
  if (decoder?.text_decoder) decoder.text_decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  for (const part of decoder?.decoders ?? []) keepByteOrderMarks(part)
}

/** What tokenizer.json may leave out, in the form that the library insists on. */
const EMPTY_TOKENIZER = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
}

/** The config with its special tokens as strings, which is the only form that the library reads. */
function plainConfig(config: JsonObject): JsonObject {
  const plain: JsonObject = {}
  for (const [key, value] of Object.entries(config)) {
    plain[key] = key.endsWith('_token') && isJsonObject(value) ? tokenContent(value) : value
  }
  const additional = config.additional_special_tokens
  if (additional !== undefined) {
    plain.additional_special_tokens = Array.isArray(additional)
      ? additional.map(tokenContent).filter((token) => token !== undefined)
      : []
  }
  return plain
}

function readSpecialTokenIds(tokenizer: Tokenizer, named: NamedTokens): Set<number> {
  const ids = new Set<number>()
  for (const [id, token] of tokenizer.get_added_tokens_decoder()) if (token.special) ids.add(id)
  for (const token of Object.values(named)) {
    const id = token === undefined ? undefined : tokenizer.token_to_id(token)
    if (id !== undefined) ids.add(id)
  }
  return ids
}

function countIds(tokenizer: Tokenizer): number {
  let count = 0
  for (const id of tokenizer.get_vocab(true).values()) count = Math.max(count, id + 1)
  return count
}

function modelType(json: JsonObject): unknown {
  return isJsonObject(json.model) ? json.model.type : undefined
}
