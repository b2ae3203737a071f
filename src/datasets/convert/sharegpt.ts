import type { Message } from '../../../engine/text/conversation.ts'
import type { ChatConversation } from '../../../engine/text/template-messages.ts'
import type { DatasetAttributes } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { nonEmpty, textField, toolsField } from './fields.ts'
import { checkPositions, contentOf, type Ending, messageList, roleFor, roleOf } from './messages.ts'
import { RowError } from './row-error.ts'

/**
 * ShareGPT: a list of messages whose roles the tags name. A system message at the start goes before the system column.
 *
 * @throws RowError when a role is unknown or stands at the wrong place, or the number of messages is odd.
 */
export function convertSharegpt(
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
  const messages = list.slice(offset).map((message, index): Message => {
    const word = roleOf(message, tags)
    const role = roleFor(word, tags)
    if (role === undefined) {
      throw new RowError(`message ${index + offset + 1} has the unknown role ${JSON.stringify(word)}`)
    }
    return { role, content: contentOf(message, tags, index + offset) }
  })
  checkPositions(messages, ending)
  return { kind: 'chat', system: nonEmpty(system), tools: toolsField(row, columns.tools), messages }
}
