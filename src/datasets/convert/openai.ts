import type { Message } from '../../../engine/text/conversation.ts'
import type { ChatConversation } from '../../../engine/text/template-messages.ts'
import type { DatasetAttributes, Tags } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { nonEmpty, textField, toolsField } from './fields.ts'
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
 * of calls as JSON, and tool results that follow each other become one observation, joined by a line break. (LLaMA-Factory
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
  const hasSystem = first !== undefined && tags.system_tag !== null && roleOf(first, tags) === tags.system_tag
  const system = hasSystem ? contentOf(first, tags, 0) : textField(row, columns.system)
  const offset = hasSystem ? 1 : 0
  const messages: Message[] = []
  for (const [index, raw] of list.slice(offset).entries()) {
    const message = readMessage(raw, tags, index + offset)
    const last = messages.at(-1)
    if (message.role === 'observation' && last?.role === 'observation') last.content += `\n${message.content}`
    else messages.push(message)
  }
  checkPositions(messages, ending)
  return { kind: 'chat', system: nonEmpty(system), tools: toolsField(row, columns.tools), messages }
}

function readMessage(raw: RawMessage, tags: Tags, index: number): Message {
  const word = roleOf(raw, tags)
  const role = roleFor(word, tags)
  if (role === undefined) {
    throw new RowError(`message ${index + 1} has the unknown role ${JSON.stringify(word)}`)
  }
  const calls = raw.tool_calls
  if ((role === 'assistant' || role === 'function') && Array.isArray(calls) && calls.length > 0) {
    return { role: 'function', content: JSON.stringify(calls.map((call) => functionOf(call, index))) }
  }
  const content = contentOf(raw, tags, index)
  return raw.weight === 0 ? { role, content, learned: false } : { role, content }
}

function functionOf(call: unknown, index: number): unknown {
  if (typeof call === 'object' && call !== null && 'function' in call) return call.function
  throw new RowError(`message ${index + 1}: each of its tool_calls must have a \`function\``)
}
