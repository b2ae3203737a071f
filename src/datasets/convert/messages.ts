import type { Message, Role } from '../../../engine/text/conversation.ts'
import type { DatasetAttributes, Tags } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { typeName } from '../type-name.ts'
import { wellFormed } from './fields.ts'
import { RowError } from './row-error.ts'

/** A message as it stands in a row. */
export type RawMessage = Record<string, unknown>

/** The row's message list. @throws RowError when it is missing or holds something else than objects. */
export function messageList(row: Row, { columns }: DatasetAttributes): RawMessage[] {
  const column = columns.messages
  const list = column === null ? undefined : row[column]
  if (!Array.isArray(list)) {
    throw new RowError(`\`${column}\` must be a list of messages, not ${typeName(list)}`)
  }
  const wrong = list.findIndex(
    (message) => typeof message !== 'object' || message === null || Array.isArray(message),
  )
  if (wrong !== -1) throw new RowError(`message ${wrong + 1} must be an object, not ${typeName(list[wrong])}`)
  return list as RawMessage[]
}

/** The message's role in the dataset's own words. */
export function roleOf(message: RawMessage, tags: Tags): unknown {
  return tags.role_tag === null ? undefined : message[tags.role_tag]
}

/** The message's text. @throws RowError when it has none. */
export function contentOf(message: RawMessage, tags: Tags, index: number): string {
  const content = tags.content_tag === null ? undefined : message[tags.content_tag]
  return wellFormed(content, `message ${index + 1}: \`${tags.content_tag}\``)
}

/** The role that a dataset's word stands for; undefined for a word that no tag names. */
export function roleFor(word: unknown, tags: Tags): Role | undefined {
  if (typeof word !== 'string') return undefined
  if (word === tags.user_tag) return 'user'
  if (word === tags.assistant_tag) return 'assistant'
  if (word === tags.observation_tag) return 'observation'
  if (word === tags.function_tag) return 'function'
  return undefined
}

/** What a row's message list ends with: the answer to learn, or the question that two answers of the row belong to. */
export type Ending = 'answer' | 'question'

/**
 * Questions (user, observation) must stand at odd places and answers (assistant, function) at even ones, and the list ends
 * as `ending` says. @throws RowError naming the first message that does not fit.
 */
export function checkPositions(messages: readonly Message[], ending: Ending): void {
  const wrong = messages.findIndex(({ role }, index) => isQuestion(role) !== (index % 2 === 0))
  if (wrong !== -1) {
    const expected = wrong % 2 === 0 ? 'a question (user, observation)' : 'an answer (assistant, function)'
    throw new RowError(
      `message ${wrong + 1} has the role ${messages[wrong]?.role} where ${expected} must stand`,
    )
  }
  if (messages.length === 0) throw new RowError('it has no messages')
  if (isQuestion(messages.at(-1)!.role) === (ending === 'question')) return
  throw new RowError(
    ending === 'answer'
      ? `it has ${messages.length} messages, so its last question has no answer`
      : `it has ${messages.length} messages, so no question is left for its chosen and rejected answers`,
  )
}

export function isQuestion(role: Role): boolean {
  return role === 'user' || role === 'observation'
}
