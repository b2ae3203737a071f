import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { readRecommendedSampling } from '../generate/generation-config.ts'
import { ggufArchitectureOf } from '../gguf/families.ts'
import type { OpenModel } from '../models/index.ts'
import { type ChatTemplate, resolveChatTemplate } from '../text/chat-template.ts'
import { reasoningStart } from '../text/reasoning.ts'
import type { TemplateChoice } from '../text/template-choice.ts'
import { loadTokenizer, type ModelTokenizer } from '../text/tokenizer.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { hasUsualWindows } from './gguf-architecture.ts'
import { beginsWithBos } from './gguf-tokenizer.ts'
import { goTemplate } from './go-template.ts'
import { readTurnForm, type TurnForm } from './turn-form.ts'

const MODELFILE = 'Modelfile'

/** Ollama reserves the cache of its whole context at the start: longer ones are the user's to ask for. */
const MAX_CONTEXT = 8192

/** What a Modelfile says of a model besides its weights. */
export interface ModelfileOptions {
  modelFolder: string
  /** The chat template that training used; undefined is the folder's own. */
  template?: string | TemplateChoice | undefined
  /** Name of the GGUF file beside it. */
  ggufFile: string
  /** Tokens that the model can read. */
  context: number
}

/**
 * Writes the Modelfile with which `ollama create NAME -f Modelfile` takes over a GGUF file of the same folder, so that it is
 * asked and answers there as it does here: chat template, stop strings, context and sampling.
 *
 * @throws EngineError as checkModelfile does.
 */
export function writeModelfile(folder: string, options: ModelfileOptions): void {
  writeFileDurably(join(folder, MODELFILE), modelfile(options))
}

/**
 * Checks that Ollama would compute and ask a model as it is done here, which is less than llama.cpp's files can say.
 *
 * @throws EngineError `unsupported` 'template_without_form' for a chat template that Ollama's language cannot say,
 *   'ollama_unsupported' for windows in other layers than Ollama's own code for the family has them.
 */
export function checkModelfile({ folder, config }: OpenModel, template?: string | TemplateChoice): void {
  readTurnForm(resolveChatTemplate(loadTokenizer(folder), template))
  const { name, windowPeriod } = ggufArchitectureOf(config)
  if (name !== 'gemma3' || hasUsualWindows(config, windowPeriod!)) return
  throw new EngineError(
    'unsupported',
    'ollama_unsupported',
    `Ollama's gemma3 has windows in all but every ${windowPeriod}th layer, and this model has not: export it as gguf for llama.cpp.`,
    { param: 'format' },
  )
}

/**
 * Whether Ollama shall put bos before every prompt: a template that has none was trained without, whatever the tokenizer does
 * with plain text.
 */
export function putsBos(modelFolder: string, template?: string | TemplateChoice): boolean {
  const tokenizer = loadTokenizer(modelFolder)
  const bos = bosOf(tokenizer)
  return bos !== '' && readTurnForm(resolveChatTemplate(tokenizer, template)).start.startsWith(bos)
}

/** What a runtime puts before plain text. */
function bosOf(tokenizer: ModelTokenizer): string {
  return beginsWithBos(tokenizer) ? (tokenizer.tokens.bos ?? '') : ''
}

/** The Modelfile's text; https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx. */
export function modelfile({ modelFolder, template: name, ggufFile, context }: ModelfileOptions): string {
  const tokenizer = loadTokenizer(modelFolder)
  const template = resolveChatTemplate(tokenizer, name)
  const form = readTurnForm(template)
  const go = goTemplate(form, {
    bos: bosOf(tokenizer),
    reasons: reasoningStart(template.thinks, form.prompt) !== 'none',
  })
  const parameters: [name: string, value: string | number][] = [
    ...stopsOf(tokenizer, template, form).map((stop): [string, string] => ['stop', `"${stop}"`]),
    ['num_ctx', Math.min(context, MAX_CONTEXT)],
    ...sampling(modelFolder),
  ]
  const lines = [
    `FROM ./${ggufFile}`,
    `TEMPLATE """${go}"""`,
    ...(context > MAX_CONTEXT ? [`# The model reads up to ${context} tokens; each takes memory.`] : []),
    ...parameters.map(([key, value]) => `PARAMETER ${key} ${value}`),
  ]
  return `${lines.join('\n')}\n`
}

/** The tokens that end an answer, as text: the model's own, the template's, and the one that it writes behind an answer. */
function stopsOf(tokenizer: ModelTokenizer, template: ChatTemplate, { between }: TurnForm): string[] {
  const [behind] = tokenizer.encode(between)
  const ends = [...tokenizer.eosTokenIds, ...template.endTokenIds]
  if (behind !== undefined && tokenizer.specialTokenIds.has(behind)) ends.push(behind)
  return [...new Set(ends.flatMap((id) => tokenizer.tokenText(id) ?? []))]
}

/** What the model's authors recommend. Ollama's own penalty of 1.1 would punish what the model has learned to repeat. */
function sampling(modelFolder: string): [string, number][] {
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty } =
    readRecommendedSampling(modelFolder)
  const parameters: [string, number | undefined][] = [
    ['temperature', temperature],
    ['top_k', topK === undefined ? undefined : Math.max(0, topK)],
    ['top_p', topP],
    ['min_p', minP],
    ['repeat_penalty', repetitionPenalty ?? 1],
    ['presence_penalty', presencePenalty],
    ['frequency_penalty', frequencyPenalty],
  ]
  return parameters.filter((parameter): parameter is [string, number] => parameter[1] !== undefined)
}
