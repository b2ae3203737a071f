import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { OrderedBlocks } from '../packed/gptq-reader.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { type PlannedTensor, WeightFolder, writeSafetensors } from '../weights/safetensors.ts'
import type { PackedBlocks } from './gguf-codes-k.ts'

/** A quantized layer on disk: blocks by module path, and tensors that the method changed, in float32. */
export interface QuantizedLayer {
  readonly matrices: ReadonlyMap<string, OrderedBlocks>
  /** Norms and weights that a method rescaled, by tensor name. */
  readonly changed: ReadonlyMap<string, { shape: readonly number[]; values: Float32Array }>
  /** Matrices that stand in a GGUF file's blocks already, by module path. */
  readonly packed: ReadonlyMap<string, PackedBlocks>
}

/**
 * Quantized layers, one file each, that appear whole: what a restarted export finds and need not compute again. A file
 * `settings.json` says what they were made with; with other settings the folder starts anew.
 */
export class QuantizedLayers {
  readonly folder: string

  constructor(folder: string, settings: unknown) {
    this.folder = folder
    const path = join(folder, 'settings.json')
    const wanted = JSON.stringify(settings)
    if (existsSync(path) && readFileSync(path, 'utf8') !== wanted) rmSync(folder, { recursive: true })
    mkdirSync(folder, { recursive: true })
    writeFileDurably(path, wanted)
  }

  has(layer: number): boolean {
    return existsSync(join(this.folder, fileOf(layer)))
  }

  write(layer: number, { matrices, changed, packed }: QuantizedLayer): void {
    const tensors: (PlannedTensor & { data: Uint8Array })[] = []
    const add = (
      name: string,
      dtype: PlannedTensor['dtype'],
      shape: readonly number[],
      data: ArrayBufferView,
    ) =>
      tensors.push({
        name,
        dtype,
        shape,
        data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      })
    const shapes: Record<string, string> = {}
    for (const [path, { blocks, order }] of matrices) {
      const { bits, rows, columns, blockSize, codes, scales, zeros } = blocks
      shapes[path] = JSON.stringify({ bits, rows, columns, blockSize })
      add(`${path}:codes`, 'U8', [codes.length], codes)
      add(`${path}:scales`, 'F32', [scales.length], scales)
      add(`${path}:zeros`, 'U8', [zeros.length], zeros)
      if (order) add(`${path}:order`, 'I32', [order.length], order)
    }
    for (const [name, { shape, values }] of changed) add(`changed:${name}`, 'F32', shape, values)
    for (const [path, { type, bytes }] of packed) add(`packed:${type}:${path}`, 'U8', [bytes.length], bytes)
    writeSafetensors(join(this.folder, fileOf(layer)), tensors, shapes)
  }

  read(layer: number): QuantizedLayer {
    const file = WeightFolder.open(this.folder, { fileName: fileOf(layer) })
    try {
      const matrices = new Map<string, OrderedBlocks>()
      for (const [path, text] of Object.entries(file.metadata)) {
        const order = file.has(`${path}:order`) ? ints(file.readRaw(`${path}:order`)) : undefined
        const blocks = {
          ...(JSON.parse(text) as { bits: 4 | 8; rows: number; columns: number; blockSize: number }),
          codes: file.readRaw(`${path}:codes`),
          scales: file.readFloat32(`${path}:scales`),
          zeros: file.readRaw(`${path}:zeros`),
        }
        matrices.set(path, { blocks, order })
      }
      const changed = new Map<string, { shape: readonly number[]; values: Float32Array }>()
      for (const [name, { shape }] of file.entries) {
        if (!name.startsWith('changed:')) continue
        changed.set(name.slice('changed:'.length), { shape, values: file.readFloat32(name) })
      }
      const packed = new Map<string, PackedBlocks>()
      for (const name of file.entries.keys()) {
        const [, type, path] = /^packed:(\w+):(.+)$/.exec(name) ?? []
        if (path) packed.set(path, { type: type as PackedBlocks['type'], bytes: file.readRaw(name) })
      }
      return { matrices, changed, packed }
    } finally {
      file.close()
    }
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

function fileOf(layer: number): string {
  return `layer-${String(layer).padStart(4, '0')}.safetensors`
}

function ints(bytes: Uint8Array): Int32Array {
  const copy = bytes.slice()
  return new Int32Array(copy.buffer)
}
