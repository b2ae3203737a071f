import type * as ort from 'onnxruntime-node'
import type { Graph } from '../graph/graph.ts'
import { type LoweredGraph, lower, unlowered } from '../graph/lower.ts'
import type { FeedDType, Tensor } from '../tensor.ts'
import { CPU, type Device } from './device.ts'
import { encodeModel } from './encode.ts'
import { creationError, runError } from './runtime-errors.ts'

export interface SessionOptions {
  /** What the graph runs on; the CPU by default. */
  device?: Device
  /** Folder that the graph's external weights are relative to. */
  weightsFolder?: string
  /** Threads inside one operation; 0 leaves it to the runtime. */
  threads?: number
  /**
   * Copy weights into the layout that small matrix products like. Doubles their memory; without it they stay mapped
   * from their file and are shared between processes.
   */
  prepack?: boolean
  /**
   * Convert bf16 and fp16 weights to float32 once at load instead of in every run: twice their memory, no casts.
   * Right for decoding, where a run reads every weight for one token. By default only where a device has no other way.
   */
  foldWeights?: boolean
  /** Multiply bf16 weights as they are stored, where the device can (graph/lower.ts). */
  bfloat16?: boolean
  /**
   * Outputs that stay in the device's memory, to be fed again (WebGPU; elsewhere they come back). Every run of such a
   * session fetches all outputs: the binding mixes up locations where a run fetches some, and keeps what the run before
   * had bound.
   */
  keepOnDevice?: readonly string[]
  /** Write a chrome-trace profile with this prefix. */
  profilePrefix?: string
  /** What makes the graph ready for the device in place of graph/lower.ts, for tests; the runtime's refusals are then quiet. */
  lowering?: (graph: Graph) => LoweredGraph
}

/** Merges recomputed activations with the first ones, which keeps them all alive. */
const MERGE_DUPLICATES = 'CommonSubexpressionElimination'
/** Turns mapped bf16 weights into float32 copies at load. */
const FOLD_CONSTANTS = 'ConstantFolding'

/** A tensor in a device's memory: an output that a session kept there, for any session on that device to read. */
export class DeviceTensor {
  readonly dtype: FeedDType
  readonly dims: readonly number[]
  /** @internal */
  readonly value: ort.Tensor

  constructor(value: ort.Tensor) {
    this.dtype = value.type as FeedDType
    this.dims = value.dims
    this.value = value
  }

  /** Frees its memory now; it must not be read any more. */
  dispose(): void {
    this.value.dispose()
  }
}

/** What a run returns: outputs in the host's memory, and those that were kept on the device. */
export interface RunResults {
  readonly results: Record<string, Tensor>
  readonly kept: Record<string, DeviceTensor>
}

interface SessionParts {
  readonly session: ort.InferenceSession
  /** Makes integers before each run; undefined on the CPU. */
  readonly host: ort.InferenceSession | undefined
  readonly fetchesAll: boolean
  readonly fallbacks: readonly string[]
}

/**
 * A graph loaded into onnxruntime. `run` blocks the thread: keep sessions out of the server's process. On another device
 * than the CPU the graph is lowered first (graph/lower.ts): a second, tiny session on the host makes the integers that
 * it is fed with.
 */
export class Session {
  /** Nodes that the device has no kernel for and that therefore run on the CPU, by name; empty for most graphs. */
  readonly fallbacks: readonly string[]
  private readonly device: Device
  private readonly runtime: typeof ort
  private readonly session: ort.InferenceSession
  private readonly host: ort.InferenceSession | undefined
  private readonly fetchesAll: boolean
  /** Feeds that come again and again (caches, adapters) are wrapped once. */
  private readonly wrapped = new WeakMap<Tensor, ort.Tensor>()

  private constructor(device: Device, runtime: typeof ort, parts: SessionParts) {
    this.device = device
    this.runtime = runtime
    this.session = parts.session
    this.host = parts.host
    this.fallbacks = parts.fallbacks
    this.fetchesAll = parts.fetchesAll
  }

  /**
   * Compiles the graph. Weight files must exist below `weightsFolder`.
   * @throws EngineError unavailable 'device_unavailable', too_large 'device_out_of_memory', internal
   *   'session_create_failed' with what the runtime refused.
   */
  static async create(graph: Graph, options: SessionOptions = {}): Promise<Session> {
    const { device = CPU } = options
    const parts = loweredFor(graph, options)
    // Its binary is loaded with the first session, not by all that may need one.
    const runtime = await import('onnxruntime-node')
    const { InferenceSession } = runtime
    try {
      const session = await InferenceSession.create(
        encodeModel(parts.device),
        runtimeOptions(device, parts, options),
      )
      const host = parts.host && (await InferenceSession.create(encodeModel(parts.host), HOST_OPTIONS))
      const fetchesAll = options.keepOnDevice !== undefined
      return new Session(device, runtime, { session, host, fetchesAll, fallbacks: parts.fallbacks })
    } catch (cause) {
      throw creationError(device, cause)
    }
  }

  /** Runs the graph once. Feeds are read in place; fetched outputs are fresh copies. */
  async run(
    feeds: Record<string, Tensor | DeviceTensor>,
    outputs?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    return (await this.runKeeping(feeds, outputs)).results
  }

  /** As `run`, with the outputs that `keepOnDevice` named. The caller disposes of those. */
  async runKeeping(
    feeds: Record<string, Tensor | DeviceTensor>,
    outputs?: readonly string[],
  ): Promise<RunResults> {
    try {
      const inputs = this.inputsOf(this.session, feeds)
      if (this.host) Object.assign(inputs, await this.host.run(this.inputsOf(this.host, feeds)))
      const fetched =
        outputs && !this.fetchesAll
          ? await this.session.run(inputs, [...outputs])
          : await this.session.run(inputs)
      const results: Record<string, Tensor> = {}
      const kept: Record<string, DeviceTensor> = {}
      for (const [name, value] of Object.entries(fetched)) {
        if (value.location === 'cpu') results[name] = fromRuntime(value)
        else kept[name] = new DeviceTensor(value)
      }
      return { results, kept }
    } catch (cause) {
      throw runError(this.device, cause)
    }
  }

  /** The feeds that a part of the graph reads. */
  private inputsOf(
    { inputNames }: ort.InferenceSession,
    feeds: Record<string, Tensor | DeviceTensor>,
  ): Record<string, ort.Tensor> {
    const inputs: Record<string, ort.Tensor> = {}
    for (const name of inputNames) {
      const feed = feeds[name]
      if (feed) inputs[name] = feed instanceof DeviceTensor ? feed.value : this.wrap(feed)
    }
    return inputs
  }

  private wrap(tensor: Tensor): ort.Tensor {
    let known = this.wrapped.get(tensor)
    if (known === undefined) {
      known = toRuntime(this.runtime, tensor)
      this.wrapped.set(tensor, known)
    }
    return known
  }

  /** Frees the session's memory now instead of at some garbage collection. */
  async release(): Promise<void> {
    await this.session.release()
    await this.host?.release()
  }

  /** Ends profiling and writes its file. */
  endProfiling(): void {
    this.session.endProfiling()
  }
}

function loweredFor(
  graph: Graph,
  { device = CPU, lowering, bfloat16 = false }: SessionOptions,
): LoweredGraph {
  if (lowering) return lowering(graph)
  return device.kind === 'cpu' ? unlowered(graph) : lower(graph, device.kind, { bfloat16 })
}

const HOST_OPTIONS: ort.InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 3,
}

function runtimeOptions(
  device: Device,
  { fallbacks }: LoweredGraph,
  options: SessionOptions,
): ort.InferenceSession.SessionOptions {
  const { weightsFolder, threads = 0, prepack = false, keepOnDevice = [], profilePrefix } = options
  // WebGPU has no bf16: its weights are always widened at load
  const { foldWeights = device.kind === 'webgpu' } = options
  const keeps = device.kind === 'webgpu' && keepOnDevice.length > 0
  // a node that the device table promises a kernel for must not silently run on the CPU
  const strict = device.kind !== 'cpu' && fallbacks.length === 0
  return {
    executionProviders: providersOf(device),
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: 'all',
    enableCpuMemArena: true,
    enableMemPattern: false,
    logSeverityLevel: options.lowering ? 4 : 3,
    ...(profilePrefix ? { enableProfiling: true, profileFilePrefix: profilePrefix } : {}),
    ...(keeps
      ? { preferredOutputLocation: Object.fromEntries(keepOnDevice.map((name) => [name, 'gpu-buffer'])) }
      : {}),
    extra: {
      session: {
        ...(weightsFolder ? { model_external_initializers_file_folder_path: weightsFolder } : {}),
        ...(prepack ? {} : { disable_prepacking: '1' }),
        ...(strict ? { disable_cpu_ep_fallback: '1' } : {}),
        // else weights lie in the arena, which grows by powers of two: up to twice their memory
        ...(device.kind === 'cuda' ? { use_device_allocator_for_initializers: '1' } : {}),
        // else a DequantizeLinear and its product become an 8-bit product, or the weight is widened at load
        disable_quant_qdq: '1',
        disable_qdq_constant_folding: '1',
      },
      optimization: {
        disable_specified_optimizers: foldWeights
          ? MERGE_DUPLICATES
          : `${MERGE_DUPLICATES};${FOLD_CONSTANTS}`,
      },
    },
  }
}

function providersOf({ kind, index = 0 }: Device): ort.InferenceSession.ExecutionProviderConfig[] {
  if (kind === 'cpu') return ['cpu']
  return kind === 'cuda' ? [{ name: 'cuda', deviceId: index }, 'cpu'] : ['webgpu', 'cpu']
}

function toRuntime(runtime: typeof ort, { dtype, dims, data }: Tensor): ort.Tensor {
  return new runtime.Tensor(dtype, data as Float32Array, dims)
}

function fromRuntime(value: ort.OnnxValue): Tensor {
  const tensor = value as ort.Tensor
  return { dtype: tensor.type as FeedDType, dims: tensor.dims, data: tensor.data as Float32Array }
}
