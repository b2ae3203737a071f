import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { EngineError } from '../errors.ts'
import { type ChatTemplate, resolveChatTemplate } from '../text/chat-template.ts'
import type { TemplateChoice } from '../text/template-choice.ts'
import { loadTokenizer, type ModelTokenizer } from '../text/tokenizer.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { changeJson } from '../weights/json-edit.ts'
import { jinjaForm } from './jinja-form.ts'
import { readTurnForm, type TurnForm } from './turn-form.ts'

/** What a model's files say of its conversations. */
export interface CarriedTemplate {
  /** Jinja; undefined where the model has none. */
  readonly source: string | undefined
  /** Every id that ends an answer. */
  readonly eosTokenIds: readonly number[]
}

/**
 * The template that belongs into the files of a model that was trained with a chosen one. Where the model's own writes
 * conversations in the same form it stays, as it may show tools; else it is the chosen form in Jinja. With it go the tokens that
 * end its answers.
 *
 * @param choice as a run's row has it; where that is the model's own template, or a model has none, files stay as they are.
 */
export function carriedTemplate(
  tokenizer: ModelTokenizer,
  choice: string | null | TemplateChoice | undefined,
): CarriedTemplate {
  const { chatTemplate: own, eosTokenIds } = tokenizer
  if (choice === undefined || choice === null) return { source: own, eosTokenIds }
  const chosen = resolveChatTemplate(tokenizer, choice)
  if (chosen.origin === 'tokenizer' || chosen.origin === 'fallback') return { source: own, eosTokenIds }
  const ends = [...new Set([...eosTokenIds, ...chosen.endTokenIds])]
  const form = formOf(chosen)
  const stays =
    !form || (own !== undefined && isDeepStrictEqual(form, formOf(resolveChatTemplate(tokenizer))))
  return { source: stays ? own : jinjaForm(form), eosTokenIds: ends }
}

/** Undefined for a template that has none, of which nothing can be said in Jinja either. */
function formOf(template: ChatTemplate): TurnForm | undefined {
  try {
    return readTurnForm(template)
  } catch (error) {
    if (error instanceof EngineError) return undefined
    throw error
  }
}

/**
 * Makes the template that a model was trained with its folder's own, so that other programs ask it in the form that it has
 * learned: chat_template.jinja, and generation_config.json with the tokens that end its answers.
 */
export function adoptTemplate(folder: string, choice: string | null | TemplateChoice | undefined): void {
  if (choice === undefined || choice === null) return
  const tokenizer = loadTokenizer(folder)
  const { source, eosTokenIds } = carriedTemplate(tokenizer, choice)
  if (source !== undefined && source !== tokenizer.chatTemplate) {
    writeFileDurably(join(folder, 'chat_template.jinja'), source)
  }
  if (eosTokenIds.length === tokenizer.eosTokenIds.length) return
  const file = join(folder, 'generation_config.json')
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '{}'
  writeFileDurably(file, changeJson(text, { eos_token_id: eosTokenIds }))
}
