import { EngineError } from '../../engine/errors.ts'
import { type ChatTemplate, resolveChatTemplate } from '../../engine/text/chat-template.ts'
import {
  type EncodedExample,
  IGNORE_INDEX,
  sequencesOf,
  type TrainConversation,
} from '../../engine/text/conversation.ts'
import { encodeRow } from '../../engine/text/encode-answers.ts'
import { pieceText } from '../../engine/text/pieces.ts'
import type { TemplateChoice } from '../../engine/text/template-choice.ts'
import type { ModelTokenizer } from '../../engine/text/tokenizer.ts'
import { splitLastTurn, splitTurns } from '../../engine/text/turns.ts'
import { convertRow, type Stage, stageMismatch } from './convert/index.ts'
import { RowError } from './convert/row-error.ts'
import { type Row, readRows } from './readers/index.ts'
import type { DatasetSource } from './registry.ts'

export interface PreviewOptions {
  /** First row to show, from 0, and how many. */
  offset: number
  limit: number
  stage: Stage
  /** Without it only rows and conversations are shown. */
  tokenizer?: ModelTokenizer
  /** The config's `template`. */
  template?: string | TemplateChoice | null
  cutoffLength: number
  trainOnPrompt?: boolean
  maskHistory?: boolean
}

export interface PreviewToken {
  id: number
  /** The token alone as text; half a character shows as U+FFFD. */
  text: string
  /** Whether the loss counts it. */
  trained: boolean
}

export interface PreviewRow {
  /** From 0, over all files of the dataset. */
  index: number
  place: string
  raw: Row
  conversation: TrainConversation | null
  /** What is learned, as text, before it is cut to the cutoff. */
  text: string | null
  tokens: PreviewToken[] | null
  /** Of a pair, which `tokens` shows with its chosen answer, the same with the rejected one. */
  rejectedTokens: PreviewToken[] | null
  trainedTokens: number | null
  /** Whether the cutoff left tokens out. */
  truncated: boolean
  /** Why the row cannot be used. */
  error: string | null
}

/** Rows of a dataset as they stand, as conversations, as rendered text and as tokens with what is trained on. */
export async function previewRows(source: DatasetSource, options: PreviewOptions): Promise<PreviewRow[]> {
  const template = options.tokenizer && resolveChatTemplate(options.tokenizer, options.template)
  const rows: PreviewRow[] = []
  let index = -1
  for await (const { row, place } of readRows(source.files)) {
    index++
    if (index < options.offset) continue
    if (rows.length >= options.limit) break
    rows.push(previewRow({ index, place, raw: row }, source, options, template))
  }
  return rows
}

function previewRow(
  located: Pick<PreviewRow, 'index' | 'place' | 'raw'>,
  source: DatasetSource,
  options: PreviewOptions,
  template: ChatTemplate | undefined,
): PreviewRow {
  const result: PreviewRow = {
    ...located,
    conversation: null,
    text: null,
    tokens: null,
    rejectedTokens: null,
    trainedTokens: null,
    truncated: false,
    error: null,
  }
  try {
    const mismatch = stageMismatch(source.attributes, options.stage)
    if (mismatch) throw new RowError(mismatch)
    result.conversation = convertRow(located.raw, source.attributes, options.stage)
    if (options.tokenizer && template) {
      Object.assign(result, encodePreview(result.conversation, options.tokenizer, template, options))
    }
  } catch (error) {
    if (!(error instanceof RowError || error instanceof EngineError)) throw error
    result.error = error.message
  }
  return result
}

function encodePreview(
  conversation: TrainConversation,
  tokenizer: ModelTokenizer,
  template: ChatTemplate,
  options: PreviewOptions,
): Pick<PreviewRow, 'text' | 'tokens' | 'rejectedTokens' | 'trainedTokens' | 'truncated'> {
  const { cutoffLength, trainOnPrompt, maskHistory } = options
  const encode = (cutoff: number) =>
    encodeRow(conversation, tokenizer, {
      template,
      cutoffLength: cutoff,
      trainOnPrompt,
      maskHistory,
    })
  const example = encode(cutoffLength)
  const sequences = sequencesOf(example)
  const whole = sequencesOf(encode(Number.MAX_SAFE_INTEGER))
  const isPair = conversation.kind === 'pair'
  const shown = (isPair ? sequences : sequences.slice(0, 1)).map((one) => describeTokens(one, tokenizer))
  const [tokens = [], rejectedTokens = null] = shown
  return {
    text: textOf(conversation, template),
    tokens,
    rejectedTokens,
    trainedTokens: shown.flat().filter(({ trained }) => trained).length,
    truncated: whole.some(({ inputIds }, index) => inputIds.length > sequences[index]!.inputIds.length),
  }
}

/** What is learned as text; of a pair, with the chosen answer. */
function textOf(conversation: TrainConversation, template: ChatTemplate): string {
  if (conversation.kind === 'text') return conversation.text
  const { system, tools, messages } = conversation
  const answers =
    conversation.kind === 'pair'
      ? [conversation.chosen]
      : conversation.kind === 'feedback'
        ? [conversation.answer]
        : []
  const whole = { kind: 'chat' as const, system, tools, messages: [...messages, ...answers] }
  const turns = answers.length > 0 ? [splitLastTurn(whole, template)] : splitTurns(whole, template)
  return turns.map(({ prompt, response }) => pieceText([...prompt, ...response])).join('')
}

function describeTokens(example: EncodedExample, tokenizer: ModelTokenizer): PreviewToken[] {
  return Array.from(example.inputIds, (id, index) => ({
    id,
    text: tokenizer.decode([id]),
    // The first token has nothing before it that could predict it.
    trained: index > 0 && example.labels[index] !== IGNORE_INDEX,
  }))
}
