import { EngineError } from '../../engine/errors.ts'
import { readSamplingDefaults } from '../../engine/generate/generation-config.ts'
import { afterReasoning } from '../../engine/generate/grammar/after-reasoning.ts'
import { grammarFormat } from '../../engine/generate/grammar/format.ts'
import { Grammars } from '../../engine/generate/grammar/grammars.ts'
import { type SamplingParams, samplingParams } from '../../engine/generate/sampling-params.ts'
import type { GenerationRequest } from '../../engine/generate/sequence.ts'
import { adaptConversation } from '../../engine/text/chat-input.ts'
import { type ChatTemplate, resolveChatTemplate } from '../../engine/text/chat-template.ts'
import { createDetokenizer } from '../../engine/text/detokenizer.ts'
import { encodePrompt } from '../../engine/text/encode-prompt.ts'
import { OutputParser } from '../../engine/text/output-parser.ts'
import { type Piece, pieceText } from '../../engine/text/pieces.ts'
import { type ReasoningStart, reasoningStart, THINK_CLOSE, THINK_OPEN } from '../../engine/text/reasoning.ts'
import type { TemplateChoice } from '../../engine/text/template-choice.ts'
import { loadTokenizer, type ModelTokenizer } from '../../engine/text/tokenizer.ts'
import { readJsonObject } from '../../engine/text/tokenizer-files.ts'
import { withTimeLimit } from '../../engine/time-limit.ts'
import { AnswerStream } from './answer-stream.ts'
import type { ChatInput, GenerateRequest } from './protocol.ts'

/** A request in the engine's terms, and the reader of its answer. */
export interface ReadRequest {
  /** All but the adapter, which is the decoder's to load. */
  generation: Omit<GenerationRequest, 'adapter'>
  stream: AnswerStream
  /** Frees what the request holds; to be called when its answer has ended in whatever way. */
  dispose(): void
}

interface RenderedChat {
  text: string
  pieces: readonly Piece[]
  template: ChatTemplate
  reasoning: ReasoningStart
}

/** A template that takes longer than this to render is broken or hostile. */
const RENDER_LIMIT_MS = 1_000

/** The text side of a loaded model: templates, tokens, defaults. It computes nothing of the model itself. */
export class RequestReader {
  readonly tokenizer: ModelTokenizer
  /** The longest prompt worth tokenizing to its end; the loaded model sets it. */
  maxTokens = Number.POSITIVE_INFINITY
  readonly #defaults: SamplingParams
  readonly #folder: string
  #grammars: Grammars | undefined
  /** By their choice as JSON. */
  readonly #templates = new Map<string, ChatTemplate>()

  /** Reads a Hugging Face folder. @throws EngineError as the tokenizer's loader does. */
  constructor(folder: string) {
    this.#folder = folder
    this.tokenizer = loadTokenizer(folder)
    this.#defaults = readSamplingDefaults(folder)
  }

  /** Renders, tokenizes and completes a request. @throws EngineError naming what is wrong in it. */
  async read(request: GenerateRequest): Promise<ReadRequest> {
    const { seed, stop = [], maxTokens, minTokens, ignoreEos, logprobs, prediction } = request
    const chat = request.prompt === undefined ? this.render(request) : undefined
    const prompt = chat
      ? this.#encodeText(chat.pieces, false, 'messages')
      : this.encode(request.prompt!, 'prompt')
    const markers = chat ? [...chat.template.toolFormat.markers, THINK_OPEN, THINK_CLOSE] : []
    const generation = {
      prompt,
      promptName: chat ? 'messages' : 'prompt',
      ...(prediction && { prediction: this.#encodeText(prediction, false, 'prediction') }),
      sampling: samplingParams(request, this.#defaults),
      seed,
      stop,
      maxTokens,
      minTokens,
      ignoreEos,
      logprobs,
      logitBias: this.#readBias(request.logitBias ?? {}),
      eosTokenIds: [...this.tokenizer.eosTokenIds, ...(chat?.template.endTokenIds ?? [])],
      text: createDetokenizer(showing(this.tokenizer, markers)),
    }
    const stream = new AnswerStream(this.#parser(request, chat), this.tokenizer)
    // Last, as nothing behind it may fail: it holds memory until it is disposed of.
    const grammar = chat && request.prompt === undefined ? await this.#startGrammar(request, chat) : undefined
    return { generation: { ...generation, grammar }, stream, dispose: () => grammar?.dispose() }
  }

  async close(): Promise<void> {
    await this.#grammars?.close()
  }

  /** The conversation as its template shows it. @throws EngineError when the template refuses it. */
  render(
    input: ChatInput & { template?: string | TemplateChoice },
    addGenerationPrompt = true,
  ): RenderedChat {
    const template = this.#template(input.template)
    const tools = input.toolChoice === 'none' ? [] : (input.tools ?? [])
    const { messages, options } = adaptConversation(input.messages, tools, template)
    const variables = { ...input.templateVariables, ...effortVariables(template, input.reasoningEffort) }
    const render = () => template.pieces(messages, { ...options, addGenerationPrompt, variables })
    const pieces = withTimeLimit(render, RENDER_LIMIT_MS, templateTooSlow)
    const text = pieceText(pieces)
    return { text, pieces, template, reasoning: reasoningStart(template.thinks, text) }
  }

  /** Text with the special tokens that plain text gets; token ids are checked. `param` names the field in errors. */
  encode(prompt: string | readonly number[], param: string): Int32Array {
    if (typeof prompt === 'string') return this.#encodeText(prompt, true, param)
    for (const id of prompt) this.#checkId(id, param)
    return Int32Array.from(prompt)
  }

  #encodeText(text: string | readonly Piece[], addSpecialTokens: boolean, param: string): Int32Array {
    return encodePrompt(this.tokenizer, text, { addSpecialTokens, maxTokens: this.maxTokens, param })
  }

  #parser(request: GenerateRequest, chat: RenderedChat | undefined): OutputParser {
    if (chat === undefined || request.prompt !== undefined) return new OutputParser({ reasoning: 'none' })
    const { reasoning } = chat
    const names = (request.tools ?? []).map((tool) => tool.function.name)
    if (names.length === 0 || request.toolChoice === 'none') return new OutputParser({ reasoning })
    const parallel = request.parallelToolCalls ?? true
    return new OutputParser({ reasoning, tools: { format: chat.template.toolFormat, names, parallel } })
  }

  async #startGrammar(request: ChatInput & GenerateRequest, chat: RenderedChat) {
    const { tools = [], toolChoice = 'auto', parallelToolCalls = true, responseFormat } = request
    const format = grammarFormat({
      tools,
      toolChoice,
      parallelToolCalls,
      responseFormat,
      toolFormat: chat.template.toolFormat,
    })
    if (format === undefined) return undefined
    this.#grammars ??= new Grammars(this.tokenizer, vocabularyRows(this.#folder, this.tokenizer))
    const grammar = await this.#grammars.start(format)
    return chat.reasoning === 'thinking' ? afterReasoning(grammar, this.tokenizer) : grammar
  }

  #readBias(given: Readonly<Record<string, number>>): Map<number, number> {
    const bias = new Map<number, number>()
    for (const [key, value] of Object.entries(given)) {
      const id = Number(key)
      this.#checkId(id, 'logit_bias')
      bias.set(id, value)
    }
    return bias
  }

  #checkId(id: number, param: string): void {
    if (Number.isInteger(id) && id >= 0 && id < this.tokenizer.vocabSize) return
    const message = `${param} names the token ${id}; this model's ids go from 0 to ${this.tokenizer.vocabSize - 1}.`
    throw new EngineError('invalid', 'unknown_token', message, { param })
  }

  #template(choice: string | TemplateChoice | undefined): ChatTemplate {
    const key = JSON.stringify(choice ?? null)
    let template = this.#templates.get(key)
    if (template === undefined) {
      const resolve = () => resolveChatTemplate(this.tokenizer, choice)
      template = withTimeLimit(resolve, RENDER_LIMIT_MS, templateTooSlow)
      this.#templates.set(key, template)
    }
    return template
  }
}

/** A tokenizer that decodes without special tokens, but for the marks of calls and reasoning, which may be special. */
function showing(tokenizer: ModelTokenizer, markers: readonly string[]): Pick<ModelTokenizer, 'decode'> {
  const hidden = new Set(tokenizer.specialTokenIds)
  for (const marker of markers) {
    const id = tokenizer.tokenId(marker)
    if (id !== undefined) hidden.delete(id)
  }
  return { decode: (ids) => tokenizer.decode(Array.from(ids).filter((id) => !hidden.has(id))) }
}

/**
 * OpenAI's reasoning_effort in the names that templates know.
 * @throws EngineError unsupported where the template knows none and more than 'none' is asked.
 */
function effortVariables(
  { effortVariable }: ChatTemplate,
  effort: string | undefined,
): Record<string, unknown> {
  if (effort === undefined) return {}
  if (effortVariable === 'reasoning_effort') return { reasoning_effort: effort }
  if (effortVariable === 'enable_thinking') return { enable_thinking: effort !== 'none' }
  if (effort === 'none') return {}
  const message = `reasoning_effort is ${effort}, but this model's chat template knows no reasoning; leave it out.`
  throw new EngineError('unsupported', 'unsupported_parameter', message, { param: 'reasoning_effort' })
}

const templateTooSlow = () =>
  new EngineError(
    'invalid',
    'chat_template_failed',
    `The chat template took longer than ${RENDER_LIMIT_MS} ms for these messages and was stopped.`,
    { param: 'messages' },
  )

/** Rows of the embedding, which may be more than the tokens. */
function vocabularyRows(folder: string, tokenizer: ModelTokenizer): number {
  const rows = readJsonObject(folder, 'config.json')?.vocab_size
  return typeof rows === 'number' ? rows : tokenizer.vocabSize
}
