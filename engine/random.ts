/** The whole state of a generator: four unsigned 32-bit words, as JSON can hold them. */
export type RandomState = [number, number, number, number]

/** A seedable generator whose state can be saved and restored exactly. */
export interface Random {
  /** A float in [0, 1) with 32 random bits. */
  next(): number
  /** An unsigned 32-bit integer. */
  nextUint32(): number
  /** An unbiased integer in [0, n), for 1 <= n <= 2^32. */
  nextInt(n: number): number
  /** A standard normal number (Box-Muller; two uniforms each, nothing is cached, so the state is all there is). */
  nextGaussian(): number
  /** Shuffles in place (Fisher-Yates). */
  shuffle<T extends { length: number; [index: number]: unknown }>(values: T): T
  state(): RandomState
}

/**
 * xoshiro128** 1.1 by Blackman and Vigna (https://prng.di.unimi.it), seeded by splitmix32 from a 32-bit seed and an
 * optional stream number: equal seeds with different streams give unrelated sequences. Not for secrets.
 */
export function createRandom(seed: number, stream = 0): Random {
  const mix = splitmix32(splitmix32(seed >>> 0)() ^ Math.imul((stream >>> 0) + 1, 0x9e3779b9))
  return restoreRandom([mix(), mix(), mix(), mix()])
}

/** A generator that goes on where `state()` was taken. */
export function restoreRandom(state: RandomState): Random {
  const s = Uint32Array.from(state)
  if (s.every((word) => word === 0)) s[0] = 1 // the all-zero state is the one fixed point

  const nextUint32 = () => {
    const result = Math.imul(rotateLeft(Math.imul(s[1]!, 5), 7), 9) >>> 0
    const shifted = s[1]! << 9
    s[2]! ^= s[0]!
    s[3]! ^= s[1]!
    s[1]! ^= s[2]!
    s[0]! ^= s[3]!
    s[2]! ^= shifted
    s[3] = rotateLeft(s[3]!, 11)
    return result
  }
  const nextInt = (n: number) => {
    const limit = 2 ** 32 - (2 ** 32 % n)
    let value = nextUint32()
    while (value >= limit) value = nextUint32()
    return value % n
  }
  return {
    nextUint32,
    nextInt,
    next: () => nextUint32() / 2 ** 32,
    nextGaussian: () => {
      const radius = Math.sqrt(-2 * Math.log((nextUint32() + 1) / 2 ** 32))
      return radius * Math.cos((2 * Math.PI * nextUint32()) / 2 ** 32)
    },
    shuffle: (values) => {
      for (let i = values.length - 1; i > 0; i--) {
        const j = nextInt(i + 1)
        const swapped = values[i]
        values[i] = values[j]
        values[j] = swapped
      }
      return values
    },
    state: () => [s[0]!, s[1]!, s[2]!, s[3]!],
  }
}

/**
 * The order in which an epoch visits `count` examples: a permutation that depends on the seed, the epoch and the count
 * alone, so that a resumed run computes it again instead of storing it.
 */
export function epochOrder(seed: number, epoch: number, count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, index) => index)
  createRandom(seed, epoch).shuffle(order)
  return order
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits))
}

function splitmix32(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let mixed = state ^ (state >>> 16)
    mixed = Math.imul(mixed, 0x21f0aaad)
    mixed ^= mixed >>> 15
    mixed = Math.imul(mixed, 0x735a2d97)
    return (mixed ^ (mixed >>> 15)) >>> 0
  }
}
