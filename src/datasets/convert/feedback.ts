import type { Conversation, FeedbackConversation } from '../../../engine/text/conversation.ts'
import type { DatasetAttributes } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { typeName } from '../type-name.ts'
import { RowError } from './row-error.ts'

/** Rows that lend each other their answers: LLaMA-Factory's preprocessing_batch_size. */
const BLOCK = 1000

/** A conversation's last answer with the row's verdict on it. @throws RowError when the verdict is not true or false. */
export function convertFeedback(
  row: Row,
  { columns }: DatasetAttributes,
  conversation: Exclude<Conversation, { kind: 'text' }>,
): FeedbackConversation {
  const verdict = columns.kto_tag === null ? undefined : readVerdict(row[columns.kto_tag])
  if (typeof verdict !== 'boolean') {
    throw new RowError(`\`${columns.kto_tag}\` must be true or false, not ${typeName(verdict)}`)
  }
  const answer = conversation.messages.at(-1)!
  const messages = conversation.messages.slice(0, -1)
  return { ...conversation, kind: 'feedback', messages, answer, desirable: verdict, unrelated: answer }
}

/** A CSV file has its verdicts as text. */
function readVerdict(value: unknown): unknown {
  if (typeof value !== 'string' || !/^(true|false)$/i.test(value)) return value
  return value.toLowerCase() === 'true'
}

/**
 * Gives each row the answer of the row before it, and the first of every thousand that of the last of them, as
 * LLaMA-Factory does (data/processor/feedback.py): an answer that does not belong to the question.
 */
export function lendAnswers(rows: readonly FeedbackConversation[]): void {
  const answers = rows.map(({ answer }) => answer)
  for (const [index, row] of rows.entries()) {
    const start = index - (index % BLOCK)
    const last = Math.min(start + BLOCK, rows.length) - 1
    row.unrelated = answers[index === start ? last : index - 1]!
  }
}
