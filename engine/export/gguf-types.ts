import type { GgufSource } from '../gguf/tensors.ts'
import type { BlockFormat } from '../quant/block-format.ts'
import { type GgufBlockType, ggufBlocks } from '../quant/gguf-blocks.ts'
import type { WeightDType } from '../weights/dtypes.ts'

/** What a GGUF file's matrices are made of, as llama-quantize names it. */
const GGUF_TYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K_M'] as const
export type GgufFileType = (typeof GGUF_TYPES)[number]

/** `general.file_type` (llama.h, enum llama_ftype). */
export const FILE_TYPE_NUMBERS: Readonly<Record<GgufFileType, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q4_K_M: 15,
  BF16: 32,
}

/** The name of a file's general.file_type; undefined for one that is not written here. */
export function ggufFileTypeName(number: unknown): string | undefined {
  return Object.entries(FILE_TYPE_NUMBERS).find(([, known]) => known === number)?.[0]
}

/** How one tensor is stored: plain numbers or packed blocks. */
export type GgufStorage =
  | { readonly ggmlType: number; readonly dtype: WeightDType }
  | ({ readonly type: GgufBlockType } & BlockFormat)

const PLAIN = {
  F32: { ggmlType: 0, dtype: 'float32' },
  F16: { ggmlType: 1, dtype: 'float16' },
  BF16: { ggmlType: 30, dtype: 'bfloat16' },
} as const

/**
 * The storage of a tensor in a file of a type, after llama.cpp's own choices (llama-quant.cpp): vectors stay float32, the
 * output matrix of a 4-bit file has 6 bits, and Q4_K_M gives 6 bits to half of the value and down projections. A matrix
 * whose rows are no whole super-blocks of 256 takes the simple type of the next larger size instead.
 */
export function storageOf(tensor: GgufSource, type: GgufFileType, layers: number): GgufStorage {
  if (tensor.role === 'vector') return PLAIN.F32
  if (type === 'F32' || type === 'F16' || type === 'BF16') return PLAIN[type]
  return blocks(fitting(blockTypeOf(tensor, type, layers), tensor.shape.at(-1)!))
}

function blockTypeOf({ role, layer = 0 }: GgufSource, type: GgufFileType, layers: number): GgufBlockType {
  if (type === 'Q8_0') return 'Q8_0'
  if (role === 'output') return 'Q6_K'
  if (type === 'Q4_0' || type === 'Q4_1') return type
  const fine = (role === 'value' || role === 'down') && hasMoreBits(layer, layers)
  return fine ? 'Q6_K' : 'Q4_K'
}

/** The first and the last eighth of the layers and every third between. */
function hasMoreBits(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8)
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2
}

function fitting(type: GgufBlockType, columns: number): GgufBlockType | 'F16' {
  if (columns % ggufBlocks[type].blockSize === 0) return type
  const simple = type === 'Q4_K' ? 'Q4_1' : type === 'Q6_K' ? 'Q8_0' : type
  return columns % ggufBlocks[simple].blockSize === 0 ? simple : 'F16'
}

function blocks(type: GgufBlockType | 'F16'): GgufStorage {
  return type === 'F16' ? PLAIN.F16 : { type, ...ggufBlocks[type] }
}

/** Bytes of a tensor in a storage. */
export function storedBytes(shape: readonly number[], storage: GgufStorage): number {
  const elements = shape.reduce((product, dim) => product * dim, 1)
  if ('type' in storage) return (elements / storage.blockSize) * storage.blockBytes
  return elements * (storage.dtype === 'float32' ? 4 : 2)
}
