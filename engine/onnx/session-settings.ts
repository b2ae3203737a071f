import type { Graph } from '../graph/graph.ts'
import type { LoweredGraph } from '../graph/lower.ts'
import { type Device, keepsNatively, keepsTensors } from './device.ts'

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
   * Outputs that stay in the device's memory, to be fed again (WebGPU, CUDA; the CPU's come back). Sessions that are fed with
   * tensors of the device name it, too, if only an empty list. An output that is one of the inputs with rows scattered
   * into it may be written in that input's memory (in-place.ts): what was fed there must not be read any more.
   */
  keepOnDevice?: readonly string[]
  /** Write a chrome-trace profile with this prefix. */
  profilePrefix?: string
  /** What makes the graph ready for the device in place of graph/lower.ts, for tests; the runtime's refusals are then quiet. */
  lowering?: (graph: Graph) => LoweredGraph
}

/** What onnxruntime is told of a session, whichever way it is made. */
export interface SessionSettings {
  readonly device: Device
  readonly threads: number
  /** onnxruntime's levels: 3 logs errors, 4 nothing but what ends the process. */
  readonly logLevel: 3 | 4
  readonly profilePrefix: string | undefined
  /** Names of outputs that stay on the device; undefined for a session that knows of no tensors there. */
  readonly kept: readonly string[] | undefined
  /** Whether the session is made through the C interface. */
  readonly native: boolean
  /** Configuration entries, by their keys in onnxruntime_session_options_config_keys.h. */
  readonly entries: Readonly<Record<string, string>>
}

/** Merges recomputed activations with the first ones, which keeps them all alive. */
const MERGE_DUPLICATES = 'CommonSubexpressionElimination'
/** Turns mapped bf16 weights into float32 copies at load. */
const FOLD_CONSTANTS = 'ConstantFolding'

/** @param fallbacks nodes that the device table has no kernel for; without any, none may run on the CPU */
export function settingsOf(
  device: Device,
  fallbacks: readonly string[],
  options: SessionOptions,
): SessionSettings {
  const { weightsFolder, threads = 0, prepack = false, keepOnDevice, profilePrefix } = options
  // WebGPU has no bf16: its weights are always widened at load
  const { foldWeights = device.kind === 'webgpu' } = options
  const kept = keepsTensors(device) ? keepOnDevice : undefined
  // a node that the device table promises a kernel for must not silently run on the CPU
  const strict = device.kind !== 'cpu' && fallbacks.length === 0
  return {
    device,
    threads,
    logLevel: options.lowering ? 4 : 3,
    profilePrefix,
    kept,
    native: kept !== undefined && keepsNatively(device),
    entries: {
      ...(weightsFolder ? { 'session.model_external_initializers_file_folder_path': weightsFolder } : {}),
      ...(prepack ? {} : { 'session.disable_prepacking': '1' }),
      ...(strict ? { 'session.disable_cpu_ep_fallback': '1' } : {}),
      // else weights lie in the arena, which grows by powers of two: up to twice their memory
      ...(device.kind === 'cuda' ? { 'session.use_device_allocator_for_initializers': '1' } : {}),
      // else a DequantizeLinear and its product become an 8-bit product, or the weight is widened at load
      'session.disable_quant_qdq': '1',
      'session.disable_qdq_constant_folding': '1',
      'optimization.disable_specified_optimizers': foldWeights
        ? MERGE_DUPLICATES
        : `${MERGE_DUPLICATES};${FOLD_CONSTANTS}`,
    },
  }
}
