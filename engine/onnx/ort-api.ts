import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError, messageOf } from '../errors.ts'

/** A pointer into the process's memory; koffi gives null for none. */
export type Pointer = bigint

type Argument = Pointer | number | string | readonly string[] | NodeJS.TypedArray | null

/** A field of `OrtApi`: where it stands, counted in pointers, and what it takes. */
type Signature = readonly [index: number, ...parameters: string[]]

/**
 * Version of the interface that the numbers below belong to: the struct `OrtApi` in onnxruntime_c_api.h with ORT_API_VERSION 24,
 * taken with offsetof from the copy that the Go module github.com/yalue/onnxruntime_go 1.27.0 carries. Fields are only
 * ever added at its end (static assertions in onnxruntime_c_api.cc), and the runtime gives every version up to its own.
 */
const API_VERSION = 24

/** Functions that return a status: null, or an error to be read and released. */
const CALLS = {
  CreateEnv: [3, 'int', 'str', 'void *'],
  CreateSessionFromArray: [8, 'void *', 'void *', 'size_t', 'void *', 'void *'],
  CreateSessionOptions: [10, 'void *'],
  EnableProfiling: [14, 'void *', 'str'],
  DisableMemPattern: [17, 'void *'],
  SetSessionLogSeverityLevel: [22, 'void *', 'int'],
  SetSessionGraphOptimizationLevel: [23, 'void *', 'int'],
  SetIntraOpNumThreads: [24, 'void *', 'int'],
  SetInterOpNumThreads: [25, 'void *', 'int'],
  CreateTensorWithDataAsOrtValue: [49, 'void *', 'void *', 'size_t', 'void *', 'size_t', 'int', 'void *'],
  GetTensorMutableData: [51, 'void *', 'void *'],
  GetTensorElementType: [60, 'void *', 'void *'],
  GetDimensionsCount: [61, 'void *', 'void *'],
  GetDimensions: [62, 'void *', 'void *', 'size_t'],
  GetTensorTypeAndShape: [65, 'void *', 'void *'],
  CreateMemoryInfo: [68, 'str', 'int', 'int', 'int', 'void *'],
  AllocatorFree: [76, 'void *', 'void *'],
  GetAllocatorWithDefaultOptions: [78, 'void *'],
  SessionEndProfiling: [110, 'void *', 'void *', 'void *'],
  AddSessionConfigEntry: [130, 'void *', 'str', 'str'],
  RunWithBinding: [133, 'void *', 'void *', 'void *'],
  CreateIoBinding: [134, 'void *', 'void *'],
  BindInput: [136, 'void *', 'str', 'void *'],
  BindOutput: [137, 'void *', 'str', 'void *'],
  BindOutputToDevice: [138, 'void *', 'str', 'void *'],
  GetBoundOutputValues: [140, 'void *', 'void *', 'void *', 'void *'],
  SessionOptionsAppendExecutionProvider_CUDA_V2: [204, 'void *', 'void *'],
  CreateCUDAProviderOptions: [205, 'void *'],
  UpdateCUDAProviderOptions: [206, 'void *', 'str *', 'str *', 'size_t'],
} as const satisfies Record<string, Signature>

/** Functions that release something, and return nothing. */
const RELEASES = {
  ReleaseStatus: [93, 'void *'],
  ReleaseMemoryInfo: [94, 'void *'],
  ReleaseSession: [95, 'void *'],
  ReleaseValue: [96, 'void *'],
  ReleaseTensorTypeAndShapeInfo: [99, 'void *'],
  ReleaseSessionOptions: [100, 'void *'],
  ReleaseIoBinding: [135, 'void *'],
  ClearBoundInputs: [141, 'void *'],
  ClearBoundOutputs: [142, 'void *'],
  ReleaseCUDAProviderOptions: [208, 'void *'],
} as const satisfies Record<string, Signature>

const GET_ERROR_MESSAGE = 2

type Functions = Record<keyof typeof CALLS | keyof typeof RELEASES, (...values: Argument[]) => void>

/** onnxruntime's C interface; its functions throw an Error with the runtime's words where they fail. */
export interface OrtApi extends Functions {
  /** The library's version, such as 1.30.0. */
  readonly version: string
  /** Held here, since koffi unloads what nobody holds. */
  readonly library: object
  /** Where an array's elements lie; they stay there as long as the array is held. */
  addressOf(array: NodeJS.TypedArray): Pointer
  /** A copy of `count` bytes. */
  read(from: Pointer, count: number): Uint8Array<ArrayBuffer>
  /** What a function gives back through the pointer that `call` passes it. */
  result(call: (out: BigUint64Array) => void): Pointer
}

let loaded: Promise<OrtApi> | undefined

/**
 * The interface of the library that onnxruntime-node has loaded from `folder`, once.
 * @throws EngineError unavailable 'native_interface_missing' where koffi has no binary for this platform.
 */
export function loadOrtApi(folder: string): Promise<OrtApi> {
  loaded ??= open(folder)
  return loaded
}

async function open(folder: string): Promise<OrtApi> {
  const { load, decode, proto, address } = await importKoffi()
  const library = load(join(folder, libraryIn(folder)))
  const base = library.func('void *OrtGetApiBase()')() as Pointer
  const call = (struct: Pointer, index: number, result: string, parameters: readonly string[]) =>
    decode(decode(struct, 8 * index, 'void *') as Pointer, proto(`${result} (${parameters.join(', ')})`)) as (
      ...values: Argument[]
    ) => unknown
  const api = call(base, 0, 'void *', ['uint32_t'])(API_VERSION) as Pointer
  const message = call(api, GET_ERROR_MESSAGE, 'str', ['void *'])
  const functions: Partial<Functions> = {}
  for (const [name, [index, ...parameters]] of Object.entries<Signature>(RELEASES)) {
    functions[name as keyof typeof RELEASES] = call(api, index, 'void', parameters) as () => void
  }
  for (const [name, [index, ...parameters]] of Object.entries<Signature>(CALLS)) {
    const native = call(api, index, 'void *', parameters)
    functions[name as keyof typeof CALLS] = (...values) => {
      const status = native(...values) as Pointer | null
      if (status === null) return
      const text = message(status) as string
      functions.ReleaseStatus!(status)
      throw new Error(text)
    }
  }
  return {
    ...(functions as Functions),
    library,
    version: call(base, 1, 'str', [])() as string,
    addressOf: (array) => address(array) as Pointer,
    read: (from, count) => decode(from, 'uint8', count) as Uint8Array<ArrayBuffer>,
    result(call) {
      const out = new BigUint64Array(1)
      call(out)
      return out[0]!
    },
  }
}

async function importKoffi() {
  try {
    return await import('koffi')
  } catch (cause) {
    const message =
      `Keys and values cannot stay on the device: the package koffi does not load on ${process.platform} ${process.arch} ` +
      `(${messageOf(cause)}). Install again with optional dependencies (npm install --include=optional).`
    throw new EngineError('unavailable', 'native_interface_missing', message, { param: 'device', cause })
  }
}

/** libonnxruntime.so.1, libonnxruntime.1.30.0.dylib or onnxruntime.dll. */
function libraryIn(folder: string): string {
  const name = readdirSync(folder).find((file) =>
    /^(lib)?onnxruntime(\.[\d.]*dylib|\.so\.1|\.dll)$/.test(file),
  )
  if (name === undefined) throw new Error(`${folder} holds no library of onnxruntime`)
  return name
}
