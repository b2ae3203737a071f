import { readAdapter } from '../adapter/peft.ts'
import { type ServingModule, servingForm } from '../adapter/serving.ts'
import { EngineError } from '../errors.ts'
import { type OpenModel, openModel } from '../models/index.ts'
import { cachedAttention } from '../nn/attention.ts'
import { languageModelHead } from '../nn/decoder-layer.ts'
import { causalMask, consecutivePositions, MASKED } from '../nn/masks.ts'
import { type LinearModule, ModelBuilder } from '../nn/model-builder.ts'
import { Session } from '../onnx/session.ts'
import { floatTensor, intTensor, type Tensor } from '../tensor.ts'
import { KvCache } from './kv-cache.ts'

/** Contexts are cut here unless the caller asks for more: rotary tables and caches are sized by it. */
const DEFAULT_MAX_POSITIONS = 32_768

export interface DecoderOptions {
  /** Threads of one run; 0 leaves it to the runtime. */
  threads?: number
  /** Longest context in tokens; at most the model's own. */
  maxPositions?: number
}

/** An adapter as graph inputs, checked against its base; B already carries alpha / rank. */
export interface DecoderAdapter {
  readonly feeds: Readonly<Record<string, Tensor>>
}

/**
 * A base model compiled for generation. LoRA weights are inputs of the graph, so any adapter answers over the one
 * loaded base; without one, inputs of rank 0 are fed. Runs must not overlap.
 */
export class Decoder {
  readonly vocabSize: number
  /** Context length in tokens. */
  readonly maxPositions: number
  private readonly model: OpenModel
  private readonly session: Session
  private readonly linears: readonly LinearModule[]
  private readonly outputs: { logits: string; present: string }
  private readonly noAdapter: DecoderAdapter

  private constructor(
    model: OpenModel,
    session: Session,
    graph: Pick<ReturnType<typeof buildDecoderGraph>, 'linears' | 'outputs' | 'maxPositions'>,
  ) {
    this.model = model
    this.session = session
    this.linears = graph.linears
    this.outputs = graph.outputs
    this.maxPositions = graph.maxPositions
    this.vocabSize = model.config.vocabSize
    this.noAdapter = { feeds: adapterFeeds(this.linears, new Map()) }
  }

  /** Compiles a Hugging Face folder. Throws on unsupported configs and missing or misshapen weights. */
  static async load(folder: string, options: DecoderOptions = {}): Promise<Decoder> {
    const model = openModel(folder)
    const graph = buildDecoderGraph(model, options.maxPositions ?? DEFAULT_MAX_POSITIONS)
    const session = await Session.create(graph.graph, {
      weightsFolder: folder,
      foldWeights: true,
      threads: options.threads ?? 0,
    })
    return new Decoder(model, session, graph)
  }

  /** An empty cache for one sequence, with places for `capacity` tokens; it grows when needed. */
  createCache(capacity = 0): KvCache {
    return new KvCache(this.model.config, capacity)
  }

  /** Reads a PEFT folder; throws what servingForm throws for one that does not fit or cannot be fed. */
  loadAdapter(folder: string): DecoderAdapter {
    const read = (path: string) => this.model.weights.readFloat32(`${path}.weight`)
    const modules = servingForm(readAdapter(folder), this.linears, read, this.model.folder)
    return { feeds: adapterFeeds(this.linears, modules) }
  }

  /** Appends tokens to the cache and returns the logits [vocabSize] that follow the last one. */
  async forward(tokens: Int32Array, cache: KvCache, adapter?: DecoderAdapter): Promise<Float32Array> {
    return this.logitsAt(tokens, cache, [tokens.length - 1], adapter)
  }

  /** Appends tokens and returns the logits after each of the given ones, [rows.length · vocabSize]. */
  async logitsAt(
    tokens: Int32Array,
    cache: KvCache,
    rows: readonly number[],
    adapter: DecoderAdapter = this.noAdapter,
  ): Promise<Float32Array> {
    const count = tokens.length
    if (cache.length + count > this.maxPositions) {
      throw new EngineError(
        'too_large',
        'context_length_exceeded',
        `${cache.length + count} tokens exceed the context of ${this.maxPositions}`,
      )
    }
    const past = cache.feeds()
    const pastMask = new Float32Array(past.places).fill(MASKED, cache.length)
    const results = await this.session.run({
      ...adapter.feeds,
      ...past.tensors,
      input_ids: intTensor(BigInt64Array.from(tokens, BigInt), [1, count]),
      position_ids: consecutivePositions(1, count, cache.length),
      past_mask: floatTensor(pastMask, [1, 1, 1, 1, past.places]),
      attention_mask: causalMask(count),
      rows: intTensor(BigInt64Array.from(rows, BigInt), [rows.length]),
    })
    cache.append(results[this.outputs.present]!.data as Float32Array, count)
    return results[this.outputs.logits]!.data as Float32Array
  }

  async release(): Promise<void> {
    await this.session.release()
  }
}

function buildDecoderGraph(model: OpenModel, limit: number) {
  const maxPositions = Math.min(model.config.maxPositions, limit)
  const builder = new ModelBuilder(model.weights, {
    lora: ({ path }) => ({ rank: `rank(${path})`, scale: 1, dropout: 0, magnitude: 'fed' }),
  })
  const attention = cachedAttention(builder)
  const hidden = model.family.build(builder, model.config, { attention, positions: maxPositions })
  const rows = builder.g.input('rows', 'int64', ['rows'])
  const logits = languageModelHead(builder, model.config, hidden, rows)
  const present = attention.present()
  return {
    graph: builder.g.finish([logits, present]),
    linears: builder.linears,
    maxPositions,
    outputs: { logits: logits.name, present: present.name },
  }
}

/** One A [rank, in], B [out, rank] and scale [out] per linear module; of rank 0 and 1 where the adapter has none. */
function adapterFeeds(
  linears: readonly LinearModule[],
  modules: ReadonlyMap<string, ServingModule>,
): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {}
  const nothing = new Float32Array(0)
  for (const { path, inFeatures, outFeatures } of linears) {
    const { rank, a, b, outputScale } = modules.get(path) ?? {
      rank: 0,
      a: nothing,
      b: nothing,
      outputScale: null,
    }
    const name = (part: string) => `base_model.model.${path}.${part}`
    feeds[name('lora_A.weight')] = floatTensor(a, [rank, inFeatures])
    feeds[name('lora_B.weight')] = floatTensor(b, [outFeatures, rank])
    feeds[name('output_scale')] = floatTensor(outputScale ?? new Float32Array(outFeatures).fill(1), [
      outFeatures,
    ])
  }
  return feeds
}
