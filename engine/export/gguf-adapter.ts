import { join } from 'node:path'
import { type LoraModule, readAdapter } from '../adapter/peft.ts'
import { EngineError } from '../errors.ts'
import type { GgufSource } from '../gguf/tensors.ts'
import { openModel } from '../models/index.ts'
import { checkRange, encodeFloat32, type WeightDType } from '../weights/dtypes.ts'
import { interleaveHalves } from './gguf.ts'
import { ggufModel } from './gguf-architecture.ts'
import { type GgufMetadataValue, GgufWriter } from './gguf-writer.ts'

export interface AdapterGgufOptions {
  modelFolder: string
  adapterFolder: string
  dtype: WeightDType
}

/** ggml's number of each element type. */
const GGML_TYPES: Record<WeightDType, number> = { float32: 0, float16: 1, bfloat16: 30 }

/**
 * Writes a LoRA adapter as llama.cpp reads it (`--lora`; convert_lora_to_gguf.py): `<tensor>.lora_a` [rank, in] and
 * `<tensor>.lora_b` [out, rank] by the base's GGUF names, scaled by adapter.lora.alpha / rank.
 *
 * @returns the file's name.
 * @throws EngineError `unsupported` for DoRA, weights trained as a whole, and modules without a place in GGUF.
 */
export async function writeAdapterGguf(
  folder: string,
  { modelFolder, adapterFolder, dtype }: AdapterGgufOptions,
): Promise<{ name: string; sha256: string }> {
  const adapter = readAdapter(adapterFolder)
  if (adapter.saved.size > 0) throw unsupported(`the whole weight ${[...adapter.saved.keys()][0]}`)
  const model = openModel(modelFolder)
  try {
    const { architecture, tensors } = ggufModel(model)
    const places = new Map(tensors.flatMap((tensor) => wholeTensor(tensor)))
    const alpha = adapter.config.lora_alpha
    const parts = [...adapter.modules].flatMap(([path, module]) =>
      moduleParts(path, module, places.get(`${path}.weight`), alpha, dtype),
    )
    const metadata = new Map<string, GgufMetadataValue>([
      ['general.architecture', { text: architecture }],
      ['general.type', { text: 'adapter' }],
      ['general.name', { text: 'adapter' }],
      ['adapter.type', { text: 'lora' }],
      ['adapter.lora.alpha', { f32: alpha }],
    ])
    const name = 'adapter.gguf'
    const writer = await GgufWriter.create(join(folder, name), metadata, parts)
    try {
      for (const part of parts) await writer.append(part.name, part.bytes)
      return { name, sha256: await writer.finish() }
    } catch (error) {
      await writer.abort()
      throw error
    }
  } finally {
    model.weights.close()
  }
}

/** A tensor by its name in the checkpoint, where it is one tensor there too. */
function wholeTensor(tensor: GgufSource): [string, GgufSource][] {
  const { from } = tensor
  return from instanceof Float32Array || from.length > 1 ? [] : [[from[0]!.name, tensor]]
}

function moduleParts(
  path: string,
  { a, aShape, b, bShape, scale, magnitude }: LoraModule,
  place: GgufSource | undefined,
  alpha: number,
  dtype: WeightDType,
) {
  if (magnitude) throw unsupported('DoRA')
  if (!place) throw unsupported(`the module ${path}`)
  const [rank] = aShape
  // llama.cpp multiplies by alpha / rank; what another rule scales by is put into B.
  const factor = (scale * rank) / alpha
  const scaled = factor === 1 ? b : b.map((value) => value * factor)
  const { interleavedRows } = place
  const rows = interleavedRows === undefined ? scaled : interleaveHalves(scaled, interleavedRows, rank)
  const part = (suffix: string, shape: readonly number[], values: Float32Array) => {
    const name = `${place.name}.${suffix}`
    checkRange(name, values, dtype)
    const bytes = encodeFloat32(values, dtype)
    return { name, shape, ggmlType: GGML_TYPES[dtype], byteLength: bytes.length, bytes }
  }
  return [part('lora_a', aShape, a), part('lora_b', bShape, rows)]
}

function unsupported(what: string): EngineError {
  return new EngineError(
    'unsupported',
    'adapter_gguf_unsupported',
    `llama.cpp's LoRA files cannot hold ${what}; merge the adapter and export the merge as gguf`,
    { param: 'format' },
  )
}
