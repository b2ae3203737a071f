import { elementCount } from '../tensor.ts'
import { checkCancelled } from './atomic-folder.ts'
import { checkRange, decodeFloat32, encodeFloat32, type WeightDType } from './dtypes.ts'
import type { PlannedTensor, SafetensorsWriter, WeightFolder } from './safetensors.ts'

/** Changes a tensor's values in place on their way from one folder to another, whole or a few rows at a time. */
export type Adjust = ((values: Float32Array) => void) | RowAdjust

/** A change that needs to see only some rows at a time, so that a tensor of any size takes little memory. */
export interface RowAdjust {
  /** `rows` begins with the tensor's row `firstRow`. */
  rows(rows: Float32Array, firstRow: number): void
  /**
   * The same on bfloat16 bits, with one rounding. Returns false, with unknown rows, where a result is infinite or NaN:
   * `rows` is asked then, on the original values.
   */
  bfloat16Rows?: (bits: Uint16Array, firstRow: number) => boolean
}

/** A tensor with its element types in the source and in the output; `cast` is undefined for integers, which are copied. */
export interface OutputTensor extends PlannedTensor {
  byteLength: number
  cast: { from: WeightDType; to: WeightDType } | undefined
  /** Its name in the source. */
  from: string
}

/** Bytes of the source in memory at a time, three times over: one part is read while one is changed and one written. */
const PART_BYTES = 8 << 20
const PARTS = 3

/** Some whole rows of a tensor. */
interface Part {
  tensor: OutputTensor
  firstRow: number
  /** Byte offset in the source's tensor. */
  offset: number
  byteLength: number
}

/**
 * Copies tensors into a file, in order, changed and cast. Reading, changing and writing overlap.
 *
 * @param onBytes is told how many more bytes of which tensor are written.
 * @throws EngineError `invalid` naming a tensor that doesn't fit its dtype or comes out infinite, `cancelled`.
 */
export async function copyTensors(
  source: WeightFolder,
  writer: SafetensorsWriter,
  tensors: readonly OutputTensor[],
  adjust: ReadonlyMap<string, Adjust> | undefined,
  onBytes: (bytes: number, tensor: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const parts = tensors.flatMap((tensor) => partsOf(tensor, source, adjust?.get(tensor.name)))
  const buffers: Uint8Array[] = []
  const read = async (index: number): Promise<Uint8Array | undefined> => {
    const part = parts[index]
    if (!part) return undefined
    const needed = part.byteLength
    // Three buffers take turns: while one part is changed, the next is read and the last may still be written.
    let buffer = buffers[index % PARTS]
    if (!buffer || buffer.length < needed) {
      buffer = new Uint8Array(Math.max(needed, PART_BYTES))
      buffers[index % PARTS] = buffer
    }
    return source.readPart(part.tensor.from, part.offset, buffer.subarray(0, needed))
  }
  let writing: Promise<void> = Promise.resolve()
  let reading = read(0)
  try {
    for (const [index, part] of parts.entries()) {
      checkCancelled(signal)
      const bytes = (await reading)!
      reading = read(index + 1)
      const { name } = part.tensor
      const changed = convert(source, part, bytes, adjust?.get(name))
      await writing
      writing = writer.appendAsync(name, changed).then(() => onBytes(changed.length, name))
      writing.catch(() => {}) // it is awaited below or in the next turn
    }
    await writing
  } finally {
    await Promise.allSettled([reading, writing])
  }
}

function partsOf(tensor: OutputTensor, source: WeightFolder, adjust: Adjust | undefined): Part[] {
  const { byteLength } = source.entry(tensor.from)
  const rows = byteLength === 0 ? 1 : (tensor.shape[0] ?? 1)
  const rowBytes = byteLength / rows
  // A change that wants the whole tensor gets it; a row cannot be parted.
  const rowsAtOnce =
    typeof adjust === 'function' ? rows : Math.max(1, Math.floor(PART_BYTES / rowBytes / 4) * 4)
  const parts: Part[] = []
  for (let firstRow = 0; firstRow < rows; firstRow += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - firstRow)
    parts.push({ tensor, firstRow, offset: firstRow * rowBytes, byteLength: count * rowBytes })
  }
  return parts
}

const NOT_FINITE = 'the adapter or the base holds numbers that are not finite or far too large'

/** A part's bytes for the output, which may share the memory of `bytes`. */
function convert(
  source: WeightFolder,
  part: Part,
  bytes: Uint8Array,
  adjust: Adjust | undefined,
): Uint8Array {
  const { name, from, cast, shape } = part.tensor
  if (!cast || (cast.from === cast.to && !adjust)) return bytes
  if (addsInPlace(part, bytes, adjust)) return bytes
  // The attempt in place has spoilt the bytes: the change begins anew, from the source, and says what is wrong.
  const original = inPlace(part, adjust) ? source.readPartSync(from, part.offset, part.byteLength) : bytes
  const values = decodeFloat32(original, cast.from)
  if (typeof adjust === 'function') adjust(values)
  else adjust?.rows(values, part.firstRow)
  const offset = part.firstRow * elementCount(shape.slice(1))
  checkRange(name, values, cast.to, adjust ? { mustBeFinite: NOT_FINITE, offset } : { offset })
  return encodeFloat32(values, cast.to)
}

function inPlace({ tensor: { cast } }: Part, adjust: Adjust | undefined): adjust is RowAdjust {
  const isBfloat16 = cast?.from === 'bfloat16' && cast.to === 'bfloat16'
  return isBfloat16 && typeof adjust === 'object' && adjust.bfloat16Rows !== undefined
}

function addsInPlace(part: Part, bytes: Uint8Array, adjust: Adjust | undefined): boolean {
  if (!inPlace(part, adjust)) return false
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)
  return adjust.bfloat16Rows!(bits, part.firstRow)
}
