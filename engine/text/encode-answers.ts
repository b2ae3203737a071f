import {
  type EncodedExample,
  type FeedbackConversation,
  type FeedbackExample,
  IGNORE_INDEX,
  type Message,
  type PairConversation,
  type PairExample,
  type TrainConversation,
  type TrainExample,
} from './conversation.ts'
import { type EncodeOptions, encodeConversation, endIds, inferTurnLengths } from './encode.ts'
import { encodePieces, joinIds } from './pieces.ts'
import type { ModelTokenizer } from './tokenizer.ts'
import { splitLastTurn } from './turns.ts'

/**
 * Encodes a row as its stage learns it: a conversation (encodeConversation), or a question with one or two answers, of
 * which only the answers count. The example remembers which row it came from.
 *
 * @throws EngineError as encodeConversation does.
 */
export function encodeRow(
  conversation: TrainConversation,
  tokenizer: ModelTokenizer,
  options: EncodeOptions,
): TrainExample {
  const places = conversation.place === undefined ? undefined : [conversation.place]
  if (conversation.kind === 'pair') return encodePair(conversation, tokenizer, options, places)
  if (conversation.kind === 'feedback') return encodeFeedback(conversation, tokenizer, options, places)
  return { ...encodeConversation(conversation, tokenizer, options), places }
}

/**
 * Both answers behind the same tokens of the question. Where they are cut, the longer answer decides for both, by
 * LLaMA-Factory's rule (data/processor/pairwise.py).
 */
function encodePair(
  { chosen, rejected, ...question }: PairConversation,
  tokenizer: ModelTokenizer,
  options: EncodeOptions,
  places: readonly string[] | undefined,
): PairExample {
  const good = encodeAnswer(question, chosen, tokenizer, options)
  const bad = encodeAnswer(question, rejected, tokenizer, options)
  const longest = Math.max(good.answer.length, bad.answer.length)
  const lengths = inferTurnLengths(good.prompt.length, longest, options.cutoffLength)
  return {
    chosen: { ...cut(good.prompt, good.answer, lengths), places },
    rejected: { ...cut(good.prompt, bad.answer, lengths), places },
  }
}

/** The row's own answer, and the one that belongs to another question, each cut by itself. */
function encodeFeedback(
  { answer, unrelated, desirable, ...question }: FeedbackConversation,
  tokenizer: ModelTokenizer,
  options: EncodeOptions,
  places: readonly string[] | undefined,
): FeedbackExample {
  const encode = (message: Message): EncodedExample => {
    const encoded = encodeAnswer(question, message, tokenizer, options)
    const lengths = inferTurnLengths(encoded.prompt.length, encoded.answer.length, options.cutoffLength)
    return { ...cut(encoded.prompt, encoded.answer, lengths), places }
  }
  return { answer: encode(answer), unrelated: encode(unrelated), desirable }
}

type Question = Pick<PairConversation, 'system' | 'tools' | 'messages'>

/** Everything before the answer, and the answer with its end of turn; each turn's parts are tokenized apart. */
function encodeAnswer(
  { system, tools, messages }: Question,
  answer: Message,
  tokenizer: ModelTokenizer,
  { template, variables }: EncodeOptions,
): { prompt: Int32Array; answer: Int32Array } {
  const whole = [...messages, answer]
  const conversation = { kind: 'chat' as const, system, tools, messages: whole }
  const { prompt, response } = splitLastTurn(conversation, template, { variables })
  return {
    prompt: encodePieces(prompt, tokenizer),
    answer: joinIds([encodePieces(response, tokenizer), endIds(template, tokenizer)]),
  }
}

function cut(
  prompt: Int32Array,
  answer: Int32Array,
  [promptLength, answerLength]: readonly [number, number],
): EncodedExample {
  const keptPrompt = prompt.subarray(0, promptLength)
  const keptAnswer = answer.subarray(0, answerLength)
  const ignored = new Int32Array(keptPrompt.length).fill(IGNORE_INDEX)
  return { inputIds: joinIds([keptPrompt, keptAnswer]), labels: joinIds([ignored, keptAnswer]) }
}
