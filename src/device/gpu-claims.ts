import type { Gpu } from './gpus.ts'

/** How long a claim is believed that does not show: a model is loaded, or a run has prepared its data, within this. */
const CLAIM_MS = 5 * 60_000

interface Claim {
  readonly uuid: string
  readonly until: number
  /** Bytes that do not show yet. */
  bytes: number
}

/**
 * Memory of GPUs that was promised to processes which have not taken it yet, so that the driver still counts it as free: of
 * several that start within the same seconds, each is placed on what the others leave.
 */
export class GpuClaims {
  readonly #claims = new Map<number, Claim>()
  #next = 1
  /** Free bytes at the last look, by UUID. */
  readonly #seen = new Map<string, number>()

  /** The GPUs as the driver reports them now, with less free memory where a part of it is promised. */
  unclaimed(gpus: readonly Gpu[]): Gpu[] {
    return gpus.map((gpu) => {
      const { uuid, freeBytes } = gpu
      // what has gone since the last look was taken by those that it was promised to
      this.#pay(uuid, (this.#seen.get(uuid) ?? freeBytes) - freeBytes)
      this.#seen.set(uuid, freeBytes)
      const promised = this.#of(uuid).reduce((sum, { bytes }) => sum + bytes, 0)
      return { ...gpu, freeBytes: Math.max(0, freeBytes - promised) }
    })
  }

  /** Returns what the claim is released by. */
  claim(uuid: string, bytes: number): number {
    const id = this.#next++
    this.#claims.set(id, { uuid, bytes, until: Date.now() + CLAIM_MS })
    return id
  }

  /** Ends a claim, with the process that it was for. */
  release(id: number): void {
    this.#claims.delete(id)
  }

  #of(uuid: string): Claim[] {
    for (const [id, { until }] of this.#claims) if (until <= Date.now()) this.release(id)
    return [...this.#claims.values()].filter((claim) => claim.uuid === uuid)
  }

  /** Oldest first. */
  #pay(uuid: string, taken: number): void {
    let left = Math.max(0, taken)
    for (const claim of this.#of(uuid)) {
      const part = Math.min(claim.bytes, left)
      claim.bytes -= part
      left -= part
    }
  }
}
