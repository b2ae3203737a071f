import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import type { OpenModel } from '../models/index.ts'
import { CPU, type Device, keepsTensors } from '../onnx/device.ts'
import { type DeviceTensor, Session, type SessionOptions } from '../onnx/session.ts'
import { packedLayout } from '../packed/layout.ts'
import { intTensor, type Tensor } from '../tensor.ts'
import { AdapterFeeds } from './adapter-feeds.ts'
import { type DecoderAdapter, loadDecoderAdapter } from './decoder-adapter.ts'
import { ADAPTER_FORMS, type AdapterForm, buildDecoderGraph, type DecoderGraph } from './decoder-graph.ts'
import { CacheKernels } from './device-cache.ts'
import { KvCache } from './kv-cache.ts'
import { type PastStep, pastFeeds, type SequenceCache } from './past.ts'
import { ResidentKvCache } from './resident-kv-cache.ts'
import { openServedBase } from './served-base.ts'
import type { ServedWeights } from './served-weights.ts'

export type { DecoderAdapter } from './decoder-adapter.ts'
export type { PastFeeds, SequenceCache } from './past.ts'

/** Contexts are cut here unless the caller asks for more: rotary tables and caches are sized by it. */
const DEFAULT_MAX_POSITIONS = 32_768

export interface DecoderOptions {
  /** What the model runs on; the CPU by default. */
  device?: Device
  /** Threads of one run; 0 leaves it to the runtime. */
  threads?: number
  /** Longest context in tokens; at most the model's own. */
  maxPositions?: number
  /** How the base's linear modules are held; float32 by default. */
  weights?: ServedWeights
  /** Adapters that are ready for at once; others cost a compilation when the first is loaded. None by default. */
  adapters?: AdapterForm
  /** Where packed weights are kept for the next load; the system's temporary folder by default. */
  packedFolder?: string
}

/** One run: `seq` new tokens for each of `batch` sequences. */
export interface DecoderStep extends PastStep {
  /** Token ids, [batch·seq]. */
  readonly tokens: BigInt64Array
  /** Flat indices of the tokens after which logits are wanted. */
  readonly rows: readonly number[]
  /** What is wanted there: every copy of a whole vocabulary costs. */
  readonly want: 'logits' | 'largest'
  /** Each sequence's adapter, for a run in which any has one. */
  readonly adapters?: readonly (DecoderAdapter | undefined)[]
}

export interface DecoderResult {
  /** [rows, vocabSize], where wanted. */
  readonly logits: Float32Array | undefined
  /** The id of the largest logit, the lowest among equals, [rows]. */
  readonly largest: BigInt64Array | undefined
  /** New keys and values, [2·layers, batch, kvHeads, seq, headDim]; empty where the past is resident. */
  readonly present: Float32Array
}

/** Where a decoder's sessions run. */
type Place = Pick<SessionOptions, 'device' | 'threads'>

interface Compiled {
  readonly form: AdapterForm
  readonly session: Session
  readonly graph: DecoderGraph
  /** Undefined where the graph takes no adapters. */
  readonly adapters: AdapterFeeds | undefined
}

/**
 * A base model compiled for generation. Runs must not overlap. A base alone computes no adapter's operations: the first
 * adapter of a kind has the graph compiled anew, with inputs for adapters, and that graph then serves base and adapters,
 * so that the weights are in memory once.
 */
export class Decoder {
  readonly model: OpenModel
  /** Context length in tokens. */
  readonly maxPositions: number
  /** What makes caches in the device's memory, where they stay there. */
  readonly cacheKernels: CacheKernels | undefined
  readonly #place: Place
  #compiled: Compiled
  #preparing: Promise<void> = Promise.resolve()
  /** The last run; a session is released only after it. */
  #lastRun: Promise<unknown> = Promise.resolve()

  private constructor(
    model: OpenModel,
    compiled: Compiled,
    maxPositions: number,
    place: Place,
    cacheKernels?: CacheKernels,
  ) {
    this.model = model
    this.maxPositions = maxPositions
    this.#place = place
    this.cacheKernels = cacheKernels
    this.#compiled = compiled
  }

  /** Compiles a Hugging Face folder. Throws on unsupported configs and missing or misshapen weights. */
  static async load(folder: string, options: DecoderOptions = {}): Promise<Decoder> {
    const packedFolder = options.packedFolder ?? join(tmpdir(), 'anneal-packed')
    const model = await openServedBase(folder, options.weights ?? 'float32', packedFolder)
    const maxPositions = Math.min(model.config.maxPositions, options.maxPositions ?? DEFAULT_MAX_POSITIONS)
    const place: Place = {
      ...(options.device ? { device: options.device } : {}),
      threads: options.threads ?? 0,
    }
    const compiled = await compile(model, { maxPositions, adapters: options.adapters ?? 'none' }, place)
    const { device = CPU } = place
    const kernels = keepsTensors(device) ? await CacheKernels.create(device, model.config) : undefined
    return new Decoder(model, compiled, maxPositions, place, kernels)
  }

  get vocabSize(): number {
    return this.model.config.vocabSize
  }

  /**
   * Whether activations are rounded to 8 bits, as over a base at 8 or 4 bits. Sums in another order, as of several tokens in
   * one run, then change logits by some tenths, where they change them by 1e-5 otherwise.
   */
  get roundsActivations(): boolean {
    return packedLayout(this.model.weights) !== undefined
  }

  /** Nodes that the device has no kernel for and that run on the CPU, by name; empty for most models. */
  get fallbacks(): readonly string[] {
    return this.#compiled.session.fallbacks
  }

  /** What keys and values are laid out by. */
  get cacheShape(): { layers: number; keyValueHeads: number; headDim: number } {
    return this.model.config
  }

  /**
   * An empty cache for one sequence, with places for `capacity` tokens, which grows when needed; on devices that keep
   * outputs it is there.
   */
  createCache(capacity = 0): SequenceCache {
    const { cacheKernels } = this
    return cacheKernels
      ? new ResidentKvCache(cacheKernels, capacity)
      : new KvCache(this.model.config, capacity)
  }

  /**
   * Reads a PEFT folder and makes ready for adapters of its kind; `key` names this version of it.
   * @throws EngineError invalid when a module does not exist in this base or its shape differs.
   */
  async loadAdapter(folder: string, key?: string): Promise<DecoderAdapter> {
    const adapter = loadDecoderAdapter(folder, this.model, this.#compiled.graph.linears, key)
    await this.prepareAdapters(adapter.scaled ? 'scaled' : 'plain')
    return adapter
  }

  /** Makes ready for adapters of a kind, once. */
  async prepareAdapters(form: AdapterForm): Promise<void> {
    this.#preparing = this.#preparing.catch(() => {}).then(() => this.#compileFor(form))
    await this.#preparing
  }

  async #compileFor(form: AdapterForm): Promise<void> {
    const old = this.#compiled
    if (ADAPTER_FORMS.indexOf(form) <= ADAPTER_FORMS.indexOf(old.form)) return
    const { model, maxPositions } = this
    this.#compiled = await compile(model, { maxPositions, adapters: form }, this.#place)
    await this.#lastRun
    await releaseCompiled(old)
  }

  /** Computes one step of a batch. The past is only read: the caller writes `present` into its cache. */
  async run(step: DecoderStep): Promise<DecoderResult> {
    const running = this.#compute(step)
    this.#lastRun = running.catch(() => {})
    return running
  }

  async #compute(step: DecoderStep): Promise<DecoderResult> {
    const { batch, seq, tokens, positions, past, rows, want, adapters } = step
    const feeds: Record<string, Tensor | DeviceTensor> = {
      ...(await pastFeeds(step)),
      input_ids: intTensor(tokens, [batch, seq]),
      position_ids: intTensor(positions, [batch, seq]),
      rows: intTensor(BigInt64Array.from(rows, BigInt), [rows.length]),
    }
    const { session, graph, adapters: adapterFeeds } = this.#compiled
    if (adapterFeeds) {
      const perSequence = adapters ?? new Array<undefined>(batch).fill(undefined)
      const perToken = perSequence.flatMap((adapter) => new Array<typeof adapter>(seq).fill(adapter))
      Object.assign(feeds, await adapterFeeds.of(perToken))
    }
    const { outputs } = graph
    const wanted = want === 'logits' ? [outputs.logits] : [outputs.largest, outputs.sum]
    const { results, kept } = await session.runKeeping(feeds, [...wanted, ...outputs.caches])
    if ('cache' in past) past.cache.adopt(outputs.caches.map((name) => kept[name]!))
    if (want === 'largest') checkFinite(results[outputs.sum]!.data as Float32Array)
    return {
      logits: want === 'logits' ? (results[outputs.logits]!.data as Float32Array) : undefined,
      largest: want === 'largest' ? (results[outputs.largest]!.data as BigInt64Array) : undefined,
      present: 'cache' in past ? NOTHING : (results[outputs.caches[0]!]!.data as Float32Array),
    }
  }

  /** Appends tokens to the cache and returns the logits [vocabSize] that follow the last one. */
  async forward(tokens: Int32Array, cache: SequenceCache, adapter?: DecoderAdapter): Promise<Float32Array> {
    return this.logitsAt(tokens, cache, [tokens.length - 1], adapter)
  }

  /** Appends tokens and returns the logits after each of the given ones, [rows.length · vocabSize]. */
  async logitsAt(
    tokens: Int32Array,
    cache: SequenceCache,
    rows: readonly number[],
    adapter?: DecoderAdapter,
  ): Promise<Float32Array> {
    const seq = tokens.length
    if (cache.length + seq > this.maxPositions) {
      throw new EngineError(
        'too_large',
        'context_length_exceeded',
        `${cache.length + seq} tokens exceed the context of ${this.maxPositions}`,
      )
    }
    const { logits, present } = await this.run({
      batch: 1,
      seq,
      tokens: BigInt64Array.from(tokens, BigInt),
      positions: BigInt64Array.from(tokens, (_, index) => BigInt(cache.length + index)),
      past: cache.past(seq),
      rows,
      want: 'logits',
      adapters: [adapter],
    })
    cache.append(present, seq)
    return logits!
  }

  async release(): Promise<void> {
    await this.#preparing.catch(() => {})
    await releaseCompiled(this.#compiled)
    await this.cacheKernels?.release()
  }
}

async function releaseCompiled({ session, adapters }: Compiled): Promise<void> {
  await session.release()
  await adapters?.release()
}

async function compile(
  model: OpenModel,
  options: { maxPositions: number; adapters: AdapterForm },
  place: Place,
): Promise<Compiled> {
  const residentCache = keepsTensors(place.device ?? CPU)
  const graph = buildDecoderGraph(model, { ...options, residentCache })
  const weightsFolder = model.folder
  const scaled = options.adapters === 'scaled'
  const keeper = residentCache ? place.device : undefined
  const adapters =
    options.adapters === 'none' ? undefined : new AdapterFeeds(graph.linears, { scaled, keeper })
  const session = await Session.create(graph.graph, {
    weightsFolder,
    ...(residentCache ? { keepOnDevice: graph.outputs.caches } : {}),
    foldWeights: true,
    prepack: true,
    ...place,
  })
  return { form: options.adapters, session, graph, adapters }
}

const NOTHING = new Float32Array(0)

/** A sum over all logits of a row finds any that is no finite number. */
function checkFinite(sums: Float32Array): void {
  if (sums.every(Number.isFinite)) return
  throw new EngineError(
    'internal',
    'non_finite_logits',
    'The model produced logits that are not finite numbers; its weights or the adapter are broken.',
  )
}
