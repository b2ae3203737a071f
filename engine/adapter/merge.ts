import { EngineError } from '../errors.ts'
import { type SharedWasmMemory, sharedMemoryOf } from '../wasm/instance.ts'
import type { WeightDType } from '../weights/dtypes.ts'
import { readModelConfig } from '../weights/model-files.ts'
import { type Adjust, type ByteProgress, type RowAdjust, writeModel } from '../weights/model-writer.ts'
import { WeightFolder } from '../weights/safetensors.ts'
import type { StreamOptions } from '../weights/streamed-file.ts'
import { requireFit } from './fit.ts'
import { fitsKernel, LoraKernel } from './lora-kernel.ts'
import { type LoraAdapter, type LoraModule, readAdapter } from './peft.ts'

export interface MergeOptions extends StreamOptions {
  baseFolder: string
  /** A PEFT folder, or several that are added one after another; without one the base is copied. */
  adapterFolder?: string | readonly string[]
  /** What to do with tensors after that, by name. */
  adjust?: ReadonlyMap<string, Adjust>
  /** Must not exist, or be empty. */
  outputFolder: string
  /** Every tensor is cast to it; without it each keeps its own. */
  dtype?: WeightDType | undefined
  /** Most bytes of tensors in one file; 5 GB by default. */
  shardBytes?: number
  /** Adds files to the folder before it appears. */
  finish?: (partial: string, digests: ReadonlyMap<string, string>) => Promise<void>
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/**
 * Adds an adapter to its base, W' = W + scale · B·A (DoRA: its rows brought to their magnitudes), puts whole weights that
 * it holds in place of the base's, computed in float32 or better and written in the base's dtype. A few rows at a
 * time are in memory, and the output folder appears whole or not at all.
 *
 * @returns the bytes of the merged weights.
 * @throws EngineError `invalid` listing every module that the base doesn't have or that has another shape, or naming a
 *   tensor whose result is not finite; `unsupported` for an adapter on tied embeddings; and what writeModel throws.
 */
export async function mergeAdapter(options: MergeOptions): Promise<number> {
  const { baseFolder, adapterFolder = [], adjust: last = new Map(), ...rest } = options
  const adjust = new Map<string, Adjust>()
  const kernel = new ModuleKernel()
  const then = (name: string, next: Adjust) => {
    const before = adjust.get(name)
    adjust.set(name, before ? inTurn(before, next) : next)
  }
  for (const folder of [adapterFolder].flat()) {
    const adapter = readAdapter(folder)
    checkFits(baseFolder, adapter)
    for (const [name, { data }] of adapter.saved) then(name, (values) => values.set(data))
    for (const [path, module] of adapter.modules) then(`${path}.weight`, mergeOf(module, kernel))
  }
  for (const [name, next] of last) then(name, next)
  return writeModel({ modelFolder: baseFolder, adjust, ...rest })
}

/** One change of a tensor after the other; both see the whole tensor. */
function inTurn(...steps: readonly Adjust[]): Adjust {
  return (values) => {
    for (const step of steps) {
      if (typeof step === 'function') step(values)
      else step.rows(values, 0)
    }
  }
}

/** weight[out, in] += scale · b[out, r] · a[r, in]; a row's sum is kept in float64 and rounded once. */
export function addProduct(
  weight: Float32Array,
  { a, aShape, b, scale }: Pick<LoraModule, 'a' | 'aShape' | 'b' | 'scale'>,
): void {
  const [rank, columns] = aShape
  const delta = new Float64Array(columns)
  for (let row = 0; row * columns < weight.length; row++) {
    delta.fill(0)
    for (let r = 0; r < rank; r++) {
      const factor = scale * b[row * rank + r]!
      const start = r * columns
      for (let column = 0; column < columns; column++) delta[column]! += factor * a[start + column]!
    }
    const start = row * columns
    for (let column = 0; column < columns; column++) weight[start + column]! += delta[column]!
  }
}

/** The 2-norm of each row of weight [rows, columns], summed in double precision. */
export function rowNorms(weight: Float32Array, columns: number): Float64Array {
  return Float64Array.from({ length: weight.length / columns }, (_, row) => {
    let sum = 0
    for (let i = row * columns; i < (row + 1) * columns; i++) sum += weight[i]! * weight[i]!
    return Math.sqrt(sum)
  })
}

/** One kernel for all modules, which come one after the other, in the memory in which their rows lie. */
class ModuleKernel {
  #kernel: LoraKernel | undefined
  #memory: SharedWasmMemory | undefined
  #loaded: LoraModule | undefined

  add(module: LoraModule, bits: Uint16Array, firstRow: number): boolean {
    const { a, b, aShape, scale } = module
    const [rank, columns] = aShape
    const memory = sharedMemoryOf(bits.buffer)
    if (!this.#kernel || this.#memory !== memory) {
      this.#kernel = new LoraKernel(memory)
      this.#memory = memory
      this.#loaded = undefined
    }
    if (this.#loaded !== module) this.#kernel.load(a, rank, columns)
    this.#loaded = module
    return this.#kernel.add(bits, b.subarray(firstRow * rank), scale)
  }
}

/** What an adapter makes of a weight [out, in]: W + s·B·A, and for DoRA m / ‖W + s·B·A‖ times that, row by row. */
function mergeOf(module: LoraModule, kernel: ModuleKernel): RowAdjust {
  const { b, aShape, magnitude } = module
  const [rank, columns] = aShape
  return {
    rows(weight, firstRow) {
      addProduct(weight, { ...module, b: b.subarray(firstRow * rank) })
      if (magnitude) scaleRows(weight, magnitude.subarray(firstRow), columns)
    },
    ...(magnitude || !fitsKernel(columns)
      ? {}
      : { bfloat16Rows: (bits: Uint16Array, firstRow: number) => kernel.add(module, bits, firstRow) }),
  }
}

function scaleRows(weight: Float32Array, magnitude: Float32Array, columns: number): void {
  const norms = rowNorms(weight, columns)
  for (let i = 0; i < weight.length; i++) {
    const row = Math.floor(i / columns)
    weight[i] = (weight[i]! * magnitude[row]!) / norms[row]!
  }
}

function checkFits(baseFolder: string, adapter: LoraAdapter): void {
  const base = WeightFolder.open(baseFolder)
  try {
    checkNotTied(baseFolder, base, adapter)
    requireFit(adapter, (path) => base.entries.get(`${path}.weight`)?.shape, baseFolder)
    for (const [name, { shape }] of adapter.saved) {
      const found = base.entries.get(name)?.shape
      if (found?.join() === shape.join()) continue
      const there = found ? `is [${found}] in the base, but [${shape}] in the adapter` : 'is not in the base'
      throw new EngineError(
        'invalid',
        'adapter_mismatch',
        `the adapter does not fit the base ${baseFolder}: ${name} ${there}`,
        {
          param: 'adapter',
        },
      )
    }
  } finally {
    base.close()
  }
}

/** Tied, one matrix is both the embedding and the head: a merge into either would change the other as well. */
function checkNotTied(baseFolder: string, base: WeightFolder, adapter: LoraAdapter): void {
  const tied = readModelConfig(baseFolder).tie_word_embeddings === true || !base.has('lm_head.weight')
  const changed = [
    ...adapter.modules.keys(),
    ...[...adapter.saved.keys()].map((name) => name.replace(/\.weight$/, '')),
  ]
  const target = changed.find((path) => /(^|\.)(lm_head|embed_tokens)$/.test(path))
  if (!tied || target === undefined || adapter.config.ensure_weight_tying) return
  throw new EngineError(
    'unsupported',
    'adapter_on_tied_embeddings',
    `the adapter changes ${target}, but in ${baseFolder} the output head and the token embedding are one tied matrix: ` +
      'merging it would change both. Train without lm_head and embed_tokens among the targets',
    { param: 'adapter' },
  )
}
