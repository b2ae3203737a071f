import { elementCount } from '../tensor.ts'
import { checkCancelled } from './atomic-folder.ts'
import { checkRange, decodeFloat32, encodeFloat32, type WeightDType } from './dtypes.ts'
import type { PlannedTensor, WeightFolder } from './safetensors.ts'
import type { SafetensorsLayout } from './safetensors-writer.ts'
import { ROOM_BYTES, type StreamedFile } from './streamed-file.ts'

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

/** Some bytes of a tensor, whole rows where its change wants rows. */
interface Part {
  tensor: OutputTensor
  adjust: Adjust | undefined
  firstRow: number
  /** Where it begins in the source's tensor. */
  offset: number
  byteLength: number
  /** Where it begins in the file. */
  start: number
  /** Whether it is changed in the memory that is written. */
  inPlace: boolean
}

/**
 * Copies tensors into a file, changed and cast, in the order of their `places` in it. Reading, changing, hashing and
 * writing overlap.
 *
 * @param onBytes is told how many more bytes of which tensor are done.
 * @throws EngineError `invalid` naming a tensor that doesn't fit its dtype or comes out infinite, `cancelled`.
 */
export async function copyTensors(
  source: WeightFolder,
  file: StreamedFile,
  tensors: readonly OutputTensor[],
  places: SafetensorsLayout['places'],
  adjust: ReadonlyMap<string, Adjust> | undefined,
  onBytes: (bytes: number, tensor: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const startOf = (tensor: OutputTensor) => places.get(tensor.name)!.offset
  const parts = tensors
    .toSorted((a, b) => startOf(a) - startOf(b))
    .flatMap((tensor) => partsOf(tensor, startOf(tensor), source, adjust?.get(tensor.name)))
  const readPart = partReader(source, file, parts)
  const read = (index: number) => {
    const reading = readPart(index)
    reading.catch(() => {}) // it is awaited in the next turn
    return reading
  }
  let reading = read(0)
  try {
    for (const [index, part] of parts.entries()) {
      checkCancelled(signal)
      const bytes = (await reading)!
      // What lies far ahead in the file has no memory yet.
      const readsAhead = part.inPlace || !parts[index + 1]?.inPlace
      if (readsAhead) reading = read(index + 1)
      const changed = convert(source, part, bytes)
      if (!part.inPlace) await file.put(part.start, changed)
      else {
        if (changed !== bytes) bytes.set(changed)
        file.commit(part.start + bytes.length)
      }
      onBytes(changed.length, part.tensor.name)
      if (!readsAhead) reading = read(index + 1)
    }
  } finally {
    await Promise.allSettled([reading]) // nobody reads into memory that is given up
  }
}

/** Reads parts to where they are changed: two other buffers take turns for those that are not changed in place. */
function partReader(source: WeightFolder, file: StreamedFile, parts: readonly Part[]) {
  const buffers: Uint8Array[] = []
  return async (index: number): Promise<Uint8Array | undefined> => {
    const part = parts[index]
    if (!part) return undefined
    const { tensor, offset, start, byteLength, inPlace } = part
    if (inPlace) return source.readPart(tensor.from, offset, await file.room(start, byteLength))
    let buffer = buffers[index % 2]
    if (!buffer || buffer.length < byteLength) {
      buffer = new Uint8Array(Math.max(byteLength, ROOM_BYTES))
      buffers[index % 2] = buffer
    }
    return source.readPart(tensor.from, offset, buffer.subarray(0, byteLength))
  }
}

function partsOf(
  tensor: OutputTensor,
  start: number,
  source: WeightFolder,
  adjust: Adjust | undefined,
): Part[] {
  const { byteLength } = source.entry(tensor.from)
  if (byteLength === 0) return []
  const rows = tensor.shape[0] ?? 1
  const rowBytes = byteLength / rows
  // A change that wants the whole tensor gets it; a row cannot be parted.
  const rowsAtOnce =
    typeof adjust === 'function' ? rows : Math.max(1, Math.floor(ROOM_BYTES / rowBytes / 4) * 4)
  const growth = tensor.byteLength / byteLength
  const parts: Part[] = []
  for (let firstRow = 0; firstRow < rows; firstRow += rowsAtOnce) {
    const offset = firstRow * rowBytes
    const length = Math.min(rowsAtOnce, rows - firstRow) * rowBytes
    const inPlace = length <= ROOM_BYTES && canChangeInPlace(tensor, adjust)
    parts.push({
      tensor,
      adjust,
      firstRow,
      offset,
      byteLength: length,
      start: start + offset * growth,
      inPlace,
    })
  }
  return parts
}

const NOT_FINITE = 'the adapter or the base holds numbers that are not finite or far too large'

/** A part's bytes for the output, which are `bytes` where nothing or everything was changed in place. */
function convert(source: WeightFolder, part: Part, bytes: Uint8Array): Uint8Array {
  const { tensor, adjust, firstRow } = part
  const { name, from, cast, shape } = tensor
  if (!cast || (cast.from === cast.to && !adjust)) return bytes
  const bitwise = takesBits(tensor, adjust)
  if (bitwise) {
    const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)
    if (adjust.bfloat16Rows!(bits, firstRow)) return bytes
  }
  // The attempt in place has spoilt the bytes: the change begins anew, from the source, and says what is wrong.
  const original = bitwise ? source.readPartSync(from, part.offset, part.byteLength) : bytes
  const values = decodeFloat32(original, cast.from)
  if (typeof adjust === 'function') adjust(values)
  else adjust?.rows(values, firstRow)
  const offset = firstRow * elementCount(shape.slice(1))
  checkRange(name, values, cast.to, adjust ? { mustBeFinite: NOT_FINITE, offset } : { offset })
  return encodeFloat32(values, cast.to)
}

function canChangeInPlace(tensor: OutputTensor, adjust: Adjust | undefined): boolean {
  const { cast } = tensor
  return !cast || (cast.from === cast.to && !adjust) || takesBits(tensor, adjust)
}

function takesBits({ cast }: OutputTensor, adjust: Adjust | undefined): adjust is RowAdjust {
  const isBfloat16 = cast?.from === 'bfloat16' && cast.to === 'bfloat16'
  return isBfloat16 && typeof adjust === 'object' && adjust.bfloat16Rows !== undefined
}
