import type { Message } from '../../../engine/text/conversation.ts'
import type { ChatConversation } from '../../../engine/text/template-messages.ts'
import type { DatasetAttributes, Tags } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { nonEmpty, textField, toolsField, wellFormed } from './fields.ts'
import {
  checkPositions,
  contentOf,
  type Ending,
  messageList,
  type RawMessage,
  roleFor,
  roleOf,
} from './messages.ts'
import { RowError } from './row-error.ts'

/**
 * OpenAI's messages: as ShareGPT, but an assistant message with `tool_calls` becomes a function message holding the list
 * of calls as JSON, and tool results that follow each other become one observation, which keeps them apart. (LLaMA-Factory
 * also adds "detailed thinking off" to the system text, which concerns one model family; that is not done here.)
 *
 * @throws RowError as convertSharegpt does.
 */
export function convertOpenai(
  row: Row,
  attributes: DatasetAttributes,
  ending: Ending = 'answer',
): ChatConversation {
  const { columns, tags } = attributes
  const list = messageList(row, attributes)
  const [first] = list
  const hasSystem = first !== undefined && isSystem(roleOf(first, tags), tags)
  const system = hasSystem ? partsOf(first, tags, 0) : textField(row, columns.system)
  const offset = hasSystem ? 1 : 0
  const messages: Message[] = []
  for (const [index, raw] of list.slice(offset).entries()) {
    const message = readMessage(raw, tags, `message ${index + offset + 1}`, index + offset)
    const last = messages.at(-1)
    if (message.role === 'observation' && last?.role === 'observation') {
      last.more = [...(last.more ?? []), message.content]
    } else messages.push(message)
  }
  checkPositions(messages, ending)
  return { kind: 'chat', system: nonEmpty(system), tools: toolsField(row, columns.tools), messages }
}

/** One message; `what` is how an error calls it. @throws RowError as convertOpenai does. */
export function readMessage(raw: RawMessage, tags: Tags, what: string, index = 0): Message {
  const word = roleOf(raw, tags)
  const role = roleFor(word, tags)
  if (role === undefined) throw new RowError(`${what} has the unknown role ${JSON.stringify(word)}`)
  const unlearned = raw.weight === 0 ? { learned: false } : {}
  const calls = raw.tool_calls
  if ((role === 'assistant' || role === 'function') && Array.isArray(calls) && calls.length > 0) {
    const content = JSON.stringify(calls.map((call) => functionOf(call, what)))
    return { role: 'function', content, ...unlearned }
  }
  return { role, content: partsOf(raw, tags, index), ...unlearned }
}

/** OpenAI's newer name for the system message stands beside the one that the tags give. */
function isSystem(word: unknown, { system_tag: tag, user_tag: user }: Tags): boolean {
  return tag !== null && (word === tag || (word === 'developer' && user !== 'developer'))
}

/** A message's text, which may come in parts. @throws RowError for parts that are no text. */
function partsOf(raw: RawMessage, tags: Tags, index: number): string {
  const parts = tags.content_tag === null ? undefined : raw[tags.content_tag]
  if (!Array.isArray(parts)) return contentOf(raw, tags, index)
  return parts
    .map((part) => wellFormed(textOf(part), `message ${index + 1}: each part of its content`))
    .join('')
}

function textOf(part: unknown): unknown {
  return typeof part === 'object' && part !== null && 'text' in part ? part.text : part
}

function functionOf(call: unknown, what: string): unknown {
  if (typeof call === 'object' && call !== null && 'function' in call) return call.function
  throw new RowError(`${what}: each of its tool_calls must have a \`function\``)
}
