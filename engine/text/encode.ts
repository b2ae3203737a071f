import { EngineError } from '../errors.ts'
import type { ChatTemplate } from './chat-template.ts'
import { type Conversation, type EncodedExample, IGNORE_INDEX } from './conversation.ts'
import { encodePieces } from './pieces.ts'
import type { ModelTokenizer } from './tokenizer.ts'
import { splitTurns } from './turns.ts'

export interface EncodeOptions {
  template: ChatTemplate
  /** Most tokens of an example (LLaMA-Factory's cutoff_len). */
  cutoffLength: number
  /** Learn the prompts too. */
  trainOnPrompt?: boolean
  /** Learn the last answer only, and give the last turns priority when the example is cut. */
  maskHistory?: boolean
  /** Template variables, such as enable_thinking. */
  variables?: Readonly<Record<string, unknown>>
}

/**
 * Encodes one conversation with LLaMA-Factory's rules: every turn's prompt is ignored and its response, end-of-turn
 * included, is learned; prompts and responses are tokenized apart; each turn is cut to its share of what is left of the
 * cutoff, and turns after the cutoff are left out. Raw text is learned whole, with the end token, and cut at the end.
 *
 * Where a template marks no ends of answers (learnsEnd), the end token is learned after each: it stands behind the last one, and is
 * the label of the token that begins the next question.
 *
 * LLaMA-Factory's formats of reasoning models get empty thoughts by its rules (FormatTemplate); of other templates, what they
 * write themselves is what is learned.
 *
 * @throws EngineError `invalid` when the template refuses the conversation, or for label options that cannot be had.
 */
export function encodeConversation(
  conversation: Conversation,
  tokenizer: ModelTokenizer,
  options: EncodeOptions,
): EncodedExample {
  if (options.trainOnPrompt && options.maskHistory) {
    throw new EngineError(
      'invalid',
      'incompatible_options',
      '`mask_history` is incompatible with `train_on_prompt`.',
      { param: 'mask_history' },
    )
  }
  if (options.trainOnPrompt && options.template.learnsEnd) {
    throw new EngineError(
      'invalid',
      'incompatible_options',
      'Current template does not support `train_on_prompt`.',
      { param: 'train_on_prompt' },
    )
  }
  if (conversation.kind === 'text') {
    const ids = encodeText(conversation.text, tokenizer, {
      bos: tokenizer.addBosToken,
      end: options.template.textEnd,
    })
    const inputIds = ids.slice(0, options.cutoffLength)
    return { inputIds, labels: inputIds.slice() }
  }
  const { variables, maskHistory: onlyLast } = options
  const split = splitTurns(conversation, options.template, { variables, onlyLast })
  // A template that rewrites its history leaves fewer turns than there are answers: the last ones.
  const answers = conversation.messages.filter((_, index) => index % 2 === 1).slice(-split.length)
  const turns = split.map((turn, index) => ({
    prompt: encodePieces(turn.prompt, tokenizer),
    response: encodePieces(turn.response, tokenizer),
    learned: answers[index]?.learned !== false,
  }))
  return joinTurns(turns, options, endIds(options.template, tokenizer))
}

/** What stands behind an answer whose format has no end: the end token, or nothing. */
export function endIds(template: ChatTemplate, { eosTokenId }: ModelTokenizer): Int32Array {
  return Int32Array.from(template.learnsEnd && eosTokenId !== undefined ? [eosTokenId] : [])
}

/** A raw text's tokens with the end token, or `end`, after it, as stage pt learns them. */
export function encodeText(
  text: string,
  tokenizer: ModelTokenizer,
  options: { bos?: boolean; end?: string | undefined } = {},
): Int32Array {
  const bos = options.bos ? (tokenizer.tokens.bos ?? '') : ''
  return tokenizer.encode(bos + text + (options.end ?? tokenizer.tokens.eos ?? ''))
}

/**
 * How many tokens of a turn's prompt and response are kept within `budget` tokens (LLaMA-Factory's infer_seqlen): a
 * response shorter than half of the budget is kept whole, else a prompt shorter than half of it, else both shrink in
 * proportion. The heads are kept.
 */
export function inferTurnLengths(prompt: number, response: number, budget: number): [number, number] {
  let maxResponse: number
  if (response * 2 < budget) maxResponse = budget
  else if (prompt * 2 < budget) maxResponse = budget - prompt
  else maxResponse = Math.floor(budget * (response / (prompt + response)))
  const keptResponse = Math.min(maxResponse, response)
  return [Math.min(Math.max(budget - keptResponse, 0), prompt), keptResponse]
}

interface EncodedTurn {
  prompt: Int32Array
  response: Int32Array
  learned: boolean
}

function joinTurns(turns: readonly EncodedTurn[], options: EncodeOptions, end: Int32Array): EncodedExample {
  const { cutoffLength, trainOnPrompt = false, maskHistory = false } = options
  const ordered = maskHistory ? turns.toReversed() : turns
  const parts: { ids: Int32Array; learned: boolean }[][] = []
  let total = end.length
  for (const [index, turn] of ordered.entries()) {
    if (total >= cutoffLength) break
    const [promptLength, responseLength] = inferTurnLengths(
      turn.prompt.length,
      turn.response.length,
      cutoffLength - total,
    )
    total += promptLength + responseLength
    parts.push([
      { ids: turn.prompt.subarray(0, promptLength), learned: trainOnPrompt },
      {
        ids: turn.response.subarray(0, responseLength),
        learned: turn.learned && (!maskHistory || index === 0),
      },
    ])
  }
  return layOut((maskHistory ? parts.toReversed() : parts).flat(), end)
}

/** Questions and answers in turn, with `end` behind the last; where an answer is learned, so is its end, on what follows. */
function layOut(parts: readonly { ids: Int32Array; learned: boolean }[], end: Int32Array): EncodedExample {
  const whole = [...parts, { ids: end, learned: false }]
  const inputIds = new Int32Array(whole.reduce((sum, { ids }) => sum + ids.length, 0))
  const labels = new Int32Array(inputIds.length).fill(IGNORE_INDEX)
  let offset = 0
  let endsAnswer = false
  for (const [index, { ids, learned }] of whole.entries()) {
    inputIds.set(ids, offset)
    if (learned) labels.set(ids, offset)
    else if (endsAnswer && ids.length > 0) labels.set(end, offset)
    endsAnswer = index % 2 === 1 && learned
    offset += ids.length
  }
  return { inputIds, labels }
}
