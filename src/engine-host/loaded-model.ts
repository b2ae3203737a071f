import { AdapterCache } from '../../engine/generate/adapter-cache.ts'
import { Decoder } from '../../engine/generate/decoder.ts'
import { readSamplingDefaults } from '../../engine/generate/generation-config.ts'
import { type SamplingParams, samplingParams } from '../../engine/generate/sampling-params.ts'
import { Scheduler } from '../../engine/generate/scheduler.ts'
import type { GenerationRequest } from '../../engine/generate/sequence.ts'
import { type ChatTemplate, resolveChatTemplate } from '../../engine/text/chat-template.ts'
import { createDetokenizer } from '../../engine/text/detokenizer.ts'
import { loadTokenizer, type ModelTokenizer } from '../../engine/text/tokenizer.ts'
import type { EngineLimits, GenerateRequest } from './protocol.ts'

/** A base model that is ready to answer: decoder, tokenizer, templates, recent adapters and the requests in progress. */
export class LoadedModel {
  readonly scheduler: Scheduler
  readonly #decoder: Decoder
  readonly #tokenizer: ModelTokenizer
  readonly #defaults: SamplingParams
  readonly #adapters: AdapterCache
  readonly #templates = new Map<string | undefined, ChatTemplate>()

  private constructor(
    decoder: Decoder,
    tokenizer: ModelTokenizer,
    defaults: SamplingParams,
    maxQueue: number | undefined,
  ) {
    this.#decoder = decoder
    this.#tokenizer = tokenizer
    this.#defaults = defaults
    this.#adapters = new AdapterCache(decoder)
    this.scheduler = new Scheduler(decoder, { maxQueue })
  }

  /** Loads a Hugging Face folder. @throws EngineError as the tokenizer's and the decoder's loaders do. */
  static async load(folder: string, limits: EngineLimits): Promise<LoadedModel> {
    const tokenizer = loadTokenizer(folder) // first: it is quick, and finds a folder that is no model
    const defaults = readSamplingDefaults(folder)
    const decoder = await Decoder.load(folder, limits)
    return new LoadedModel(decoder, tokenizer, defaults, limits.maxQueue)
  }

  /** Renders, tokenizes and completes a request for the scheduler. @throws EngineError naming what is wrong in it. */
  async prepare(request: GenerateRequest): Promise<GenerationRequest> {
    const { adapterFolder, seed, stop = [], maxTokens, ignoreEos } = request
    const sampling = samplingParams(request, this.#defaults)
    const prompt = this.#encode(request)
    return {
      prompt,
      sampling,
      seed,
      stop,
      maxTokens,
      ignoreEos,
      adapter: adapterFolder === undefined ? undefined : await this.#adapters.get(adapterFolder),
      eosTokenIds: this.#tokenizer.eosTokenIds,
      text: createDetokenizer(this.#tokenizer, { skipSpecialTokens: true }),
    }
  }

  async release(): Promise<void> {
    await this.#decoder.release()
  }

  #encode({ messages, prompt, template }: GenerateRequest): Int32Array {
    if (messages !== undefined) {
      const text = this.#template(template).render(messages, { addGenerationPrompt: true })
      return this.#tokenizer.encode(text) // templates write their special tokens themselves
    }
    if (typeof prompt === 'string') return this.#tokenizer.encode(prompt, { addSpecialTokens: true })
    return Int32Array.from(prompt)
  }

  #template(name: string | undefined): ChatTemplate {
    let template = this.#templates.get(name)
    if (template === undefined) {
      template = resolveChatTemplate(this.#tokenizer, name)
      this.#templates.set(name, template)
    }
    return template
  }
}
