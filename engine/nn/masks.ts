import { floatTensor, intTensor, type Tensor } from '../tensor.ts'

/** Added to a score that must not count: large enough to vanish in float32's softmax, small enough not to overflow. */
export const MASKED = -1e30

/** float32 [1, 1, 1, length, length]: row i sees columns 0..i. */
export function causalMask(length: number): Tensor {
  const data = new Float32Array(length * length)
  for (let row = 0; row < length; row++) data.fill(MASKED, row * length + row + 1, (row + 1) * length)
  return floatTensor(data, [1, 1, 1, length, length])
}

/**
 * LongLoRA's shifted sparse attention (Chen et al. 2023, arXiv:2309.12307) as a mask for each head, float32
 * [1, kvHeads, group, length, length]. A sequence is parted into four groups that see only themselves; for the second half
 * of the heads it is turned by half a group first, so that those groups bridge the others (and the last one holds the
 * sequence's end and, behind it, its start, as the paper has it). `length` is a multiple of 8.
 */
export function shiftedMask(length: number, heads: number, keyValueHeads: number): Tensor {
  const size = length / 4
  const halves = [0, size / 2].map((shift) => {
    const place = (position: number) => (position - shift + length) % length
    const mask = new Float32Array(length * length).fill(MASKED)
    for (let row = 0; row < length; row++) {
      const last = place(row)
      const first = last - (last % size)
      for (let seen = first; seen <= last; seen++) mask[row * length + ((seen + shift) % length)] = 0
    }
    return mask
  })
  const data = new Float32Array(heads * length * length)
  for (let head = 0; head < heads; head++) {
    data.set(halves[head < Math.floor(heads / 2) ? 0 : 1]!, head * length * length)
  }
  return floatTensor(data, [1, keyValueHeads, heads / keyValueHeads, length, length])
}

/** int64 [rows, length]: start, start + 1, … in every row. */
export function consecutivePositions(rows: number, length: number, start = 0): Tensor {
  const data = BigInt64Array.from({ length: rows * length }, (_, index) => BigInt(start + (index % length)))
  return intTensor(data, [rows, length])
}

/**
 * float32 [rows, 1, 1, length, length] for rows that hold several sequences one after another, of the given lengths: a
 * place sees its own sequence up to itself. What is left of a row (padding) counts as one more sequence.
 */
export function blockMask(lengths: readonly (readonly number[])[], length: number): Tensor {
  const data = new Float32Array(lengths.length * length * length).fill(MASKED)
  for (const [row, parts] of lengths.entries()) {
    for (const [start, end] of spans(parts, length)) {
      for (let place = start; place < end; place++) {
        const first = (row * length + place) * length
        data.fill(0, first + start, first + place + 1)
      }
    }
  }
  return floatTensor(data, [lengths.length, 1, 1, length, length])
}

/** int64 [rows, length]: positions that begin at 0 with every sequence of a row. */
export function blockPositions(lengths: readonly (readonly number[])[], length: number): Tensor {
  const data = new BigInt64Array(lengths.length * length)
  for (const [row, parts] of lengths.entries()) {
    for (const [start, end] of spans(parts, length)) {
      for (let place = start; place < end; place++) data[row * length + place] = BigInt(place - start)
    }
  }
  return intTensor(data, [lengths.length, length])
}

function spans(parts: readonly number[], length: number): [start: number, end: number][] {
  const result: [number, number][] = []
  let start = 0
  for (const part of parts) {
    result.push([start, start + part])
    start += part
  }
  return start < length ? [...result, [start, length]] : result
}
