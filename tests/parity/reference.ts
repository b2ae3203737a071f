import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { TokenBatch } from '../../engine/train/step.ts'
import { WeightFolder } from '../../engine/weights/safetensors.ts'

/** One step of a recorded training curve. */
export interface CurvePoint {
  step: number
  lr: number
  loss: number
  grad_norm: number
}

interface ReferenceJson {
  base_loss: number
  greedy_from_first_8_tokens_of_batch_0_row_0?: number[]
  greedy?: { prompt: string; tokens: number[]; text: string }
  top20_after_batch_0_row_0?: [number, number][]
  curve?: CurvePoint[]
  plain_curve?: CurvePoint[]
  rslora_curve?: CurvePoint[]
  dora_curve?: CurvePoint[]
  full_curve?: CurvePoint[]
}

/** A batch with the rows that are not padding, which are the ones to compare. */
export interface ReferenceBatch extends TokenBatch {
  /** Tokens of each row that are not padding. */
  rowLengths: number[]
}

/** One family's folder of reference numbers. */
export class Reference {
  readonly folder: string
  readonly name: string
  readonly json: ReferenceJson
  readonly tensors: WeightFolder

  constructor(folder: string) {
    this.folder = folder
    this.name = basename(folder)
    this.json = JSON.parse(readFileSync(join(folder, 'reference.json'), 'utf8'))
    this.tensors = WeightFolder.open(folder, { fileName: 'reference.safetensors' })
  }

  has(file: string): boolean {
    return existsSync(join(this.folder, file))
  }

  float(name: string): Float32Array {
    return this.tensors.readFloat32(name)
  }

  /** Batch `index` with labels shifted to the positions that predict them. */
  batch(index: number): ReferenceBatch {
    const prefix = `batch.${String(index).padStart(2, '0')}`
    const [rows, length] = this.tensors.entry(`${prefix}.input_ids`).shape as [number, number]
    const read = (name: string) => new BigInt64Array(this.tensors.readRaw(`${prefix}.${name}`).slice().buffer)
    const labels = read('labels')
    const mask = read('attention_mask')
    const positions: bigint[] = []
    const targets: bigint[] = []
    for (let row = 0; row < rows; row++) {
      for (let place = 0; place + 1 < length; place++) {
        const label = labels[row * length + place + 1]!
        if (label === -100n) continue
        positions.push(BigInt(row * length + place))
        targets.push(label)
      }
    }
    const rowLengths = Array.from({ length: rows }, (_, row) =>
      Number(mask.subarray(row * length, (row + 1) * length).reduce((sum, value) => sum + value, 0n)),
    )
    return {
      rows,
      length,
      inputIds: read('input_ids'),
      trainedPositions: BigInt64Array.from(positions),
      labels: BigInt64Array.from(targets),
      tokens: rowLengths.reduce((sum, count) => sum + count, 0),
      rowLengths,
    }
  }
}

/** One compared quantity: how far off, and the bound. */
export interface Check {
  readonly name: string
  /** Largest deviation in the check's own unit, or null for a yes/no check. */
  readonly error: number | null
  readonly bound: number | null
  readonly passed: boolean
}

export function bounded(name: string, error: number, bound: number): Check {
  return { name, error, bound, passed: error <= bound }
}

export function exact(name: string, equal: boolean): Check {
  return { name, error: null, bound: null, passed: equal }
}

/** Largest |actual - expected| over the largest |expected|; NaN counts as infinite. */
export function relativeToLargest(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0
  let difference = 0
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!))
    const distance = Math.abs(actual[i]! - expected[i]!)
    difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(difference, distance)
  }
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  return largest === 0 ? difference : difference / largest
}
