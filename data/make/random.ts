import { createRandom } from '../../engine/random.ts'

/** Draws for the generators; the same seed gives the same sequence on every machine. */
export class Random {
  private readonly source: ReturnType<typeof createRandom>

  constructor(seed: number) {
    this.source = createRandom(seed)
  }

  /** A whole number in [low, high], both included. */
  int(low: number, high: number): number {
    return low + this.source.nextInt(high - low + 1)
  }

  chance(probability: number): boolean {
    return this.source.next() < probability
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('pick: the list is empty')
    return items[this.source.nextInt(items.length)]!
  }

  /** A shuffled copy. */
  shuffle<T>(items: readonly T[]): T[] {
    return this.source.shuffle([...items])
  }

  /** `count` different items in random order. */
  sample<T>(items: readonly T[], count: number): T[] {
    return this.shuffle(items).slice(0, count)
  }

  /** One item, drawn in proportion to its weight. */
  weighted<T>(choices: readonly (readonly [number, T])[]): T {
    const total = choices.reduce((sum, [weight]) => sum + weight, 0)
    let left = this.source.next() * total
    for (const [weight, item] of choices) {
      left -= weight
      if (left < 0) return item
    }
    return choices.at(-1)![1]
  }
}
