import { readFileSync } from 'node:fs'
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { EngineError, messageOf } from '../errors.ts'

/** Kinds of piece (sentencepiece_model.proto, ModelProto.SentencePiece.Type). */
export const PIECE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

/** TrainerSpec.ModelType. */
const BPE = 2
const MODEL_TYPES = ['', 'UNIGRAM', 'BPE', 'WORD', 'CHAR']

/** What a SentencePiece model says, as far as a tokenizer.json is made of it. */
export interface SentencePieceModel {
  tokens: string[]
  scores: number[]
  types: number[]
  byteFallback: boolean
  /** Ids of special pieces; -1 for none. */
  unknownId: number
  bosId: number
  eosId: number
  padId: number
  /** Text is taken to begin with a space. */
  addDummyPrefix: boolean
}

/** Numbers of the fields that are read, in messages that have others. */
const MODEL = { piece: 1, trainer: 2, normalizer: 3 }
const FIELD = { text: 1, score: 2, type: 3 }
const TRAINER = { modelType: 3, spaceAsSuffix: 24, byteFallback: 35, unknown: 40, bos: 41, eos: 42, pad: 43 }
const NORMALIZER = { charsmap: 2, dummyPrefix: 3, removeExtra: 4, escape: 5 }

/**
 * Reads tokenizer.model: a BPE model whose text is not normalized, as those of Llama, Mistral, Yi and Gemma.
 * (https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto)
 *
 * @throws EngineError `malformed_file`, or `tokenizer_unsupported` naming the field for unigram models and normalizers.
 */
export function readSentencePiece(path: string): SentencePieceModel {
  const model: SentencePieceModel = {
    tokens: [],
    scores: [],
    types: [],
    byteFallback: false,
    unknownId: 0,
    bosId: 1,
    eosId: 2,
    padId: -1,
    addDummyPrefix: true,
  }
  const refused: string[] = []
  // Where a field is absent, the format's own default holds.
  let modelType = 1
  let removesExtra = true
  try {
    readFields(readFileSync(path), {
      [MODEL.piece]: (reader) => readPiece(reader.bytes(), model),
      [MODEL.trainer]: (reader) =>
        readFields(reader.bytes(), {
          [TRAINER.modelType]: (field) => (modelType = field.int32()),
          [TRAINER.spaceAsSuffix]: (field) => field.bool() && refused.push('treat_whitespace_as_suffix'),
          [TRAINER.byteFallback]: (field) => (model.byteFallback = field.bool()),
          [TRAINER.unknown]: (field) => (model.unknownId = field.int32()),
          [TRAINER.bos]: (field) => (model.bosId = field.int32()),
          [TRAINER.eos]: (field) => (model.eosId = field.int32()),
          [TRAINER.pad]: (field) => (model.padId = field.int32()),
        }),
      [MODEL.normalizer]: (reader) =>
        readFields(reader.bytes(), {
          [NORMALIZER.charsmap]: (field) => field.bytes().length > 0 && refused.push('precompiled_charsmap'),
          [NORMALIZER.dummyPrefix]: (field) => (model.addDummyPrefix = field.bool()),
          [NORMALIZER.removeExtra]: (field) => (removesExtra = field.bool()),
          [NORMALIZER.escape]: (field) => field.bool() || refused.push('escape_whitespaces: false'),
        }),
    })
  } catch (cause) {
    throw malformed(path, messageOf(cause), cause)
  }
  if (model.tokens.length === 0 || model.unknownId < 0 || model.unknownId >= model.tokens.length) {
    throw malformed(path, 'it has no pieces, or none for what is unknown')
  }
  if (modelType !== BPE) refused.push(`model_type ${MODEL_TYPES[modelType] ?? modelType}`)
  if (removesExtra) refused.push('remove_extra_whitespaces')
  if (refused.length === 0) return model
  const message = `${path} has ${refused.join(' and ')}, which this engine does not read: BPE over text as it is written is. A tokenizer.json would be read instead.`
  throw new EngineError('unsupported', 'tokenizer_unsupported', message)
}

function readPiece(bytes: Uint8Array, { tokens, scores, types }: SentencePieceModel): void {
  let [text, score, type]: [string, number, number] = ['', 0, PIECE.normal]
  readFields(bytes, {
    [FIELD.text]: (field) => (text = field.string()),
    [FIELD.score]: (field) => (score = field.float()),
    [FIELD.type]: (field) => (type = field.int32()),
  })
  tokens.push(text)
  scores.push(score)
  types.push(type)
}

/** Hands each field of a message to its reader; the others are passed over. @throws Error for what is no message. */
function readFields(
  bytes: Uint8Array,
  readers: Readonly<Record<number, (reader: BinaryReader) => unknown>>,
): void {
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    const read = readers[field]
    if (read !== undefined) read(reader)
    else if (type === WireType.StartGroup || type === WireType.EndGroup) throw new Error('it has groups')
    else reader.skip(type)
  }
}

const malformed = (path: string, reason: string, cause?: unknown) =>
  new EngineError('invalid', 'malformed_file', `${path} is no SentencePiece model: ${reason}`, { cause })
