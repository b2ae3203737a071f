import { EngineError } from '../errors.ts'
import { isGgufIntType } from '../quant/gguf-int-blocks.ts'
import type { GgufFileType } from './gguf-types.ts'

export const EXPORT_FORMATS = [
  'safetensors',
  'gptq',
  'gguf',
  'onnx',
  'ollama',
  'adapter',
  'adapter-gguf',
] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]

const EXPORT_METHODS = ['rtn', 'gptq', 'awq'] as const
export type ExportMethod = (typeof EXPORT_METHODS)[number]

interface FormatRules {
  /** Widths that the format holds. */
  readonly bits: readonly number[]
  /** Ways of rounding to 4 or 8 bits, the usual one first. */
  readonly methods: readonly ExportMethod[]
  /** Takes an adapter instead of a whole model. */
  readonly adapter?: true
}

export const FORMAT_RULES: Readonly<Record<ExportFormat, FormatRules>> = {
  safetensors: { bits: [16], methods: [] },
  gptq: { bits: [8, 4], methods: ['gptq', 'rtn', 'awq'] },
  gguf: { bits: [16, 8, 4], methods: ['rtn', 'gptq', 'awq'] },
  onnx: { bits: [16, 8, 4], methods: ['rtn', 'gptq', 'awq'] },
  ollama: { bits: [16, 8, 4], methods: ['rtn', 'gptq', 'awq'] },
  adapter: { bits: [16], methods: [], adapter: true },
  'adapter-gguf': { bits: [16], methods: [], adapter: true },
}

/** File types of a GGUF by width, the usual one first; at 16 bits the dtype decides. */
const GGUF_BY_BITS: Readonly<Record<number, readonly GgufFileType[]>> = {
  16: ['BF16', 'F16', 'F32'],
  8: ['Q8_0'],
  4: ['Q4_K_M', 'Q4_0', 'Q4_1'],
}

/** Whether a format is a GGUF file, alone or with a Modelfile. */
export function isGguf(format: ExportFormat): boolean {
  return format === 'gguf' || format === 'ollama'
}

/** @throws EngineError `invalid` for a format and a width that don't exist together, naming those that do. */
export function checkFormatBits(format: ExportFormat, bits: number): void {
  const { bits: known } = FORMAT_RULES[format]
  if (known.includes(bits)) return
  throw mismatch(
    `The format ${format} does not exist at ${bits} bits; it does at ${known.join(', ')}.`,
    'bits',
  )
}

/** The method of an export, undefined at full width. @throws EngineError `invalid` for one that does not go with it. */
export function methodOf(
  format: ExportFormat,
  bits: number,
  method: ExportMethod | undefined,
): ExportMethod | undefined {
  const { methods } = FORMAT_RULES[format]
  if (bits === 16) {
    if (method === undefined) return undefined
    throw mismatch(
      `16 bits are not quantized, so method ${method} has nothing to do; leave it out.`,
      'method',
    )
  }
  if (method === undefined) return methods[0]
  if (methods.includes(method)) return method
  throw mismatch(`The format ${format} takes the methods ${methods.join(', ')}, not ${method}.`, 'method')
}

/**
 * The file type of a GGUF: AWQ rounds only to the types whose blocks are plain integers.
 *
 * @throws EngineError `invalid` when it has another width, does not go with the method, or the format is none.
 */
export function ggufTypeOf(
  format: ExportFormat,
  bits: number,
  dtype: string,
  method: ExportMethod | undefined,
  asked: GgufFileType | undefined,
): GgufFileType | undefined {
  if (!isGguf(format)) {
    if (asked === undefined) return undefined
    throw mismatch(`gguf_type belongs to the formats gguf and ollama, not to ${format}.`, 'gguf_type')
  }
  if (bits === 16) {
    const plain = dtype === 'float32' ? 'F32' : dtype === 'float16' ? 'F16' : 'BF16'
    if (asked === undefined || asked === plain) return plain
  }
  const ofWidth = GGUF_BY_BITS[bits] ?? []
  const known = method === 'awq' ? ofWidth.filter(isGgufIntType) : ofWidth
  if (asked === undefined) return known[0]
  if (known.includes(asked)) return asked
  if (ofWidth.includes(asked)) {
    throw mismatch(`gguf_type ${asked} does not take method ${method}; ${known.join(', ')} do.`, 'gguf_type')
  }
  throw mismatch(`gguf_type ${asked} does not have ${bits} bits; ${ofWidth.join(', ')} do.`, 'gguf_type')
}

function mismatch(message: string, param: string): EngineError {
  return new EngineError('invalid', 'export_mismatch', message, { param })
}
