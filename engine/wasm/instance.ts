import { type WasmFunction, wasmModule } from './assemble.ts'

/** What of WebAssembly is used here; Node's own types leave it to the browser's. */
interface WebAssemblyNamespace {
  Module: new (bytes: Uint8Array<ArrayBuffer>) => object
  Instance: new (module: object) => { exports: unknown }
  Memory: new (limits: { initial: number; maximum: number; shared: true }) => { buffer: SharedArrayBuffer }
}
const { Module, Instance, Memory } = (globalThis as unknown as { WebAssembly: WebAssemblyNamespace })
  .WebAssembly

const PAGE_BYTES = 65_536

export interface WasmMemory {
  readonly buffer: ArrayBuffer
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

/** Grows a memory to at least so many bytes; views on it must be made anew. */
export function reserve(memory: WasmMemory, bytes: number): void {
  const missing = bytes - memory.buffer.byteLength
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES))
}

/** Memory for several threads that begins at a page of the machine's, as disks want it; at least so many bytes. */
export function sharedPages(bytes: number): SharedArrayBuffer {
  const pages = Math.ceil(bytes / PAGE_BYTES)
  return new Memory({ initial: pages, maximum: pages, shared: true }).buffer
}
