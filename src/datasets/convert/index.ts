import type { Conversation } from '../../../engine/text/conversation.ts'
import type { DatasetAttributes } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { convertAlpaca } from './alpaca.ts'
import { convertOpenai } from './openai.ts'
import { RowError } from './row-error.ts'
import { convertSharegpt } from './sharegpt.ts'

/** What stage a dataset is read for: pt learns raw text, sft learns answers. */
export type Stage = 'pt' | 'sft'

/**
 * One row as a conversation, as LLaMA-Factory converts it. For sft it ends with an answer; for pt it is the row's first
 * question as raw text, whatever follows it.
 *
 * @throws RowError with the reason when the row cannot be used.
 */
export function convertRow(row: Row, attributes: DatasetAttributes, stage: Stage): Conversation {
  const conversation = CONVERTERS[attributes.formatting](row, attributes)
  if (stage === 'pt') return toRawText(conversation)
  if (conversation.kind === 'text') {
    const column = attributes.columns.response
    throw new RowError(
      column === null ? 'the dataset has no response column' : `it has no response in \`${column}\``,
    )
  }
  return conversation
}

const CONVERTERS = { alpaca: convertAlpaca, sharegpt: convertSharegpt, openai: convertOpenai }

function toRawText(conversation: Conversation): Conversation {
  const text = conversation.kind === 'text' ? conversation.text : (conversation.messages[0]?.content ?? '')
  if (text.trim() === '') throw new RowError('its text is empty')
  return { kind: 'text', text }
}
