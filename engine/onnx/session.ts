import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type * as ort from 'onnxruntime-node'
import type { Graph } from '../graph/graph.ts'
import { type LoweredGraph, lower, unlowered } from '../graph/lower.ts'
import type { FeedDType, Tensor } from '../tensor.ts'
import { CPU, type Device } from './device.ts'
import { DeviceTensor, type Feeds, type RunResults } from './device-tensor.ts'
import { encodeModel } from './encode.ts'
import { NativeSession } from './native-session.ts'
import { loadOrtApi } from './ort-api.ts'
import { creationError, runError } from './runtime-errors.ts'
import { type SessionOptions, type SessionSettings, settingsOf } from './session-settings.ts'

export { DeviceTensor, type Feeds, type RunResults } from './device-tensor.ts'
export type { SessionOptions } from './session-settings.ts'

/** A graph in the runtime, made through the binding or through the C interface. */
interface LoadedGraph {
  run(feeds: Feeds, outputs?: readonly string[]): RunResults | Promise<RunResults>
  release(): void | Promise<void>
  endProfiling(): void
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
  private readonly session: LoadedGraph
  /** Makes integers before each run; undefined on the CPU. */
  private readonly host: LoadedGraph | undefined

  private constructor(
    device: Device,
    session: LoadedGraph,
    host: LoadedGraph | undefined,
    fallbacks: readonly string[],
  ) {
    this.device = device
    this.session = session
    this.host = host
    this.fallbacks = fallbacks
  }

  /**
   * Compiles the graph. Weight files must exist below `weightsFolder`.
   * @throws EngineError unavailable 'device_unavailable' and 'native_interface_missing', too_large 'device_out_of_memory',
   *   internal 'session_create_failed' with what the runtime refused.
   */
  static async create(graph: Graph, options: SessionOptions = {}): Promise<Session> {
    const { device = CPU } = options
    const parts = loweredFor(graph, options)
    const settings = settingsOf(device, parts.fallbacks, options)
    // Its binary is loaded with the first session, not by all that may need one.
    const runtime = await import('onnxruntime-node')
    runtime.env.logLevel = 'error' // read with the first session: what has no session of its own is as quiet as those
    const api = settings.native ? await loadOrtApi(libraryFolder()) : undefined
    try {
      const session = api
        ? new NativeSession(api, parts.device, settings)
        : await BindingSession.create(
            runtime,
            parts.device,
            runtimeOptions(settings),
            settings.kept !== undefined,
          )
      const host = parts.host && (await BindingSession.create(runtime, parts.host, HOST_OPTIONS))
      return new Session(device, session, host, parts.fallbacks)
    } catch (cause) {
      throw creationError(device, cause)
    }
  }

  /** Runs the graph once. Feeds are read in place; fetched outputs are fresh copies. */
  async run(feeds: Feeds, outputs?: readonly string[]): Promise<Record<string, Tensor>> {
    return (await this.runKeeping(feeds, outputs)).results
  }

  /** As `run`, with the outputs that `keepOnDevice` named. The caller disposes of those. */
  async runKeeping(feeds: Feeds, outputs?: readonly string[]): Promise<RunResults> {
    try {
      const made = this.host && (await this.host.run(feeds)).results
      return await this.session.run(made ? { ...feeds, ...made } : feeds, outputs)
    } catch (cause) {
      throw runError(this.device, cause)
    }
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

/** A graph loaded through onnxruntime-node. */
class BindingSession implements LoadedGraph {
  private readonly runtime: typeof ort
  private readonly session: ort.InferenceSession
  /**
   * Where outputs stay on the device, every run fetches all of them: the binding mixes up locations where a run fetches
   * some, and keeps what the run before had bound.
   */
  private readonly fetchesAll: boolean
  /** Feeds that come again and again (caches, adapters) are wrapped once. */
  private readonly wrapped = new WeakMap<Tensor, ort.Tensor>()

  private constructor(runtime: typeof ort, session: ort.InferenceSession, fetchesAll: boolean) {
    this.runtime = runtime
    this.session = session
    this.fetchesAll = fetchesAll
  }

  static async create(
    runtime: typeof ort,
    graph: Graph,
    options: ort.InferenceSession.SessionOptions,
    fetchesAll = false,
  ): Promise<BindingSession> {
    const session = await runtime.InferenceSession.create(encodeModel(graph), options)
    return new BindingSession(runtime, session, fetchesAll)
  }

  async run(feeds: Feeds, outputs?: readonly string[]): Promise<RunResults> {
    const inputs = this.inputsOf(feeds)
    const fetched =
      outputs && !this.fetchesAll
        ? await this.session.run(inputs, [...outputs])
        : await this.session.run(inputs)
    const results: Record<string, Tensor> = {}
    const kept: Record<string, DeviceTensor> = {}
    for (const [name, value] of Object.entries(fetched)) {
      if (value.location === 'cpu') results[name] = fromRuntime(value)
      else kept[name] = new DeviceTensor(value.type as FeedDType, value.dims, value, () => value.dispose())
    }
    return { results, kept }
  }

  /** The feeds that this graph reads. */
  private inputsOf(feeds: Feeds): Record<string, ort.Tensor> {
    const inputs: Record<string, ort.Tensor> = {}
    for (const name of this.session.inputNames) {
      const feed = feeds[name]
      if (feed) inputs[name] = feed instanceof DeviceTensor ? (feed.value as ort.Tensor) : this.wrap(feed)
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

  async release(): Promise<void> {
    await this.session.release()
  }

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

/** Where the binding's binary has its onnxruntime. */
function libraryFolder(): string {
  const main = createRequire(import.meta.url).resolve('onnxruntime-node')
  return join(dirname(main), '../bin/napi-v6', process.platform, process.arch)
}

const HOST_OPTIONS: ort.InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 3,
}

/** The settings in the binding's words. */
function runtimeOptions({
  device,
  threads,
  logLevel,
  profilePrefix,
  kept = [],
  entries,
}: SessionSettings): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: providersOf(device),
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: 'all',
    enableCpuMemArena: true,
    enableMemPattern: false,
    logSeverityLevel: logLevel,
    ...(profilePrefix ? { enableProfiling: true, profileFilePrefix: profilePrefix } : {}),
    ...(kept.length > 0
      ? { preferredOutputLocation: Object.fromEntries(kept.map((name) => [name, 'gpu-buffer'])) }
      : {}),
    extra: entries,
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
