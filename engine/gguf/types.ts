import { EngineError } from '../errors.ts'
import type { GgufCursor } from './cursor.ts'

/** A tensor type that is read here. */
export interface GgufType {
  name: 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q4_1' | 'Q4_K' | 'Q6_K'
  /** Elements of one block. */
  blockSize: number
  blockBytes: number
}

/** By number in the file (ggml.h, enum ggml_type; block layouts in ggml-common.h). */
const TYPES: Record<number, GgufType> = {
  0: { name: 'F32', blockSize: 1, blockBytes: 4 },
  1: { name: 'F16', blockSize: 1, blockBytes: 2 },
  2: { name: 'Q4_0', blockSize: 32, blockBytes: 18 },
  3: { name: 'Q4_1', blockSize: 32, blockBytes: 20 },
  8: { name: 'Q8_0', blockSize: 32, blockBytes: 34 },
  12: { name: 'Q4_K', blockSize: 256, blockBytes: 144 },
  14: { name: 'Q6_K', blockSize: 256, blockBytes: 210 },
  30: { name: 'BF16', blockSize: 1, blockBytes: 2 },
}

/** Types that other files have, named so that the refusal can name them. */
const OTHERS: Record<number, string> = {
  6: 'Q5_0',
  7: 'Q5_1',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  13: 'Q5_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
}

/** The type with a number. @throws EngineError `unsupported` naming tensor and type. */
export function tensorTypeOf(cursor: GgufCursor, number: number, tensor: string): GgufType {
  const type = TYPES[number]
  if (type) return type
  const supported = Object.values(TYPES).map(({ name }) => name)
  throw new EngineError(
    'unsupported',
    'gguf_type_unsupported',
    `${cursor.path}: the tensor ${JSON.stringify(tensor.slice(0, 100))} is ${OTHERS[number] ?? `of type ${number}`}; ` +
      `${supported.join(', ')} are read`,
  )
}
