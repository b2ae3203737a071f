import { EngineError } from '../errors.ts'
import type { ChatTemplate, TemplateMessage } from './chat-template.ts'
import type { Message } from './conversation.ts'
import type { TurnOptions } from './format-template.ts'
import { type Piece, pieceText } from './pieces.ts'
import { type ChatConversation, toTemplateConversation } from './template-messages.ts'
import type { ModelTokenizer } from './tokenizer.ts'

/** One exchange: what the model is given and what it shall answer, end-of-turn included. */
export interface Turn {
  prompt: Piece[]
  response: Piece[]
}

interface TextTurn {
  prompt: string
  response: string
}

/** Stands for an answer when looking for what a template writes after one. Printable, so that no template strips it. */
const MARKER = 'ANSWER-9f2c7e51'

/**
 * A conversation as its turns: LLaMA-Factory's rules for its formats, else cut out of what the template renders.
 * @throws EngineError `malformed_conversation` when messages do not alternate, `chat_template_failed` from the template,
 * `malformed_tools` and `malformed_tool_call` for what is no JSON.
 */
export function splitTurns(
  conversation: ChatConversation,
  template: ChatTemplate,
  options: TurnOptions = {},
): Turn[] {
  checkAlternation(conversation)
  if (template.format !== undefined) return template.format.turns(conversation, options)
  return cutTurns(conversation, template, options.variables).map(({ prompt, response }) => ({
    prompt: [prompt],
    response: [response],
  }))
}

/** The last answer, and all before it as its question. @throws EngineError as splitTurns does. */
export function splitLastTurn(
  conversation: ChatConversation,
  template: ChatTemplate,
  options: TurnOptions = {},
): Turn {
  if (template.format !== undefined) {
    checkAlternation(conversation)
    return template.format.lastTurn(conversation, options)
  }
  const turns = splitTurns(conversation, template, options)
  const last = turns.at(-1)!
  const before = turns.slice(0, -1).flatMap(({ prompt, response }) => [...prompt, ...response])
  return { prompt: [...before, ...last.prompt], response: last.response }
}

/**
 * Cuts a rendered conversation into its turns, so that joining prompts and responses gives the text that is trained on.
 *
 * The prompt of turn k is what the render with a generation prompt adds after turn k - 1; the response is what the render
 * with the answer adds to that. This needs each render to begin with the one before it. Where a template breaks that:
 * - a response that does not continue its prompt (trimmed content, a generation prompt that opens a thought) is the
 *   answer as written plus what the template puts after an answer;
 * - a history that differs from the turn as it was learned (thoughts are dropped from earlier turns) is skipped up to
 *   where it agrees again with the end of that answer, so every turn is learned in its own full form;
 * - a history that agrees nowhere (the system text moves to the last question) leaves one turn: the last, with the whole
 *   history as its prompt.
 */
function cutTurns(
  conversation: ChatConversation,
  template: ChatTemplate,
  variables?: Readonly<Record<string, unknown>>,
): TextTurn[] {
  const { system, turns, tools } = toTemplateConversation(conversation, template)
  const render = (messages: readonly TemplateMessage[][], addGenerationPrompt: boolean) =>
    template.render([...system, ...messages.flat()], { addGenerationPrompt, tools, variables })

  const result: TextTurn[] = []
  let previous: Rendered = { question: '', prompt: '', response: '' }
  for (let end = 2; end <= turns.length; end += 2) {
    const context = render(turns.slice(0, end - 1), true)
    const response = findResponse(conversation, turns.slice(0, end), context, render)
    const start = end === 2 ? 0 : findHistoryEnd(context, previous)
    if (start === undefined) return [lastTurn(conversation, turns, render)]
    result.push({ prompt: context.slice(start), response })
    previous = { question: render(turns.slice(0, end - 1), false), prompt: context, response }
  }
  return result
}

/**
 * Whether an answer in this template ends with a token that ends a generation. Where it does not, what is trained never
 * learns to stop.
 *
 * @returns a warning that says so, or undefined when all is well.
 */
export function checkEndOfTurn(template: ChatTemplate, tokenizer: ModelTokenizer): string | undefined {
  if (template.learnsEnd && tokenizer.eosTokenId !== undefined) return undefined
  const messages: Message[] = [
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Hello' },
  ]
  const response = pieceText(splitTurns({ kind: 'chat', messages }, template).at(-1)?.response ?? [])
  const known = [...tokenizer.eosTokenIds, ...template.endTokenIds]
  if (tokenizer.encode(response).some((id) => known.includes(id))) return undefined
  const ends = tokenizer.eosTokenIds.map((id) => JSON.stringify(tokenizer.decode([id]))).join(', ')
  return (
    `An answer ends with ${JSON.stringify(response.slice(-24))} in this template, which holds none of the model's end ` +
    `tokens (${ends || 'it has none'}): the trained model may not stop.`
  )
}

type Render = (messages: readonly TemplateMessage[][], addGenerationPrompt: boolean) => string

function lastTurn(
  conversation: ChatConversation,
  turns: readonly TemplateMessage[][],
  render: Render,
): TextTurn {
  const prompt = render(turns.slice(0, -1), true)
  return { prompt, response: findResponse(conversation, turns, prompt, render) }
}

/** What the last of `turns`, an answer, adds to `context`, the render that asks for it. */
function findResponse(
  conversation: ChatConversation,
  turns: readonly TemplateMessage[][],
  context: string,
  render: Render,
): string {
  const full = render(turns, false)
  if (full.startsWith(context)) return full.slice(context.length)
  const marked = render([...turns.slice(0, -1), [{ role: 'assistant', content: MARKER }]], false)
  const at = marked.lastIndexOf(MARKER)
  const endOfTurn = at === -1 ? '' : marked.slice(at + MARKER.length)
  return (conversation.messages[turns.length - 1]?.content ?? '') + endOfTurn
}

/** A turn as it was learned: the render up to its question, the same with the generation prompt, and the answer. */
interface Rendered {
  question: string
  prompt: string
  response: string
}

/**
 * Where in `context` the turn before ends; undefined when the history does not agree with it. The history has to show that
 * turn's question unchanged; its generation prompt and the head of its answer may be missing.
 */
function findHistoryEnd(context: string, { question, prompt, response }: Rendered): number | undefined {
  if (context.startsWith(prompt + response)) return prompt.length + response.length
  if (!context.startsWith(question)) return undefined
  const answerStart = commonLength(context, prompt)
  for (let skip = 0; skip < response.length; skip++) {
    const kept = response.slice(skip)
    if (kept.trim() !== '' && context.startsWith(kept, answerStart)) return answerStart + kept.length
  }
  return undefined
}

function commonLength(a: string, b: string): number {
  let length = 0
  while (length < a.length && a[length] === b[length]) length++
  return length
}

/** Questions (user, observation) stand at even places, answers (assistant, function) at odd ones, and an answer ends it. */
function checkAlternation({ messages }: ChatConversation): void {
  const wrong = messages.findIndex(({ role }, index) =>
    index % 2 === 0 ? role !== 'user' && role !== 'observation' : role !== 'assistant' && role !== 'function',
  )
  if (wrong === -1 && messages.length > 0 && messages.length % 2 === 0) return
  const reason =
    wrong === -1
      ? `it has ${messages.length} messages, which is no whole number of question and answer pairs`
      : `message ${wrong + 1} has the role ${messages[wrong]?.role}`
  throw new EngineError(
    'invalid',
    'malformed_conversation',
    `A conversation must alternate questions (user, observation) and answers (assistant, function): ${reason}.`,
    { param: 'messages' },
  )
}
