import { AdapterCache } from '../../engine/generate/adapter-cache.ts'
import { Decoder } from '../../engine/generate/decoder.ts'
import { Encoder } from '../../engine/generate/encoder.ts'
import { Scheduler } from '../../engine/generate/scheduler.ts'
import { ModelCalls } from './model-calls.ts'
import type {
  AnswerEvent,
  EngineLimits,
  EngineLoad,
  GenerateRequest,
  ModelAnswer,
  ModelCall,
} from './protocol.ts'
import { RequestReader } from './request-reader.ts'

/** A base model that is ready to answer: decoder, tokenizer, templates, recent adapters and the requests in progress. */
export class LoadedModel {
  readonly scheduler: Scheduler
  readonly #decoder: Decoder
  readonly #reader: RequestReader
  readonly #adapters: AdapterCache
  readonly #encoder: Encoder
  readonly #calls: ModelCalls

  private constructor(folder: string, decoder: Decoder, reader: RequestReader, limits: EngineLimits) {
    this.#decoder = decoder
    this.#reader = reader
    this.#adapters = new AdapterCache(decoder, limits.maxAdapters)
    const { promptLookup = !decoder.roundsActivations } = limits
    this.scheduler = new Scheduler(decoder, { ...limits, promptLookup })
    const { maxPositions } = this.scheduler
    reader.maxTokens = maxPositions
    this.#encoder = new Encoder(folder, {
      device: limits.device,
      threads: limits.threads,
      maxTokens: maxPositions,
      packedFolder: limits.packedFolder,
    })
    this.#calls = new ModelCalls(reader, this.#encoder, this.#adapters, maxPositions)
  }

  /** Loads a Hugging Face folder. @throws EngineError as the tokenizer's and the decoder's loaders do. */
  static async load(folder: string, limits: EngineLimits): Promise<LoadedModel> {
    const reader = new RequestReader(folder) // first: it is quick, and finds a folder that is no model
    const decoder = await Decoder.load(folder, limits)
    return new LoadedModel(folder, decoder, reader, limits)
  }

  get fallbacks(): readonly string[] {
    return this.#decoder.fallbacks
  }

  get load(): EngineLoad {
    const { running, waiting, cacheUsage } = this.scheduler
    return { running, waiting, cacheUsage }
  }

  /** Answers a request. @throws EngineError naming what is wrong in it, before the first event. */
  async *answer(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<AnswerEvent, void, void> {
    const { generation, stream, dispose } = await this.#reader.read(request)
    try {
      const { adapterFolder } = request
      const adapter = adapterFolder === undefined ? undefined : await this.#adapters.get(adapterFolder)
      for await (const event of this.scheduler.submit({ ...generation, adapter }, signal)) {
        yield* stream.take(event)
      }
    } finally {
      dispose()
    }
  }

  /** Answers a short question. @throws EngineError naming what is wrong in it. */
  call(question: ModelCall): Promise<ModelAnswer> {
    return this.#calls.answer(question)
  }

  async release(): Promise<void> {
    await this.#reader.close()
    await this.#encoder.release()
    await this.#decoder.release()
  }
}
