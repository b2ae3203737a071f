import { MOST_SHARED_PAGES, type WasmFunction, wasmModule } from './assemble.ts'

/** What of WebAssembly is used here; Node's own types leave it to the browser's. */
interface WebAssemblyNamespace {
  Module: new (bytes: Uint8Array<ArrayBuffer>) => object
  Instance: new (module: object, imports?: object) => { exports: unknown }
  Memory: new (limits: { initial: number; maximum: number; shared: true }) => SharedWasmMemory
}
const { Module, Instance, Memory } = (globalThis as unknown as { WebAssembly: WebAssemblyNamespace })
  .WebAssembly

const PAGE_BYTES = 65_536

export interface WasmMemory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}

/** Memory of several threads and instances. Views on it stay as it grows. */
export interface SharedWasmMemory {
  readonly buffer: SharedArrayBuffer
  grow(pages: number): number
}

/** Compiles functions; each call of what it returns makes an instance with a memory of its own. */
export function compileWasm<Functions>(
  functions: readonly WasmFunction[],
): () => Functions & { memory: WasmMemory } {
  let compiled: object | undefined
  return () => {
    compiled ??= new Module(wasmModule(functions))
    return new Instance(compiled).exports as Functions & { memory: WasmMemory }
  }
}

/** Makes an instance of functions in a memory that is there. */
export function instantiateIn<Functions>(
  memory: SharedWasmMemory,
  functions: readonly WasmFunction[],
): Functions {
  return new Instance(new Module(wasmModule(functions, 'shared')), { shared: { memory } })
    .exports as Functions
}

/** Grows a memory to at least so many bytes; views on one that is not shared must be made anew. */
export function reserve(memory: WasmMemory | SharedWasmMemory, bytes: number): void {
  const missing = bytes - memory.buffer.byteLength
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES))
}

/** Memory for several threads that begins at a page of the machine's, as disks want it; at least so many bytes. */
export function sharedPages(bytes: number): SharedArrayBuffer {
  const memory = new Memory({
    initial: Math.ceil(bytes / PAGE_BYTES),
    maximum: MOST_SHARED_PAGES,
    shared: true,
  })
  const { buffer } = memory
  memories.set(buffer, memory)
  return buffer
}

const memories = new WeakMap<object, SharedWasmMemory>()

/** The memory that a buffer of `sharedPages` belongs to; undefined for any other. */
export function sharedMemoryOf(buffer: ArrayBufferLike): SharedWasmMemory | undefined {
  return memories.get(buffer)
}
