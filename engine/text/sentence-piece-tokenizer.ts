import { join } from 'node:path'
import { surroundedBy } from './post-processor.ts'
import { PIECE, readSentencePiece, type SentencePieceModel } from './sentence-piece.ts'
import { sentencePieceParts } from './sentence-piece-bpe.ts'
import {
  isJsonObject,
  type JsonObject,
  readJsonObject,
  readNamedTokens,
  tokenContent,
} from './tokenizer-files.ts'

interface AddedToken {
  id: number
  content: string
  single_word: boolean
  lstrip: boolean
  rstrip: boolean
  normalized: boolean
  special: boolean
}

/** tokenizer.json and tokenizer_config.json of a folder that has neither, or no more than the latter. */
export interface TokenizerJson {
  json: JsonObject
  config: JsonObject
}

/**
 * What tokenizer.json would be of a folder with tokenizer.model alone, as transformers converts it (LlamaConverter): the
 * model's own pieces, control and user-defined ones as added tokens, and those that tokenizer_config.json and added_tokens.json add.
 * `config` names the model's own special tokens where tokenizer_config.json says nothing; text begins with bos unless it says otherwise.
 *
 * @throws EngineError as readSentencePiece does.
 */
export function convertSentencePiece(folder: string, config: JsonObject): TokenizerJson {
  const model = readSentencePiece(join(folder, 'tokenizer.model'))
  const named = namedTokens(folder, config, model)
  const whole: JsonObject = { add_bos_token: true, add_eos_token: false, ...named, ...config }
  const added = addedTokens(folder, whole, model)
  const idOf = (token: unknown) => {
    const content = tokenContent(token)
    const id = added.find((one) => one.content === content)?.id ?? model.tokens.indexOf(content ?? '')
    return content === undefined || id < 0 ? undefined : { content, id }
  }
  const first = whole.add_bos_token === true ? idOf(whole.bos_token) : undefined
  const last = whole.add_eos_token === true ? idOf(whole.eos_token) : undefined
  const prefix = model.addDummyPrefix ? (config.legacy === false ? 'once' : 'always') : 'none'
  return {
    config: whole,
    json: {
      version: '1.0',
      added_tokens: added,
      post_processor: surroundedBy(first, last),
      ...sentencePieceParts({ ...model, unknown: model.unknownId, prefix }),
    },
  }
}

/** bos, eos, pad and unk by the model's own ids, where the folder's files name none. */
function namedTokens(folder: string, config: JsonObject, { tokens, ...ids }: SentencePieceModel): JsonObject {
  const given = readNamedTokens(config, readJsonObject(folder, 'special_tokens_map.json'))
  const own = {
    bos: tokens[ids.bosId],
    eos: tokens[ids.eosId],
    pad: tokens[ids.padId],
    unk: tokens[ids.unknownId],
  }
  const entries = Object.entries({ ...own, ...withoutUndefined(given) })
  return Object.fromEntries(
    entries.flatMap(([name, token]) => (token === undefined ? [] : [[`${name}_token`, token]])),
  )
}

function withoutUndefined<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as Partial<T>
}

/** Tokens that are found in text as a whole, by id; what a file says of one holds before what the model says. */
function addedTokens(
  folder: string,
  config: JsonObject,
  { tokens, types }: SentencePieceModel,
): AddedToken[] {
  const found = new Map<number, AddedToken>()
  const special = ['bos_token', 'eos_token', 'unk_token', 'pad_token'].map((name) =>
    tokenContent(config[name]),
  )
  const add = (id: number, content: string, said: JsonObject = {}) =>
    found.set(id, {
      id,
      content,
      single_word: said.single_word === true,
      lstrip: said.lstrip === true,
      rstrip: said.rstrip === true,
      normalized: said.normalized === true,
      special: said.special === undefined ? special.includes(content) : said.special === true,
    })
  for (const [id, token] of tokens.entries()) {
    if (types[id] === PIECE.control || types[id] === PIECE.unknown) add(id, token, { special: true })
    // A piece with spaces is one of the text that ▁ stands in, which merges find.
    else if (types[id] === PIECE.userDefined && !token.includes('▁')) add(id, token, { special: false })
  }
  for (const [content, id] of Object.entries(readJsonObject(folder, 'added_tokens.json') ?? {})) {
    if (typeof id === 'number') add(id, content)
  }
  const decoder = isJsonObject(config.added_tokens_decoder) ? config.added_tokens_decoder : {}
  for (const [id, said] of Object.entries(decoder)) {
    const content = tokenContent(said)
    if (content !== undefined && isJsonObject(said)) add(Number(id), content, said)
  }
  return [...found.values()].sort((a, b) => a.id - b.id)
}
