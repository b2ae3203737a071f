import type { Graph } from '../graph/graph.ts'
import type { FeedDType, Tensor } from '../tensor.ts'
import type { Device } from './device.ts'
import { DeviceTensor, type Feeds, type RunResults } from './device-tensor.ts'
import { ELEMENT_TYPES, encodeModel } from './encode.ts'
import { updatedInPlace } from './in-place.ts'
import type { OrtApi, Pointer } from './ort-api.ts'
import type { SessionSettings } from './session-settings.ts'

/** Element types by ONNX's numbers, and the arrays that hold them. */
const ARRAYS = {
  float32: Float32Array,
  float16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  int8: Int8Array,
  bool: Uint8Array,
} as const satisfies Record<FeedDType, unknown>

const OPTIMIZE_ALL = 99 // GraphOptimizationLevel
const LOG_WARNINGS = 2 // OrtLoggingLevel
const DEVICE_ALLOCATOR = 0 // OrtAllocatorType
const DEFAULT_MEMORY = 0 // OrtMemType

/** A value of the runtime over a tensor's memory, which must be held as long as there is the value. */
interface Wrapped {
  readonly tensor: Tensor
  readonly value: Pointer
}

/**
 * A graph loaded through onnxruntime's C interface: the way to tensors that stay in CUDA's memory, which the binding cannot
 * leave there. Everything here blocks the thread and throws the runtime's own words.
 */
export class NativeSession {
  readonly #api: OrtApi
  readonly #session: Pointer
  readonly #binding: Pointer
  /** Where fed tensors lie and fetched ones are wanted, and where kept ones stay. */
  readonly #hostMemory: Pointer
  readonly #deviceMemory: Pointer
  readonly #inputs: ReadonlySet<string>
  readonly #outputs: readonly string[]
  readonly #kept: ReadonlySet<string>
  readonly #inPlace: ReadonlyMap<string, string>

  constructor(api: OrtApi, graph: Graph, settings: SessionSettings) {
    const { kept = [] } = settings
    this.#api = api
    this.#session = createSession(api, encodeModel(graph), settings)
    this.#binding = api.result((out) => api.CreateIoBinding(this.#session, out))
    this.#hostMemory = memoryOf(api, { kind: 'cpu' })
    this.#deviceMemory = memoryOf(api, settings.device)
    this.#inputs = new Set(graph.inputs.map(({ name }) => name))
    this.#outputs = graph.outputs.map(({ name }) => name)
    this.#kept = new Set(kept)
    this.#inPlace = updatedInPlace(graph, kept)
  }

  /** Runs the graph once, for all outputs by default. Outputs that are kept need no copy, all others are copied to the host. */
  run(feeds: Feeds, outputs = this.#outputs): RunResults {
    const wrapped: Wrapped[] = []
    try {
      this.#bindInputs(feeds, wrapped)
      this.#bindOutputs(feeds, outputs)
      this.#api.RunWithBinding(this.#session, null, this.#binding)
      return this.#take(outputs)
    } finally {
      this.#api.ClearBoundInputs(this.#binding)
      this.#api.ClearBoundOutputs(this.#binding)
      for (const { value } of wrapped) this.#api.ReleaseValue(value)
    }
  }

  release(): void {
    const api = this.#api
    api.ReleaseIoBinding(this.#binding)
    api.ReleaseSession(this.#session)
    for (const memory of [this.#hostMemory, this.#deviceMemory]) api.ReleaseMemoryInfo(memory)
  }

  /** Ends profiling and writes its file. */
  endProfiling(): void {
    const api = this.#api
    const allocator = api.result((out) => api.GetAllocatorWithDefaultOptions(out))
    const name = api.result((out) => api.SessionEndProfiling(this.#session, allocator, out))
    api.AllocatorFree(allocator, name)
  }

  /** Binds what the graph reads. A GPU is sent what comes from the host now, the CPU reads it in place. */
  #bindInputs(feeds: Feeds, wrapped: Wrapped[]): void {
    for (const [name, feed] of Object.entries(feeds)) {
      if (!this.#inputs.has(name)) continue
      const onDevice = feed instanceof DeviceTensor
      const value = onDevice ? (feed.value as Pointer) : this.#wrap(feed)
      if (!onDevice) wrapped.push({ tensor: feed, value })
      this.#api.BindInput(this.#binding, name, value)
    }
  }

  #bindOutputs(feeds: Feeds, outputs: readonly string[]): void {
    const twice = fedTwice(feeds)
    for (const name of outputs) {
      const target = feeds[this.#inPlace.get(name) ?? '']
      if (target instanceof DeviceTensor && !twice.has(target)) {
        this.#api.BindOutput(this.#binding, name, target.value as Pointer)
      } else {
        const memory = this.#kept.has(name) ? this.#deviceMemory : this.#hostMemory
        this.#api.BindOutputToDevice(this.#binding, name, memory)
      }
    }
  }

  /** A value over a tensor's own memory. */
  #wrap({ dtype, dims, data }: Tensor): Pointer {
    const api = this.#api
    const shape = BigInt64Array.from(dims, BigInt)
    const address = api.addressOf(data.length > 0 ? data : shape) // an empty array lies nowhere
    const [type, memory] = [ELEMENT_TYPES[dtype], this.#hostMemory]
    return api.result((out) =>
      api.CreateTensorWithDataAsOrtValue(memory, address, data.byteLength, shape, dims.length, type, out),
    )
  }

  /** The outputs of the run, in the order in which they were bound. */
  #take(outputs: readonly string[]): RunResults {
    const api = this.#api
    const allocator = api.result((out) => api.GetAllocatorWithDefaultOptions(out))
    const count = new BigUint64Array(1)
    const list = api.result((out) => api.GetBoundOutputValues(this.#binding, allocator, out, count))
    const pointers = new BigUint64Array(api.read(list, 8 * outputs.length).buffer)
    api.AllocatorFree(allocator, list)
    const results: Record<string, Tensor> = {}
    const kept: Record<string, DeviceTensor> = {}
    for (const [index, name] of outputs.entries()) {
      const value = pointers[index]!
      const { dtype, dims } = this.#formOf(value)
      if (this.#kept.has(name)) {
        kept[name] = new DeviceTensor(dtype, dims, value, () => api.ReleaseValue(value))
      } else {
        results[name] = { dtype, dims, data: this.#copyOf(value, dtype, dims) }
        api.ReleaseValue(value)
      }
    }
    return { results, kept }
  }

  #formOf(value: Pointer): { dtype: FeedDType; dims: number[] } {
    const api = this.#api
    const info = api.result((out) => api.GetTensorTypeAndShape(value, out))
    const type = Number(api.result((out) => api.GetTensorElementType(info, out)))
    const rank = Number(api.result((out) => api.GetDimensionsCount(info, out)))
    const dims = new BigInt64Array(rank)
    api.GetDimensions(info, dims, rank)
    api.ReleaseTensorTypeAndShapeInfo(info)
    const dtype = Object.keys(ARRAYS).find((name) => ELEMENT_TYPES[name as FeedDType] === type) as FeedDType
    return { dtype, dims: Array.from(dims, Number) }
  }

  #copyOf(value: Pointer, dtype: FeedDType, dims: readonly number[]): Tensor['data'] {
    const from = this.#api.result((out) => this.#api.GetTensorMutableData(value, out))
    const count = dims.reduce((product, dim) => product * dim, 1)
    const array = ARRAYS[dtype]
    if (count === 0) return new array(0)
    return new array(this.#api.read(from, count * array.BYTES_PER_ELEMENT).buffer)
  }
}

/** Tensors that several inputs are fed with, of which none may be written to. */
function fedTwice(feeds: Feeds): ReadonlySet<unknown> {
  const once = new Set<unknown>()
  const twice = new Set<unknown>()
  for (const feed of Object.values(feeds)) {
    if (once.has(feed)) twice.add(feed)
    once.add(feed)
  }
  return twice
}

function createSession(api: OrtApi, model: Uint8Array, settings: SessionSettings): Pointer {
  // the process has one, which the binding shares; it is never released
  const environment = api.result((out) => api.CreateEnv(LOG_WARNINGS, 'anneal', out))
  const options = api.result((out) => api.CreateSessionOptions(out))
  try {
    api.SetIntraOpNumThreads(options, settings.threads)
    api.SetInterOpNumThreads(options, 1)
    api.SetSessionGraphOptimizationLevel(options, OPTIMIZE_ALL)
    api.SetSessionLogSeverityLevel(options, settings.logLevel)
    api.DisableMemPattern(options)
    if (settings.profilePrefix !== undefined) api.EnableProfiling(options, settings.profilePrefix)
    for (const [key, value] of Object.entries(settings.entries))
      api.AddSessionConfigEntry(options, key, value)
    if (settings.device.kind === 'cuda') appendCuda(api, options, settings.device)
    return api.result((out) => api.CreateSessionFromArray(environment, model, model.length, options, out))
  } finally {
    api.ReleaseSessionOptions(options)
  }
}

function appendCuda(api: OrtApi, options: Pointer, { index = 0 }: Device): void {
  const cuda = api.result((out) => api.CreateCUDAProviderOptions(out))
  try {
    api.UpdateCUDAProviderOptions(cuda, ['device_id'], [String(index)], 1)
    api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda)
  } finally {
    api.ReleaseCUDAProviderOptions(cuda)
  }
}

function memoryOf(api: OrtApi, { kind, index = 0 }: Device): Pointer {
  const name = kind === 'cuda' ? 'Cuda' : 'Cpu'
  return api.result((out) => api.CreateMemoryInfo(name, DEVICE_ALLOCATOR, index, DEFAULT_MEMORY, out))
}
