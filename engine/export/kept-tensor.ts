import type { WeightSource } from '../quant/weight-source.ts'
import { elementCount } from '../tensor.ts'
import { checkRange, encodeFloat32, type WeightDType } from '../weights/dtypes.ts'
import type { SafetensorsWriter } from '../weights/safetensors.ts'

/** Values in memory at a time, unless one row has more. */
const PIECE_VALUES = 4 << 20

/** Writes a tensor that is not quantized, in another dtype, some rows at a time. @throws EngineError as checkRange does. */
export function writeKept(
  writer: SafetensorsWriter,
  source: WeightSource,
  { name, shape }: { name: string; shape: readonly number[] },
  dtype: WeightDType,
): void {
  const rows = shape[0] ?? 1
  const columns = elementCount(shape.slice(1))
  const atOnce = Math.max(1, Math.floor(PIECE_VALUES / columns))
  for (let row = 0; row < rows; row += atOnce) {
    const values = source.readRows(name, row, Math.min(atOnce, rows - row))
    checkRange(name, values, dtype, { offset: row * columns })
    writer.append(name, encodeFloat32(values, dtype))
  }
}
