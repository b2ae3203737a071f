import { closeSync, existsSync, fsyncSync, openSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { openKept, readValues, writeValuesAsync } from './sequence-store.ts'

/**
 * Hidden states of all calibration sequences in front of a layer, on disk, so that memory does not grow with their
 * number and a restarted job finds them. `hidden-N.f32` holds what layer N reads.
 */
export class HiddenStates {
  private readonly folder: string
  /** Float32 values of one sequence. */
  private readonly width: number
  readonly sequences: number
  /** What reads fill: the system clears fresh memory page by page, which costs more than reading it. */
  private buffer = new Float32Array(0)

  constructor(folder: string, sequences: number, width: number) {
    this.folder = folder
    this.sequences = sequences
    this.width = width
  }

  has(layer: number): boolean {
    return existsSync(this.pathOf(layer))
  }

  /** The states of `count` sequences from `first` on; the next read overwrites them. */
  read(layer: number, first: number, count: number): Float32Array {
    if (this.buffer.length < count * this.width) this.buffer = new Float32Array(count * this.width)
    const values = this.buffer.subarray(0, count * this.width)
    const descriptor = openSync(this.pathOf(layer), 'r')
    try {
      readValues(descriptor, values, first * this.width)
    } finally {
      closeSync(descriptor)
    }
    return values
  }

  /** Writes a layer's input, batch after batch; it appears whole, and the one before it is written over next. */
  async write(layer: number, batches: AsyncIterable<Float32Array> | Iterable<Float32Array>): Promise<void> {
    const part = this.partOf(layer)
    const descriptor = openKept(part)
    let [written, writing] = [0, Promise.resolve()]
    try {
      for await (const values of batches) {
        await writing
        writing = writeValuesAsync(descriptor, values, written) // while the next batch is computed
        writing.catch(() => {}) // which may fail before anyone waits for it
        written += values.length
      }
      await writing
      fsyncSync(descriptor)
    } finally {
      await Promise.allSettled([writing])
      closeSync(descriptor)
    }
    renameSync(part, this.pathOf(layer))
    if (this.has(layer - 1)) renameSync(this.pathOf(layer - 1), this.partOf(layer + 1))
  }

  private partOf(layer: number): string {
    return `${this.pathOf(layer)}.part`
  }

  private pathOf(layer: number): string {
    return join(this.folder, `hidden-${layer}.f32`)
  }
}
