import type { Message, PairConversation } from '../../../engine/text/conversation.ts'
import type { DatasetAttributes } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { typeName } from '../type-name.ts'
import { alpacaQuestion } from './alpaca.ts'
import { textField } from './fields.ts'
import { contentOf, isQuestion, type RawMessage, roleFor, roleOf } from './messages.ts'
import { convertOpenai, readMessage } from './openai.ts'
import { RowError } from './row-error.ts'
import { convertSharegpt } from './sharegpt.ts'

/**
 * A row with a chosen and a rejected answer to its question: texts in an alpaca set, messages in the others.
 *
 * @throws RowError when the question or one of the answers is missing or has the wrong form.
 */
export function convertPair(row: Row, attributes: DatasetAttributes): PairConversation {
  const { formatting, columns } = attributes
  const question =
    formatting === 'alpaca'
      ? alpacaQuestion(row, attributes)
      : formatting === 'sharegpt'
        ? convertSharegpt(row, attributes, 'question')
        : convertOpenai(row, attributes, 'question')
  const answer = formatting === 'alpaca' ? textAnswer : messageAnswer
  return {
    ...question,
    kind: 'pair',
    chosen: answer(row, columns.chosen, attributes),
    rejected: answer(row, columns.rejected, attributes),
  }
}

function textAnswer(row: Row, column: string | null): Message {
  const content = textField(row, column)
  if (content === undefined) throw new RowError(`it has no \`${column}\``)
  return { role: 'assistant', content }
}

function messageAnswer(row: Row, column: string | null, { tags, formatting }: DatasetAttributes): Message {
  const raw = column === null ? undefined : row[column]
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) {
    throw new RowError(`\`${column}\` must be a message, not ${typeName(raw)}`)
  }
  const message = raw as RawMessage
  const role = roleFor(roleOf(message, tags), tags)
  if (role === undefined || isQuestion(role)) {
    throw new RowError(
      `\`${column}\` has the role ${JSON.stringify(roleOf(message, tags))}, which does not answer`,
    )
  }
  if (formatting === 'openai') return readMessage(message, tags, `\`${column}\``)
  return { role, content: contentOf(message, tags, 0) }
}
