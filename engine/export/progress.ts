/** Reports one phase of a long job, as a fraction of that phase. */
export type PhaseProgress = (fraction: number, message: string) => void

/**
 * Joins phases into one progress: each takes its share of the whole, in the order of their names.
 *
 * @param shares parts of the whole time, roughly; their sum counts as 1.
 */
export function phases<Name extends string>(
  shares: Readonly<Record<Name, number>>,
  report: (fraction: number, message: string) => void,
): (name: Name) => PhaseProgress {
  const entries = Object.entries(shares) as [Name, number][]
  const total = entries.reduce((sum, [, share]) => sum + share, 0)
  return (name) => {
    const index = entries.findIndex(([key]) => key === name)
    const before = entries.slice(0, index).reduce((sum, [, share]) => sum + share, 0)
    return (fraction, message) => report((before + fraction * shares[name]) / total, message)
  }
}
