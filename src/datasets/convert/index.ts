import type { Conversation, TrainConversation } from '../../../engine/text/conversation.ts'
import type { TrainConfig } from '../../../engine/train/config.ts'
import type { DatasetAttributes } from '../entry.ts'
import type { Row } from '../readers/index.ts'
import { convertAlpaca } from './alpaca.ts'
import { convertFeedback } from './feedback.ts'
import { convertOpenai } from './openai.ts'
import { convertPair } from './pair.ts'
import { RowError } from './row-error.ts'
import { convertSharegpt } from './sharegpt.ts'

/** What stage a dataset is read for: pt learns raw text, sft answers, rm and dpo pairs of answers, kto verdicts on answers. */
export type Stage = TrainConfig['stage']

/**
 * One row as LLaMA-Factory converts it: for pt its first question as raw text, whatever follows it; for sft a conversation
 * that ends with an answer; for rm and dpo a question with two answers; for kto an answer with its verdict.
 *
 * @throws RowError with the reason when the row cannot be used.
 */
export function convertRow(row: Row, attributes: DatasetAttributes, stage: Stage): TrainConversation {
  if (stage === 'rm' || stage === 'dpo') return convertPair(row, attributes)
  const conversation = CONVERTERS[attributes.formatting](row, attributes)
  if (stage === 'pt') return toRawText(conversation)
  if (conversation.kind === 'text') {
    const column = attributes.columns.response
    throw new RowError(
      column === null ? 'the dataset has no response column' : `it has no response in \`${column}\``,
    )
  }
  return stage === 'kto' ? convertFeedback(row, attributes, conversation) : conversation
}

/** Why a dataset is not for a stage, by its entry; undefined where it is. Raw text can be had from any but pairs. */
export function stageMismatch({ ranking, columns }: DatasetAttributes, stage: Stage): string | undefined {
  const wantsPairs = stage === 'rm' || stage === 'dpo'
  if (wantsPairs && !ranking)
    return `stage ${stage} needs pairs of answers, but the entry has no "ranking": true`
  if (!wantsPairs && ranking)
    return `the entry has "ranking": true, and such pairs are for the stages rm and dpo`
  if (stage === 'kto' && columns.kto_tag === null) {
    return 'stage kto needs verdicts, but the entry names no column `kto_tag`'
  }
  if (stage === 'sft' && columns.kto_tag !== null) {
    return 'the entry names a column `kto_tag`, and such verdicts, good and bad answers alike, are for the stage kto'
  }
  return undefined
}

const CONVERTERS = { alpaca: convertAlpaca, sharegpt: convertSharegpt, openai: convertOpenai }

function toRawText(conversation: Conversation): Conversation {
  const text = conversation.kind === 'text' ? conversation.text : (conversation.messages[0]?.content ?? '')
  if (text.trim() === '') throw new RowError('its text is empty')
  return { kind: 'text', text }
}
