import type * as ort from 'onnxruntime-node'
import { EngineError } from '../errors.ts'
import type { Graph } from '../graph/graph.ts'
import type { FeedDType, Tensor } from '../tensor.ts'
import { CPU, type Device } from './device.ts'
import { encodeModel } from './encode.ts'

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
   * Right for decoding, where a run reads every weight for one token.
   */
  foldWeights?: boolean
  /** Write a chrome-trace profile with this prefix. */
  profilePrefix?: string
}

/** Merges recomputed activations with the first ones, which keeps them all alive. */
const MERGE_DUPLICATES = 'CommonSubexpressionElimination'
/** Turns mapped bf16 weights into float32 copies at load. */
const FOLD_CONSTANTS = 'ConstantFolding'

/** A graph loaded into onnxruntime. `run` blocks the thread: keep sessions out of the server's process. */
export class Session {
  private readonly runtime: typeof ort
  private readonly session: ort.InferenceSession
  /** Feeds that come again and again (caches, adapters) are wrapped once. */
  private readonly wrapped = new WeakMap<Tensor, ort.Tensor>()

  private constructor(runtime: typeof ort, session: ort.InferenceSession) {
    this.runtime = runtime
    this.session = session
  }

  /** Compiles the graph. Weight files must exist below `weightsFolder`; errors name what the runtime refused. */
  static async create(graph: Graph, options: SessionOptions = {}): Promise<Session> {
    const {
      device = CPU,
      weightsFolder,
      threads = 0,
      prepack = false,
      foldWeights = false,
      profilePrefix,
    } = options
    const disabled = foldWeights ? MERGE_DUPLICATES : `${MERGE_DUPLICATES};${FOLD_CONSTANTS}`
    // Its binary is loaded with the first session, not by all that may need one.
    const runtime = await import('onnxruntime-node')
    try {
      return new Session(
        runtime,
        await runtime.InferenceSession.create(encodeModel(graph), {
          executionProviders: providersOf(device),
          intraOpNumThreads: threads,
          interOpNumThreads: 1,
          graphOptimizationLevel: 'all',
          enableCpuMemArena: true,
          enableMemPattern: false,
          logSeverityLevel: 3,
          ...(profilePrefix ? { enableProfiling: true, profileFilePrefix: profilePrefix } : {}),
          extra: {
            session: {
              ...(weightsFolder ? { model_external_initializers_file_folder_path: weightsFolder } : {}),
              ...(prepack ? {} : { disable_prepacking: '1' }),
              // else a DequantizeLinear and its product become an 8-bit product, or the weight is widened at load
              disable_quant_qdq: '1',
              disable_qdq_constant_folding: '1',
            },
            optimization: { disable_specified_optimizers: disabled },
          },
        }),
      )
    } catch (cause) {
      throw new EngineError(
        'internal',
        'session_create_failed',
        `the runtime refused the graph: ${text(cause)}`,
        {
          cause,
        },
      )
    }
  }

  /** Runs the graph once. Feeds are read in place; fetched outputs are fresh copies. */
  async run(feeds: Record<string, Tensor>, outputs?: readonly string[]): Promise<Record<string, Tensor>> {
    const inputs: Record<string, ort.Tensor> = {}
    for (const name in feeds) inputs[name] = this.wrap(feeds[name]!)
    try {
      const results = outputs ? await this.session.run(inputs, [...outputs]) : await this.session.run(inputs)
      return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, fromRuntime(value)]))
    } catch (cause) {
      throw new EngineError('internal', 'session_run_failed', `the runtime failed: ${text(cause)}`, { cause })
    }
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
  }

  /** Ends profiling and writes its file. */
  endProfiling(): void {
    this.session.endProfiling()
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

function text(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}
