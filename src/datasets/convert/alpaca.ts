import type { Conversation, Message } from '../../../engine/text/conversation.ts'
import type { ChatConversation } from '../../../engine/text/template-messages.ts'
import type { DatasetAttributes } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { typeName } from '../type-name.ts'
import { nonEmpty, textField, toolsField } from './fields.ts'
import { RowError } from './row-error.ts'

/**
 * Alpaca: the question is prompt and query, those that are not empty, joined by a line break; history pairs come before
 * it. A row without a response is raw text.
 *
 * @throws RowError when there is neither prompt nor query, or a field has the wrong type.
 */
export function convertAlpaca(row: Row, attributes: DatasetAttributes): Conversation {
  const question = alpacaQuestion(row, attributes)
  const response = textField(row, attributes.columns.response)
  if (response === undefined) return { kind: 'text', text: question.messages.at(-1)!.content }
  return { ...question, messages: [...question.messages, { role: 'assistant', content: response }] }
}

/** The row up to its question. @throws RowError as convertAlpaca does. */
export function alpacaQuestion(row: Row, { columns }: DatasetAttributes): ChatConversation {
  const parts = [textField(row, columns.prompt), textField(row, columns.query)]
  if (parts.every((part) => part === undefined)) {
    const names = [columns.prompt, columns.query].filter((name) => name !== null)
    const wanted = names.map((name) => `\`${name}\``).join(' nor ')
    const lacks = names.length > 1 ? `neither ${wanted}` : `no ${wanted || 'column for its prompt'}`
    throw new RowError(`it has ${lacks}; its keys are ${Object.keys(row).join(', ') || 'none'}`)
  }
  const question = parts.filter((part) => part !== undefined && part !== '').join('\n')
  return {
    kind: 'chat',
    system: nonEmpty(textField(row, columns.system)),
    tools: toolsField(row, columns.tools),
    messages: [...readHistory(row, columns.history), { role: 'user', content: question }],
  }
}

function readHistory(row: Row, column: string | null): Message[] {
  const history = column === null ? undefined : row[column]
  if (history === undefined || history === null || history === '') return []
  if (!Array.isArray(history)) throw new RowError(`\`${column}\` must be a list, not ${typeName(history)}`)
  return history.flatMap((pair: unknown): Message[] => {
    const [question, answer, ...rest] = Array.isArray(pair) ? (pair as unknown[]) : []
    if (typeof question !== 'string' || typeof answer !== 'string' || rest.length > 0) {
      throw new RowError(`\`${column}\` must hold pairs of question and answer`)
    }
    return [
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    ]
  })
}
