import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../../engine/errors.ts'
import { type ChatTemplate, resolveChatTemplate } from '../../engine/text/chat-template.ts'
import {
  type Conversation,
  type EncodedExample,
  IGNORE_INDEX,
  type TrainConversation,
} from '../../engine/text/conversation.ts'
import { encodeConversation } from '../../engine/text/encode.ts'
import { encodePieces, pieceText } from '../../engine/text/pieces.ts'
import { loadTokenizer, type ModelTokenizer } from '../../engine/text/tokenizer.ts'
import { splitLastTurn } from '../../engine/text/turns.ts'
import type { EvaluationRequest } from '../../routes/schemas/evaluations.ts'
import type { EvaluatedModel } from './task.ts'

/** A conversation up to its last answer, and that answer. */
export interface Question {
  /** With the template's special tokens. */
  prompt: string
  promptTokens: Int32Array
  label: string
}

/** A dataset as one model reads it. */
export interface EvaluationData {
  examples: EncodedExample[]
  /** Empty for raw text. */
  questions: Question[]
}

/** Conversations that are encoded before messages and timers get their turn. */
const CONVERSATIONS_A_TURN = 64

/**
 * Encodes a dataset for one model: with its tokenizer, and with the template it was trained with.
 *
 * @throws EngineError `no_valid_samples` when no token is left to predict, and what tokenizer and template throw.
 */
export async function encodeData(
  model: EvaluatedModel,
  conversations: readonly TrainConversation[],
  { template: templateName, cutoff_len: cutoffLength }: EvaluationRequest,
  signal: AbortSignal,
): Promise<EvaluationData> {
  const tokenizer = loadTokenizer(model.baseFolder)
  const template = resolveChatTemplate(tokenizer, templateName ?? model.template)
  const data: EvaluationData = { examples: [], questions: [] }
  for (const [index, conversation] of conversations.entries()) {
    if (conversation.kind !== 'chat' && conversation.kind !== 'text') continue
    if (index % CONVERSATIONS_A_TURN === 0) {
      await setImmediate()
      signal.throwIfAborted()
    }
    const example = encodeConversation(conversation, tokenizer, { template, cutoffLength })
    if (!example.labels.some((label, place) => place > 0 && label !== IGNORE_INDEX)) continue
    data.examples.push(example)
    if (conversation.kind === 'chat') data.questions.push(toQuestion(conversation, tokenizer, template))
  }
  if (data.examples.length > 0) return data
  throw new EngineError(
    'invalid',
    'no_valid_samples',
    'No row has a token to predict within cutoff_len; raise it or check the dataset.',
    { param: 'cutoff_len' },
  )
}

function toQuestion(
  conversation: Extract<Conversation, { kind: 'chat' }>,
  tokenizer: ModelTokenizer,
  template: ChatTemplate,
): Question {
  const { prompt } = splitLastTurn(conversation, template)
  return {
    prompt: pieceText(prompt),
    promptTokens: encodePieces(prompt, tokenizer),
    label: conversation.messages.at(-1)!.content,
  }
}
