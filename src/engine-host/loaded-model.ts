import { AdapterCache } from '../../engine/generate/adapter-cache.ts'
import { Decoder } from '../../engine/generate/decoder.ts'
import { Scheduler } from '../../engine/generate/scheduler.ts'
import type { AnswerEvent, EngineLimits, GenerateRequest, ModelAnswer, ModelCall } from './protocol.ts'
import { RequestReader } from './request-reader.ts'
import { TextCalls } from './text-calls.ts'

/** A base model that is ready to answer: decoder, tokenizer, templates, recent adapters and the requests in progress. */
export class LoadedModel {
  readonly scheduler: Scheduler
  readonly #decoder: Decoder
  readonly #reader: RequestReader
  readonly #adapters: AdapterCache
  readonly #calls: TextCalls

  private constructor(decoder: Decoder, reader: RequestReader, maxQueue: number | undefined) {
    this.#decoder = decoder
    this.#reader = reader
    this.#adapters = new AdapterCache(decoder)
    this.#calls = new TextCalls(reader, decoder.maxPositions)
    this.scheduler = new Scheduler(decoder, { maxQueue })
  }

  /** Loads a Hugging Face folder. @throws EngineError as the tokenizer's and the decoder's loaders do. */
  static async load(folder: string, limits: EngineLimits): Promise<LoadedModel> {
    const reader = new RequestReader(folder) // first: it is quick, and finds a folder that is no model
    const decoder = await Decoder.load(folder, limits)
    return new LoadedModel(decoder, reader, limits.maxQueue)
  }

  /** Answers a request. @throws EngineError naming what is wrong in it, before the first event. */
  async *answer(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<AnswerEvent, void, void> {
    const { generation, stream } = this.#reader.read(request)
    const { adapterFolder } = request
    const adapter = adapterFolder === undefined ? undefined : await this.#adapters.get(adapterFolder)
    for await (const event of this.scheduler.submit({ ...generation, adapter }, signal)) {
      yield* stream.take(event)
    }
  }

  /** Answers a short question. @throws EngineError naming what is wrong in it. */
  call(question: ModelCall): Promise<ModelAnswer> {
    return this.#calls.answer(question)
  }

  async release(): Promise<void> {
    await this.#decoder.release()
  }
}
